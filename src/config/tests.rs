//! The configuration as people write it, rightly and wrongly.

use std::path::Path;

use super::*;

fn parse(text: &str) -> Result<Config, Problems> {
    Config::parse(text, Path::new("c.toml"))
}

/// The problems of a text, one line each.
fn problems(text: &str) -> Vec<String> {
    let problems = parse(text).expect_err(text);
    problems.to_string().lines().map(str::to_owned).collect()
}

#[test]
fn an_empty_file_is_all_defaults() {
    assert_eq!(parse(""), Ok(Config::default()));
    assert_eq!(parse("\u{feff}# nothing\n[links]\n[limits]\n"), Ok(Config::default()));
}

#[test]
fn every_key_is_read() {
    let config = parse(
        r#"
        name = "alice"
        listen = ["0.0.0.0", "[::]:4000"]
        advertise = ["alice.example.org"]
        network = "closed"
        network_key_file = "/k"
        log = "debug"
        socket = "/s"
        state_dir = "/d"
        [interface]
        address = "[::1]:8080"
        [links]
        auto = 0
        [limits]
        message_bytes_max = 0x10_0000
        seen_lifetime_s = 601
        "#,
    )
    .expect("right");
    assert_eq!(config.name.as_ref().map(Name::as_str), Some("alice"));
    assert_eq!(format!("{:?}", config.listen), "[0.0.0.0:3000, [::]:4000]");
    assert_eq!(format!("{:?}", config.advertise), "[alice.example.org:3000]");
    assert_eq!(config.network, Network::Closed);
    assert_eq!(config.network_key_file.as_deref(), Some(Path::new("/k")));
    assert_eq!(config.log, Level::Debug);
    assert_eq!(config.socket.as_deref(), Some(Path::new("/s")));
    assert_eq!(config.state_dir.as_deref(), Some(Path::new("/d")));
    assert_eq!(config.interface.map(|address| address.to_string()), Some("[::1]:8080".into()));
    assert_eq!(config.links_auto, 0);
    assert_eq!(config.limits.message_bytes_max, 1024 * 1024);
    assert_eq!(config.limits.seen_lifetime, crate::model::Span::from_secs(601));
}

#[test]
fn each_mistake_is_named_with_its_line_its_key_and_its_remedy() {
    for (text, expected) in [
        ("nam = 1", "c.toml:1: nam: unknown key; did you mean name?"),
        ("\n[links]\nautos = 1", "c.toml:3: links.autos: unknown key; did you mean auto?"),
        ("auto = 1", "c.toml:1: auto: this key belongs under [links]; move it there"),
        (
            "[links]\nname = \"a\"",
            "c.toml:2: links.name: this key belongs at the beginning of the file, before any \
             [table]; move it there",
        ),
        (
            "[links]\nrecords_max = 99",
            "c.toml:2: links.records_max: this key belongs under [limits]; move it there",
        ),
        ("name = 7", "c.toml:1: name: expected text in quotes, found a whole number"),
        ("name = \"\"", "c.toml:1: name: a name has at least one character"),
        ("links = 3", "c.toml:1: links: expected a table, found a whole number; write [links]"),
        ("listen = \"a:1\"", "c.toml:1: listen: expected a list, found text; write listen = ["),
        ("listen = [\n\"localhost:1\",\n1]", "c.toml:3: listen: expected text in quotes"),
        ("listen = [\"a:x\"]", "c.toml:1: listen: the port is not a number from 0 to 65535"),
        ("listen = [\"[::1]:2\", \"[::1]:2\"]", "c.toml:1: listen: [::1]:2 stands here twice"),
        ("advertise = [\"0.0.0.0:1\"]", "c.toml:1: advertise: nobody can dial 0.0.0.0:1;"),
        ("advertise = [\"a:0\"]", "c.toml:1: advertise: nobody can dial port 0 of a:0;"),
        ("network = \"private\"", "c.toml:1: network: write \"open\""),
        ("log = \"loud\"", "c.toml:1: log: write \"error\", \"warn\", \"info\""),
        ("socket = \"s\"", "c.toml:1: socket: 's' is not absolute; begin the path with /"),
        (
            &format!("\nsocket = \"/{}\"", "s".repeat(107)),
            "c.toml:2: socket: a socket's path has at most 107 bytes, this has 108; write a",
        ),
        ("state_dir = \"~/x\"", "c.toml:1: state_dir: '~/x' is not absolute"),
        ("[links]\nauto = 65", "c.toml:2: links.auto: 65 is not possible; write a whole number"),
        ("[links]\nauto = -1", "c.toml:2: links.auto: -1 is not possible"),
        ("[links]\nauto = 1.5", "c.toml:2: links.auto: expected a whole number from 0 to 64"),
        ("limits.links_max = 0", "c.toml:1: limits.links_max: 0 is not possible"),
        (
            "limits.links_max = 99999999999999999999",
            "c.toml:1: limits.links_max: 99999999999999999999 is not possible",
        ),
        ("[limits]\nlinks_max = 4", "c.toml:2: limits.links_max: fewer than the 8 links that"),
        (
            "[limits]\nlinks_max = 4\n[links]\nauto = 5",
            "c.toml:4: links.auto: more than limits.links_max (4)",
        ),
        (
            "\n[limits]\noutbox_bytes_max = 2000000",
            "c.toml:3: limits.outbox_bytes_max: one message of message_bytes_max = 16777216",
        ),
        ("network = \"closd\"\nnetwork_key_file = \"/k\"", "c.toml:1: network: write \"open\""),
        (
            "[limits]\nmessage_bytes_max = 2000000\ninbox_bytes_max = 1500000",
            "c.toml:3: limits.inbox_bytes_max: one message of message_bytes_max = 2000000, which",
        ),
        ("interface_port = 0", "c.toml:1: interface_port: 0 is not possible; write a whole number"),
        ("interface_port = \"8080\"", "c.toml:1: interface_port: expected a whole number from 1"),
        ("interface = \"x:1\"", "c.toml:1: interface: expected a table, found text; write [int"),
        ("\n[interface]\nport=1", "c.toml:3: interface.port: unknown key; take it out (possible"),
        ("[interface]\naddress=1", "c.toml:2: interface.address: expected text in quotes"),
        (
            "[interface]\naddress=\"127.0.0.1\"",
            "c.toml:2: interface.address: the port is missing; write HOST:PORT",
        ),
        (
            "[interface]\naddress=\"::1:8080\"",
            "c.toml:2: interface.address: an IPv6 address stands in brackets; write [::1]:8080",
        ),
        (
            "[interface]\naddress=\"224.0.0.1:8080\"",
            "c.toml:2: interface.address: nobody can listen on 224.0.0.1:8080",
        ),
        (
            "interface_port = 1\n[interface]\naddress=\"127.0.0.1:1\"",
            "c.toml:1: interface_port: address under [interface] says the same; take one",
        ),
        (
            "interface_port = 3000",
            "c.toml:1: interface_port: 127.0.0.1:3000 stands under listen, too; choose another",
        ),
        (
            "network = \"closed\"\nlisten = [\"0.0.0.0:3000\"]\ninterface_port = 3000",
            "c.toml:3: interface_port: 0.0.0.0:3000 stands under listen, too; choose another",
        ),
        ("address = \"127.0.0.1:1\"", "c.toml:1: address: this key belongs under [interface]"),
        ("listen = [\"0.0.0.0:1\"]", "c.toml:1: listen: 0.0.0.0:1 can be reached from other"),
        ("network_key_file = \"/k\"", "c.toml:1: network_key_file: an open network has no key"),
        ("a = = 1", "c.toml:1: not TOML: extra `=`"),
        ("name = \"a\"\nname = \"b\"", "c.toml:2: not TOML: duplicate key"),
        ("\"a\\u001b\\n\" = 1", "c.toml:1: a\\u{1b}\\n: unknown key; take it out"),
    ] {
        let found = problems(text);
        assert!(found.len() == 1, "{text}: {found:#?}");
        assert!(found[0].starts_with(expected), "{text}:\n{}\n{expected}", found[0]);
    }
}

#[test]
fn the_interface_port_is_off_unless_somebody_wants_it_and_a_mere_port_is_on_loopback() {
    for text in ["", "[interface]\n"] {
        assert_eq!(parse(text).expect("right").interface, None, "{text}");
    }
    let shown = |text| parse(text).expect("right").interface.map(|address| address.to_string());
    assert_eq!(shown("interface_port = 8080").as_deref(), Some("127.0.0.1:8080"));
    let any = "[interface]\naddress = \"0.0.0.0:8080\"";
    assert_eq!(shown(any).as_deref(), Some("0.0.0.0:8080"));
}

#[test]
fn all_mistakes_are_named_at_once_in_the_order_of_the_file() {
    let found = problems("zzz = 1\nlisten = 1\n[limits]\nx = 1\nlinks_max = -1\n[links]\nauto=[]");
    let lines: Vec<&str> = found.iter().filter_map(|line| line.split(':').nth(1)).collect();
    assert_eq!(lines, ["1", "2", "4", "5", "7"], "{found:#?}");
}

#[test]
fn a_file_full_of_mistakes_is_read_in_good_time() {
    let began = std::time::Instant::now();
    let found = problems(&(0..100_000).map(|i| format!("k{i}=1\n")).collect::<String>());
    assert_eq!(found.len(), 100_000);
    assert!(found[99_999].starts_with("c.toml:100000:"), "{}", found[99_999]);
    assert!(began.elapsed() < std::time::Duration::from_secs(60), "{:?}", began.elapsed());
}

#[test]
fn a_public_address_is_fine_when_the_network_is_chosen() {
    for network in ["open", "closed"] {
        let text = format!("listen = [\"0.0.0.0:1\"]\nnetwork = \"{network}\"");
        assert!(parse(&text).is_ok(), "{text}");
    }
    assert!(parse("listen = []").is_ok_and(|config| config.listen.is_empty()));
    assert!(parse("listen = [\"[::1]:1\", \"localhost:2\"]").is_ok());
}

#[test]
fn what_a_key_names_is_told_with_its_line() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("c.toml");
    std::fs::write(&path, "name = \"a\"\n\n\"network_key_file\" = \"/k\"\n").expect("written");
    let told = |key| Config::problem_with(&path, key, "what to do").to_string();
    let file = path.display();
    assert_eq!(told("network_key_file"), format!("{file}:3: network_key_file: what to do"));
    assert_eq!(told("socket"), format!("{file}: socket: what to do"));
    std::fs::remove_file(&path).expect("removed");
    assert_eq!(told("name"), format!("{file}: name: what to do"));
}

#[test]
fn a_client_reads_the_socket_whatever_else_is_wrong() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("c.toml");
    let socket_in = |text: &str| {
        std::fs::write(&path, text).expect("written");
        Config::socket_in(&path)
    };
    assert_eq!(socket_in("socket = \"/s\"\nzzz = 1"), Ok(Some("/s".into())));
    assert_eq!(socket_in("zzz = 1"), Ok(None));
    assert!(socket_in("socket = 7").is_err());
    assert!(socket_in("socket =").is_err());
}

mod hostile {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_text_panics_and_no_problem_has_two_lines(
            text in "(.|\n|[a-z_]{1,8} = |[\\[\\]\"=]){0,60}",
        ) {
            if let Err(problems) = super::parse(&text) {
                let shown = problems.to_string();
                prop_assert_eq!(shown.lines().count(), problems.iter().count(), "{}", shown);
                prop_assert!(!shown.contains('\x1b'), "{shown}");
            }
        }
    }
}
