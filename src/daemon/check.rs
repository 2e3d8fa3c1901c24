//! `distmsg check`: whether the configuration is right, without starting.

use std::io::{self, Write};
use std::path::Path;

use super::args::CheckArgs;
use super::exit::Stop;
use super::secrets::{SecretError, network_key_in};
use crate::config::{Config, Environment};
use crate::model::limits::SOCKET_PATH_BYTES_MAX;
use crate::model::{Address, escaped};

/// Checks the configuration and the key file it names.
///
/// # Errors
/// All that is wrong.
pub fn check(
    args: &CheckArgs,
    environment: &Environment,
    out: &mut dyn Write,
    chatter: &mut dyn Write,
) -> Result<(), Stop> {
    let path = environment.config_path(args.config.as_deref())?.path;
    let config = Config::load(&path)?;
    if let Some(file) = &config.network_key_file {
        check_key(&path, file, chatter)?;
    }
    let socket = environment.daemon_socket(&config);
    let bytes = socket.as_os_str().len();
    if bytes > SOCKET_PATH_BYTES_MAX {
        let message = format_args!(
            "without this key it would be {}, but a socket's path has at most \
             {SOCKET_PATH_BYTES_MAX} bytes and this has {bytes}; write a shorter one",
            shown(&socket)
        );
        return Err(Config::problem_with(&path, "socket", message).into());
    }
    writeln!(out, "{}: ok", shown(&path))?;
    Ok(summary(&config, environment, out)?)
}

/// What a node with this configuration would do; where things are is as this user would have it.
fn summary(config: &Config, environment: &Environment, out: &mut dyn Write) -> io::Result<()> {
    let list = |addresses: &[Address]| {
        addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    let listen = match &*config.listen {
        [] => "nowhere (it only dials)".to_owned(),
        addresses => list(addresses),
    };
    writeln!(out, "  listens on  {listen}")?;
    if !config.advertise.is_empty() {
        writeln!(out, "  advertises  {}", list(&config.advertise))?;
    }
    writeln!(out, "  network     {}", config.network)?;
    if let Some(address) = &config.interface {
        let how = if address.is_loopback() { "clear text or TLS" } else { "TLS only" };
        writeln!(out, "  interface   {address}, {how}")?;
    }
    match environment.state_dir(config) {
        Ok(dir) => writeln!(out, "  state       {}", shown(&dir))?,
        Err(error) => writeln!(out, "  state       {error}")?,
    }
    writeln!(out, "  socket      {}", shown(&environment.daemon_socket(config)))
}

/// A path made safe for a terminal.
fn shown(path: &Path) -> String {
    escaped(&path.to_string_lossy())
}

fn check_key(path: &Path, file: &Path, chatter: &mut dyn Write) -> Result<(), Stop> {
    match network_key_in(file) {
        Ok(_) => Ok(()),
        // Who checks is often not who runs the daemon.
        Err(SecretError::Io { error, .. }) if error.kind() == io::ErrorKind::PermissionDenied => {
            Ok(writeln!(chatter, "{}: may not be read by you, so not checked", shown(file))?)
        }
        Err(error) => Err(error.with_network_key_file(path, Some(file))),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn right_is_said_and_wrong_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("c.toml");
        let args = CheckArgs { config: Some(path.clone()) };
        let run = || {
            let mut out = Vec::new();
            let result = check(&args, &Environment::default(), &mut out, &mut Vec::new());
            result.map(|()| String::from_utf8(out).expect("text"))
        };
        let stop = run().expect_err("missing");
        assert_eq!(stop.code, 78);
        assert!(stop.message.contains("does not exist; write it with 'distmsg init"), "{stop}");

        fs::write(&path, "zzz = 1\nlog = 7").expect("written");
        let stop = run().expect_err("wrong");
        assert_eq!((stop.code, stop.message.lines().count()), (78, 2), "{stop}");

        fs::write(&path, "").expect("written");
        let shown = run().expect("right");
        let expected =
            "  listens on  127.0.0.1:3000\n  network     open\n  state       there is no";
        assert!(shown.starts_with(&format!("{}: ok\n{expected}", path.display())), "{shown}");
        for (address, how) in [("localhost:1", "clear text or TLS"), ("[::]:1", "TLS only")] {
            fs::write(&path, format!("[interface]\naddress = \"{address}\"")).expect("written");
            let shown = run().expect("right");
            assert!(shown.contains(&format!("  interface   {address}, {how}\n")), "{shown}");
        }
        fs::write(&path, "listen = []\nstate_dir = \"/s\"\nsocket = \"/k\"").expect("written");
        let shown = run().expect("right");
        for line in ["listens on  nowhere", "state       /s\n", "socket      /k\n"] {
            assert!(shown.contains(line), "{line}: {shown}");
        }

        let key = dir.path().join("k");
        let text = format!("network = \"closed\"\nnetwork_key_file = \"{}\"", key.display());
        fs::write(&path, text).expect("written");
        let stop = run().expect_err("no key");
        let expected = format!(
            "{}:2: network_key_file: {} does not exist; copy another member's network.key there",
            path.display(),
            key.display()
        );
        assert!(stop.message.starts_with(&expected), "{stop}");
        fs::write(&key, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n").expect("written");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("set");
        let stop = run().expect_err("public");
        assert!(stop.message.contains("chmod 600"), "{stop}");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("set");
        assert!(run().is_ok());
    }

    #[test]
    fn a_socket_that_cannot_be_is_wrong_and_a_path_cannot_reach_the_terminal() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("c.toml");
        fs::write(&path, "socket = \"/tmp/\\u001b[31m\"\nstate_dir = \"/\\r\"").expect("written");
        let args = CheckArgs { config: Some(path.clone()) };
        let mut out = Vec::new();
        check(&args, &Environment::default(), &mut out, &mut Vec::new()).expect("right");
        let shown = String::from_utf8(out).expect("text");
        assert!(shown.contains("  socket      /tmp/\\u{1b}[31m\n"), "{shown:?}");
        assert!(shown.contains("  state       /\\r\n"), "{shown:?}");

        fs::write(&path, "").expect("written");
        let runtime = format!("/{}", "r".repeat(100));
        let vars = [("XDG_RUNTIME_DIR".to_owned(), runtime.into())].into();
        let environment = Environment { vars, ..Environment::default() };
        let stop = check(&args, &environment, &mut Vec::new(), &mut Vec::new());
        let stop = stop.expect_err("too long");
        assert_eq!(stop.code, 78);
        assert!(stop.message.contains(": socket: without this key it would be /r"), "{stop}");
        assert!(
            stop.message.ends_with("107 bytes and this has 116; write a shorter one"),
            "{stop}"
        );
    }
}
