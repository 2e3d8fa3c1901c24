//! Why the daemon cannot be reached, and what to do about it.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::exit::{Exit, Failed};
use crate::config::{SocketFrom, SocketPath};
use crate::control::client::{ConnectError, ConnectErrorKind};

/// Bytes of the files of users and groups that are looked through for a name.
const NAMES_FILE_BYTES_MAX: usize = 1024 * 1024;

/// May the group open the socket?
const GROUP_WRITES: u32 = 0o020;
/// May the group enter the directory?
const GROUP_ENTERS: u32 = 0o010;

/// The failure to connect to a socket, with its remedy.
pub(crate) fn explain(socket: &SocketPath, error: &ConnectError) -> Failed {
    let at = socket.path.display();
    let message = match (error.kind, &socket.missed) {
        (ConnectErrorKind::NotFound, Some(missed)) => format!(
            "cannot reach a daemon: there is none of yours at {}, none of the system's at {at}; \
             {START}",
            missed.display()
        ),
        (_, Some(missed)) => format!(
            "cannot reach the system's daemon at {at}: {}; there is none of yours at {}",
            reason(&socket.path, error),
            missed.display()
        ),
        (_, None) => {
            let by = named_by(socket.from);
            format!("cannot reach the daemon at {at}{by}: {}", reason(&socket.path, error))
        }
    };
    Failed::new(Exit::Unreachable, "daemon_unreachable", message)
}

/// A daemon that runs elsewhere is not found by one that looks here: another environment (ssh,
/// cron, sudo) means other places.
const START: &str = "start it with 'distmsg', or name the socket of one that runs with --socket";

/// Who said that the daemon is there, where the person may not think of it.
const fn named_by(from: SocketFrom) -> &'static str {
    match from {
        SocketFrom::Variable => " (named by DISTMSG_SOCKET)",
        SocketFrom::Config => " (named in the configuration)",
        SocketFrom::Flag | SocketFrom::User | SocketFrom::System => "",
    }
}

fn reason(socket: &Path, error: &ConnectError) -> String {
    match error.kind {
        ConnectErrorKind::NotFound => format!("no such file; {START}"),
        ConnectErrorKind::Refused => format!("nobody answers there; {START}"),
        ConnectErrorKind::PermissionDenied => format!("permission denied; {}", who_may(socket)),
        ConnectErrorKind::Other => error.source.to_string(),
    }
}

/// Who may open the socket that we may not.
fn who_may(socket: &Path) -> String {
    // What cannot be seen is kept from us by the nearest directory that can.
    let visible = socket.ancestors().find_map(|path| fs::metadata(path).ok());
    let Some(found) = visible.as_ref().map(Guard::of) else {
        return "ask who runs the daemon".to_owned();
    };
    let own = rustix::process::geteuid().as_raw();
    found.remedy(own, &names("/etc/passwd"), &names("/etc/group"))
}

/// What keeps us from the socket: itself, or a directory on the way.
struct Guard {
    uid: u32,
    gid: u32,
    mode: u32,
    is_dir: bool,
}

impl Guard {
    fn of(found: &Metadata) -> Self {
        let (uid, gid, mode) = (found.uid(), found.gid(), found.mode() & 0o777);
        Self { uid, gid, mode, is_dir: found.is_dir() }
    }

    /// What lets us in, given the files of users and groups.
    fn remedy(&self, own: u32, users: &str, groups: &str) -> String {
        let for_group = if self.is_dir { GROUP_ENTERS } else { GROUP_WRITES };
        let name = |names, id: u32| name_of(names, id).unwrap_or_else(|| id.to_string());
        // Of what is in a directory that keeps us out we know nothing.
        let it = if self.is_dir { "its directory" } else { "it" };
        if self.uid == own {
            let mode = self.mode;
            return format!("{it} is yours, but has the mode {mode:03o}; start the daemon again");
        }
        if self.mode & for_group == 0 {
            let user = name(users, self.uid);
            return format!("{it} is for the user '{user}' alone; ask who runs the daemon");
        }
        let group = name(groups, self.gid);
        // Who is known by another service than the file has a name that the shell knows.
        let user = name_of(users, own).unwrap_or_else(|| "$USER".to_owned());
        if is_member(groups, self.gid, &user) {
            return format!(
                "{it} is for the group '{group}', which you joined after you logged in; log in \
                 again"
            );
        }
        format!(
            "{it} is for the group '{group}': join it with 'sudo usermod -aG {group} {user}' and \
             log in again"
        )
    }
}

/// A file of names; empty if it cannot be read.
fn names(path: &str) -> String {
    let bytes = fs::read(path).ok().filter(|file| file.len() <= NAMES_FILE_BYTES_MAX);
    bytes.and_then(|file| String::from_utf8(file).ok()).unwrap_or_default()
}

/// The name with a number in the format of passwd(5) and group(5): `name:password:number:...`.
fn name_of(names: &str, number: u32) -> Option<String> {
    names.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let id: u32 = fields.nth(1)?.parse().ok()?;
        (id == number).then(|| name.to_owned())
    })
}

/// Whether a user is listed in a group, in the format of group(5): the members are the last field.
fn is_member(groups: &str, number: u32, user: &str) -> bool {
    let number = number.to_string();
    groups.lines().any(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [_, _, id, members] = &fields[..] else { return false };
        !user.is_empty() && *id == number && members.split(',').any(|member| member == user)
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    const GROUPS: &str = "root:x:0:\nbroken\ndistmsg:x:987:ann,bob\n";
    const USERS: &str = "root:x:0:0:root:/root:/bin/sh\nann:x:1001:1001::/home/ann:/bin/sh\n\
                         eve:x:1000:1000::/home/eve:/bin/sh\n";

    #[test]
    fn names_are_found_by_number() {
        assert_eq!(name_of(GROUPS, 987).as_deref(), Some("distmsg"));
        assert_eq!(name_of(USERS, 1001).as_deref(), Some("ann"));
        assert_eq!(name_of(GROUPS, 1), None);
    }

    #[test]
    fn a_group_is_advised_only_where_it_may() {
        let remedy =
            |mode, is_dir| Guard { uid: 1001, gid: 987, mode, is_dir }.remedy(1000, USERS, GROUPS);
        let group = "is for the group 'distmsg': join it with 'sudo usermod -aG distmsg eve' and \
                     log in again";
        let alone = "is for the user 'ann' alone; ask who runs the daemon";
        for (mode, is_dir, expected) in [
            (0o660, false, group),
            (0o600, false, alone),
            // Reading is not enough to connect.
            (0o640, false, alone),
            (0o750, true, group),
            (0o700, true, alone),
            (0o740, true, alone),
        ] {
            let it = if is_dir { "its directory" } else { "it" };
            assert_eq!(remedy(mode, is_dir), format!("{it} {expected}"), "{mode:o}");
        }
    }

    #[test]
    fn who_is_in_the_group_already_has_only_to_log_in_again() {
        let guard = Guard { uid: 0, gid: 987, mode: 0o660, is_dir: false };
        let told = guard.remedy(1001, USERS, GROUPS);
        assert!(told.ends_with("which you joined after you logged in; log in again"), "{told}");
        // Who is in none of the files is not taken for a member.
        let told = guard.remedy(7, USERS, GROUPS);
        assert!(told.contains("'sudo usermod -aG distmsg $USER'"), "{told}");
        assert!(!is_member("distmsg:x:987:", 987, ""), "{told}");
    }

    #[test]
    fn who_has_no_name_is_a_number_and_ones_own_is_said_to_be() {
        let guard = Guard { uid: 7, gid: 8, mode: 0o600, is_dir: false };
        assert!(guard.remedy(1, USERS, GROUPS).contains("user '7' alone"));
        assert!(guard.remedy(7, USERS, GROUPS).contains("it is yours, but has the mode 600"));
    }

    fn line(socket: &SocketPath, kind: ConnectErrorKind) -> String {
        let source = std::io::ErrorKind::Other.into();
        explain(socket, &ConnectError { kind, path: socket.path.clone(), source }).line(false)
    }

    #[test]
    fn each_reason_has_a_remedy() {
        let named = |from| SocketPath::named(PathBuf::from("/nonexistent/socket"), from);
        assert_eq!(
            line(&named(SocketFrom::Flag), ConnectErrorKind::NotFound),
            "distmsgctl: cannot reach the daemon at /nonexistent/socket: no such file; start it \
             with 'distmsg', or name the socket of one that runs with --socket"
        );
        let refused = line(&named(SocketFrom::Variable), ConnectErrorKind::Refused);
        assert!(refused.contains("(named by DISTMSG_SOCKET): nobody answers"), "{refused}");
        let denied = line(&named(SocketFrom::Config), ConnectErrorKind::PermissionDenied);
        assert!(denied.contains("(named in the configuration): permission denied"), "{denied}");
    }

    #[test]
    fn both_places_are_named_where_nobody_said_where_to_look() {
        let missed = Some(PathBuf::from("/run/user/7/distmsg/socket"));
        let from = SocketFrom::System;
        let socket = SocketPath { path: "/run/distmsg/socket".into(), from, missed };
        assert_eq!(
            line(&socket, ConnectErrorKind::NotFound),
            "distmsgctl: cannot reach a daemon: there is none of yours at \
             /run/user/7/distmsg/socket, none of the system's at /run/distmsg/socket; start it \
             with 'distmsg', or name the socket of one that runs with --socket"
        );
        let refused = line(&socket, ConnectErrorKind::Refused);
        for part in ["system's daemon at /run/distmsg/socket: nobody", "at /run/user/7/distmsg"] {
            assert!(refused.contains(part), "{refused}");
        }
    }
}
