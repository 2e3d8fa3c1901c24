//! The way to a daemon by its TCP interface port, and why there is none.

use std::io;

use super::exit::{Exit, Failed};
use crate::config::{InterfaceEndpoint, TokenFile};
use crate::control::client::{Client, Events};
use crate::control::interface::{Credentials, DialError, TokenFileError, dial, read_token};
use crate::model::{InterfaceAddress, escaped, plainly};

/// A connection that is authenticated, or why there is none and what to do about it.
pub(crate) async fn connect(endpoint: &InterfaceEndpoint) -> Result<(Client, Events), Failed> {
    let credentials = credentials(&endpoint.token)?;
    dial(&endpoint.address, &credentials).await.map_err(|error| {
        let by = if endpoint.by_variable { " (named by DISTMSG_INTERFACE_ADDR)" } else { "" };
        explain(&endpoint.address, by, error)
    })
}

/// The token, read anew each time: it may have been replaced.
fn credentials(file: &TokenFile) -> Result<Credentials, Failed> {
    let read = match file {
        TokenFile::Named(path) => read_token(path),
        TokenFile::Usual(paths) => {
            let is_missing = |error: &TokenFileError| {
                matches!(error, TokenFileError::Io { error, .. }
                    if error.kind() == io::ErrorKind::NotFound)
            };
            let read = paths.iter().map(|path| read_token(path));
            let mut found = read.skip_while(|read| read.as_ref().is_err_and(is_missing));
            let Some(found) = found.next() else { return Err(no_token(&nowhere(paths))) };
            found
        }
        TokenFile::Unnamed => {
            return Err(no_token(
                "the token of a daemon on another machine is not this machine's; copy \
                 interface-token from its state directory, and name the copy with --token-file \
                 (or DISTMSG_TOKEN_FILE)",
            ));
        }
    };
    read.map_err(|error| no_token(&error.to_string()))
}

fn nowhere(paths: &[std::path::PathBuf]) -> String {
    let shown: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    format!(
        "there is no token at {}; a daemon makes it when it first has an interface port: write \
         interface_port in its configuration, or name the token with --token-file",
        shown.join(" nor at ")
    )
}

fn no_token(message: &str) -> Failed {
    Failed::new(Exit::Failure, "no_token", message)
}

fn explain(at: &InterfaceAddress, by: &str, error: DialError) -> Failed {
    let reason = match error {
        DialError::Refused(failure) => return failure.into(),
        DialError::OtherPeer(other) => {
            let mut failed = Failed::new(
                Exit::Mismatch,
                "identity_mismatch",
                format!(
                    "another key answers at {}{by}: that of {other}; nothing was sent to it. If \
                     that is the daemon you mean, write {other}@{}",
                    at.address(),
                    at.address()
                ),
            );
            failed.peer = Some(other.to_string());
            return failed;
        }
        DialError::Resolve(error) => {
            format!("its host is not found ({}); check the name", plainly(&error))
        }
        DialError::NotLoopback(ip) => format!(
            "{} is {ip} here, which is not this machine alone, and the token would go there in \
             clear text; write PEER_ID@HOST:PORT",
            at.address().host()
        ),
        DialError::Connect(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            "nobody answers there; check that the daemon runs and has this address as its \
             interface port (its 'status' and its log name it)"
                .to_owned()
        }
        DialError::Connect(error) => {
            format!("{}; check the address, and that no firewall is in the way", plainly(&error))
        }
        DialError::Tls(error) => format!(
            "it does not speak TLS as an interface port does ({}); check the address",
            escaped(&error.to_string())
        ),
        DialError::Closed if at.peer().is_none() => format!(
            "it hung up without a word; if it is an interface port that takes only TLS, write \
             PEER_ID@{}, else check the address",
            at.address()
        ),
        DialError::Closed => {
            "it hung up without a word, so it is no interface port; check the address".to_owned()
        }
        DialError::Silent => "it does not answer; it hangs, or is no interface port".to_owned(),
        DialError::Protocol(what) => format!(
            "it answers what this distmsgctl does not understand ({}); check the address",
            escaped(&what)
        ),
    };
    let message = format!("cannot reach the daemon at {at}{by}: {reason}");
    Failed::new(Exit::Unreachable, "daemon_unreachable", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::{ErrorCode, Failure};

    const PEER: &str = "dm1qyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqs4lhh9s";

    fn failed(at: &str, error: DialError) -> Failed {
        explain(&at.parse().expect("an address"), "", error)
    }

    #[test]
    fn each_reason_has_its_exit_code_and_a_remedy() {
        let peer = PEER.parse().expect("a peer");
        let pinned = format!("{PEER}@192.0.2.7:8080");
        let io = |kind: io::ErrorKind| io::Error::from(kind);
        let refused = Failure::new(ErrorCode::Unauthorized, "no");
        for (at, error, exit, remedy) in [
            (&*pinned, DialError::OtherPeer(peer), Exit::Mismatch, "nothing was sent to it"),
            (&pinned, DialError::Refused(refused), Exit::Refused, "no"),
            (&pinned, DialError::Closed, Exit::Unreachable, "check the address"),
            ("127.0.0.1:1", DialError::Closed, Exit::Unreachable, "write PEER_ID@127.0.0.1:1"),
            ("127.0.0.1:1", DialError::Silent, Exit::Unreachable, "it hangs"),
            (
                "127.0.0.1:1",
                DialError::Connect(io(io::ErrorKind::ConnectionRefused)),
                Exit::Unreachable,
                "nobody answers there; check that the daemon runs",
            ),
            (
                &pinned,
                DialError::Connect(io(io::ErrorKind::TimedOut)),
                Exit::Unreachable,
                "firewall",
            ),
            (
                "localhost:1",
                DialError::NotLoopback([192, 0, 2, 1].into()),
                Exit::Unreachable,
                "localhost is 192.0.2.1 here",
            ),
        ] {
            let failed = failed(at, error);
            assert_eq!(failed.exit, exit, "{}", failed.message);
            assert!(failed.message.contains(remedy), "{}", failed.message);
            assert!(!failed.message.contains('\n'));
        }
    }

    #[test]
    fn a_token_that_is_nowhere_is_looked_for_in_all_places() {
        let dir = tempfile::tempdir().expect("a directory");
        let paths = vec![dir.path().join("a"), dir.path().join("b")];
        let usual = TokenFile::Usual(paths.clone());
        let failed = credentials(&usual).map(drop).expect_err("none");
        for path in &paths {
            assert!(failed.message.contains(&path.display().to_string()), "{}", failed.message);
        }
        std::fs::write(&paths[1], "nonsense").expect("written");
        let failed = credentials(&usual).map(drop).expect_err("it is no token");
        assert!(failed.message.contains("/b "), "{}", failed.message);
        let failed = credentials(&TokenFile::Unnamed).map(drop).expect_err("none");
        assert!(failed.message.contains("--token-file"), "{}", failed.message);
    }
}
