//! A graph_message configuration, taken over.

use std::fs;

use crate::daemon::Daemon;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/graph_message.conf");

#[test]
fn an_imported_configuration_is_valid_and_starts() {
    let mut a = Daemon::prepare("a");
    fs::remove_file(a.config()).expect("removed");
    let imported = a.distmsg(&["import", FILE]).exits(0);
    assert_eq!(
        imported.lines(),
        [
            "distmsgctl connect '[2001:db8::7]:4001' --alias 0011AABB",
            "distmsgctl connect 127.0.0.1:4002 --alias 9A8B7C6D",
            "distmsgctl connect 192.0.2.7:4001 --alias E5F60718",
        ]
    );
    for left_behind in ["interface", "4101", "locale"] {
        assert!(imported.stderr.contains(left_behind), "{}", imported.stderr);
    }
    let config = fs::read_to_string(a.config()).expect("written");
    for taken_over in ["A1B2C3D4", "127.0.0.1:4001", "127.0.0.1:4101"] {
        assert!(config.contains(taken_over), "{config}");
    }
    a.distmsg(&["check"]).exits(0);
    // Any port, so that tests do not meet; and nobody is looked for.
    a.configure(
        &config.replace("127.0.0.1:4001", "127.0.0.1:0").replace("127.0.0.1:4101", "127.0.0.1:0"),
    );
    a.boot();
    assert_eq!(a.status()["name"], "A1B2C3D4");
    let before = fs::read(a.config()).expect("there");
    let again = a.distmsg(&["import", FILE]);
    assert_eq!(again.code, Some(1), "over a file: {}", again.stderr);
    assert_eq!(fs::read(a.config()).expect("there"), before, "it is untouched");
}

#[test]
fn a_printed_connect_line_links_an_imported_peer() {
    let b = Daemon::start("b");
    let mut a = Daemon::prepare("a");
    fs::remove_file(a.config()).expect("removed");
    let old = a.state_dir().with_file_name("old.conf");
    fs::create_dir_all(old.parent().expect("a directory")).expect("made");
    let text = format!(
        "peer_id=A1B2C3D4\nhost=127.0.0.1\nport=4001\nlocale=en\ninterface_port=0\n\
         peer_table=\nE5F60718={}\n",
        b.address
    );
    fs::write(&old, text).expect("written");
    let printed = a.distmsg(&["import", old.to_str().expect("a name")]).exits(0).text();
    let config = fs::read_to_string(a.config()).expect("written");
    a.configure(
        &config.replace("127.0.0.1:4001", "127.0.0.1:0").replace("127.0.0.1:4101", "127.0.0.1:0"),
    );
    a.boot();
    let mut words: Vec<&str> = printed.split_ascii_whitespace().collect();
    assert_eq!(words.remove(0), "distmsgctl");
    // A person would be asked.
    words.push("--trust-on-first-use");
    a.ctl(&words).exits(0);
    a.await_links(&[&b]);
    a.ctl(&["send", "E5F60718", "known again"]).exits(0);
    assert_eq!(b.bodies(), ["known again"]);
}
