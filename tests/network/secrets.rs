//! What must never be read in a log, however much is logged.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use crate::daemon::Daemon;

const BODY: &[u8] = b"the cellar key is under the mat";

/// A secret in every form in which a careless line might show it.
fn forms(secret: &[u8]) -> Vec<String> {
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let numbers = format!("{secret:?}");
    vec![
        hex.to_uppercase(),
        hex,
        // Any part of a list, too.
        numbers.trim_matches(['[', ']']).split(", ").take(12).collect::<Vec<_>>().join(", "),
        STANDARD.encode(secret),
        STANDARD_NO_PAD.encode(secret),
        URL_SAFE_NO_PAD.encode(secret),
        String::from_utf8_lossy(secret).into_owned(),
        format!("{:?}", bytes::Bytes::copy_from_slice(secret)),
        secret.escape_ascii().to_string(),
    ]
}

/// Every secret that a daemon keeps: its identity, its prekeys and sessions, its network's key, the
/// token of its interface port.
fn secrets_of(daemon: &Daemon) -> Vec<(&'static str, Vec<u8>)> {
    let pem = fs::read_to_string(daemon.state_dir().join("identity.pem")).expect("its identity");
    let packed: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let der = STANDARD.decode(&packed).expect("PEM");
    // The private key is the end of an RFC 5958 structure without attributes.
    let at = der.windows(4).position(|window| window == [0x04, 0x22, 0x04, 0x20]);
    let seed = der[at.expect("an Ed25519 key") + 4..][..32].to_vec();
    let key = fs::read_to_string(daemon.state_dir().join("network.key")).expect("its key");
    let key = STANDARD.decode(key.trim()).expect("base64");
    let mut secrets = vec![("the identity", seed), ("the network key", key)];
    if let Ok(token) = fs::read_to_string(daemon.state_dir().join("interface-token")) {
        secrets.push(("the token", bytes_of(token.trim_end())));
    }
    let database = daemon.database();
    let mut rows = database.prepare("SELECT bytes FROM secrets").expect("a table");
    let rows = rows.query_map([], |row| row.get::<_, Vec<u8>>(0)).expect("read");
    for row in rows {
        let row = row.expect("read");
        if row.iter().any(|byte| *byte != 0) {
            secrets.push(("a prekey or session", row));
        }
    }
    secrets
}

/// What hexadecimal digits stand for.
fn bytes_of(digits: &str) -> Vec<u8> {
    let digits: Vec<char> = digits.chars().collect();
    let byte = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16);
    digits.chunks(2).map(|pair| byte(pair).expect("digits")).collect()
}

/// Shows the token of an interface port, and a wrong one, in clear text and over TLS.
fn show_tokens(daemon: &Daemon, wrong: &str) {
    let address = daemon.status()["interface"][0].as_str().expect("an address").to_owned();
    let file = daemon.state_dir().with_file_name("wrong");
    fs::write(&file, wrong).expect("written");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("set");
    let file = file.to_str().expect("text");
    for way in [address.clone(), format!("{}@{address}", daemon.peer)] {
        daemon.ctl(&["--interface", &way, "id"]).exits(0);
        daemon.ctl(&["--interface", &way, "--token-file", file, "id"]).exits(7);
    }
    // Lines that are almost right.
    for line in [format!("{{\"{wrong}\": 1}}\n"), format!("{{ {wrong}\n"), wrong.to_owned() + "\n"]
    {
        let mut stream = TcpStream::connect(&address).expect("connected");
        stream.write_all(line.as_bytes()).expect("written");
        let _ = stream.read_to_end(&mut Vec::new());
    }
}

#[test]
fn logs_hold_neither_bodies_nor_keys_at_any_level() {
    let mut net: Vec<Daemon> = ["a", "b", "c"].map(Daemon::prepare).into();
    for at in 0..net.len() {
        let config = fs::read_to_string(net[at].config()).expect("its configuration");
        net[at].configure(&config.replace("network = \"open\"", "network = \"closed\""));
        // The second one with everything that the libraries say, too.
        net[at].log_filter = ["trace", "trace,distmsg=trace", "error"][at].to_owned();
        if at > 0 {
            let (first, this) = (net[0].state_dir(), net[at].state_dir());
            fs::create_dir_all(&this).expect("a directory");
            fs::copy(first.join("network.key"), this.join("network.key")).expect("copied");
        }
        if at == 1 {
            let config = fs::read_to_string(net[at].config()).expect("its configuration");
            net[at].configure(&format!("{config}\n[interface]\naddress = \"127.0.0.2:0\"\n"));
        }
        net[at].boot();
    }
    // However it comes to be: the last one is told at run time.
    net[2].ctl(&["log", "trace"]).exits(0);
    let wrong_token = "c0ffee".repeat(11)[..64].to_owned();
    show_tokens(&net[1], &wrong_token);
    net[0].connect(&net[1]);
    net[1].connect(&net[2]);
    let c = net[2].peer.clone();
    net[0].ctl_given(&["send", &c, "--subject", "cellar secret"], BODY).exits(0);
    net[0].ctl_given(&["send", &c, "--id", "k"], BODY).exits(0);
    net[0].ctl(&["discover"]).exits(0);
    assert_eq!(net[2].bodies().len(), 2);
    net[2].ctl(&["listen", "--count", "2", "--timeout", "20s"]).exits(0);
    // What goes wrong is logged with more words.
    net[1].kill();
    net[0].ctl_given(&["send", &c, "--timeout", "1s"], BODY).exits(4);
    net[1].boot();
    net[0].ctl(&["ping", &c, "--timeout", "30s"]).exits(0);
    for daemon in &mut net {
        assert!(daemon.terminate().success());
    }
    let mut secrets: Vec<_> = net.iter().flat_map(secrets_of).collect();
    assert!(secrets.len() > 8, "prekeys and sessions are among them: {}", secrets.len());
    assert!(secrets.iter().any(|(what, _)| *what == "the token"));
    secrets.push(("a wrong token", bytes_of(&wrong_token)));
    secrets.push(("a body", BODY.to_vec()));
    secrets.push(("a subject", b"cellar secret".to_vec()));
    for daemon in &net {
        let log = daemon.log();
        assert!(log.contains("TRACE") || log.contains("DEBUG"), "{} logs a lot", daemon.name);
        for (what, secret) in &secrets {
            for form in forms(secret) {
                assert!(!log.contains(&form), "{what} stands in the log of {}", daemon.name);
            }
        }
    }
}
