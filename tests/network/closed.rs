//! Closed networks: who has the key is in, who has not is told.

use std::fs;

use crate::daemon::Daemon;

/// A daemon of a closed network, with the key of another member if there is one.
fn member(name: &str, of: Option<&Daemon>) -> Daemon {
    let mut daemon = Daemon::prepare(name);
    let config = fs::read_to_string(daemon.config()).expect("its configuration");
    daemon.configure(&config.replace("network = \"open\"", "network = \"closed\""));
    if let Some(of) = of {
        fs::create_dir_all(daemon.state_dir()).expect("a directory");
        let key = "network.key";
        fs::copy(of.state_dir().join(key), daemon.state_dir().join(key)).expect("copied");
    }
    daemon.boot();
    daemon
}

#[test]
fn members_link_and_others_are_refused_with_a_reason_that_both_operators_see() {
    let a = member("a", None);
    let b = member("b", Some(&a));
    let stranger = member("c", None);
    let open = Daemon::start("d");
    b.connect(&a);
    b.ctl(&["send", "a", "among ourselves"]).exits(0);
    assert_eq!(a.bodies(), ["among ourselves"]);
    for (other, why) in [(&stranger, "another network"), (&open, "closed network")] {
        let refused = other.ctl(&["connect", &a.peer, &a.address]).exits(7);
        assert!(refused.stderr.contains(why), "{}", refused.stderr);
        assert!(refused.stderr.contains("copy of its network.key"), "{}", refused.stderr);
        assert!(other.linked().is_empty());
        a.logged_all(&[&other.peer, why]);
    }
    a.logged("this node is in a closed network, the peer in the open one");
    assert_eq!(a.linked(), std::slice::from_ref(&b.peer));
}

#[test]
fn the_key_is_private_and_stands_nowhere_else() {
    let a = member("a", None);
    let b = member("b", Some(&a));
    b.connect(&a);
    let key = fs::read_to_string(a.state_dir().join("network.key")).expect("the key");
    let identity = fs::read_to_string(a.state_dir().join("identity.pem")).expect("the identity");
    let secret = identity.lines().nth(1).expect("a line of it").to_owned();
    for daemon in [&a, &b] {
        let config = fs::read_to_string(daemon.config()).expect("its configuration");
        for text in [daemon.log(), config, daemon.ctl(&["status", "--json"]).exits(0).text()] {
            assert!(!text.contains(key.trim()), "the network key shows");
            assert!(!text.contains(&secret), "the identity shows");
        }
    }
}
