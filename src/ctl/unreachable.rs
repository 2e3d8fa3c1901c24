//! Why the daemon cannot be reached, and what to do about it.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::exit::{Exit, Failed};
use crate::control::client::{ConnectError, ConnectErrorKind};

/// Bytes of the group file that are looked through for a name.
const GROUP_FILE_BYTES_MAX: usize = 1024 * 1024;

/// The failure to connect to a socket, with its remedy.
pub(crate) fn explain(socket: &Path, error: &ConnectError) -> Failed {
    let reason = match error.kind {
        ConnectErrorKind::NotFound => format!("no such file; {START}"),
        ConnectErrorKind::Refused => format!("nobody answers there; {START}"),
        ConnectErrorKind::PermissionDenied => match group_of(socket) {
            Some(group) => format!(
                "permission denied; it is for the group '{group}': join it with \
                 'sudo usermod -aG {group} $USER' and log in again"
            ),
            None => "permission denied; ask who runs the daemon".to_owned(),
        },
        ConnectErrorKind::Other => error.source.to_string(),
    };
    let message = format!("cannot reach the daemon at {}: {reason}", socket.display());
    Failed::new(Exit::Unreachable, "daemon_unreachable", message)
}

const START: &str = "start it with 'systemctl --user start distmsg' or run 'distmsg'";

/// The group that may open the socket: its own, or, where even that is hidden, that of the nearest
/// directory that can be seen.
fn group_of(socket: &Path) -> Option<String> {
    let visible = socket.ancestors().find_map(|path| fs::metadata(path).ok())?;
    let gid = visible.gid();
    let groups = fs::read("/etc/group").ok().filter(|file| file.len() <= GROUP_FILE_BYTES_MAX);
    let groups = groups.and_then(|file| String::from_utf8(file).ok()).unwrap_or_default();
    Some(name_of(&groups, gid).unwrap_or_else(|| gid.to_string()))
}

/// The name of a group in the format of group(5): `name:password:gid:members`.
fn name_of(groups: &str, gid: u32) -> Option<String> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let id: u32 = fields.nth(1)?.parse().ok()?;
        (id == gid).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_by_number() {
        let groups = "root:x:0:\nbroken\ndistmsg:x:987:ann,bob\n";
        assert_eq!(name_of(groups, 987).as_deref(), Some("distmsg"));
        assert_eq!(name_of(groups, 1), None);
    }

    #[test]
    fn each_reason_has_a_remedy() {
        let line = |kind| {
            let path = Path::new("/nonexistent/socket").to_owned();
            let source = std::io::ErrorKind::Other.into();
            explain(&path, &ConnectError { kind, path: path.clone(), source }).line(false)
        };
        assert_eq!(
            line(ConnectErrorKind::NotFound),
            "distmsgctl: cannot reach the daemon at /nonexistent/socket: no such file; \
             start it with 'systemctl --user start distmsg' or run 'distmsg'"
        );
        assert!(line(ConnectErrorKind::PermissionDenied).contains("join it"));
        assert!(line(ConnectErrorKind::Refused).contains("nobody answers"));
    }
}
