//! distmsg-control(7) against the definition of the protocol.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::root;

/// What the source defines: the fields of each struct, and the variants of each enum with what they
/// hold and what is said of them.
struct Definition {
    structs: BTreeMap<String, BTreeSet<String>>,
    enums: BTreeMap<String, Vec<Variant>>,
}

struct Variant {
    name: String,
    holds: Option<String>,
    about: String,
}

/// The protocol's definition, as it is written.
fn definition_text() -> String {
    let files = ["src/control/protocol.rs", "src/control/protocol/mailbox.rs"];
    files.map(|file| fs::read_to_string(root(file)).expect("the definition")).concat()
}

impl Definition {
    fn read() -> Self {
        let text = definition_text();
        let (mut structs, mut enums) = (BTreeMap::new(), BTreeMap::new());
        for (kind, head) in [("struct", "\npub struct "), ("enum", "\npub enum ")] {
            for part in text.split(head).skip(1) {
                let end = part.find(|c: char| !c.is_alphanumeric()).expect("a name's end");
                let (name, rest) = part.split_at(end);
                let body = match rest.strip_prefix(" {") {
                    // One without fields, or around a single value.
                    None => "",
                    Some(rest) if rest.starts_with('}') => "",
                    Some(rest) => rest.split("\n}").next().expect("a part"),
                };
                match kind {
                    "struct" => {
                        let fields = body.lines().filter_map(|line| {
                            let field = line.trim().strip_prefix("pub ")?;
                            Some(field.split_once(':')?.0.to_owned())
                        });
                        structs.insert(name.to_owned(), fields.collect());
                    }
                    _ => {
                        enums.insert(name.to_owned(), variants(body));
                    }
                }
            }
        }
        Self { structs, enums }
    }

    fn fields(&self, name: &str) -> BTreeSet<String> {
        self.structs.get(name).unwrap_or_else(|| panic!("no struct {name}")).clone()
    }

    fn variants(&self, name: &str) -> &[Variant] {
        self.enums.get(name).unwrap_or_else(|| panic!("no enum {name}"))
    }
}

fn variants(body: &str) -> Vec<Variant> {
    let (mut found, mut about) = (Vec::new(), String::new());
    for line in body.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("///") {
            about.push_str(text);
        } else if line.starts_with(|c: char| c.is_ascii_uppercase()) {
            let end = line.find(|c: char| !c.is_alphanumeric()).expect("a comma at least");
            let (name, rest) = line.split_at(end);
            let inner = rest.strip_prefix('(').and_then(|rest| rest.split(')').next());
            let name = snake(name);
            let holds = inner.map(str::to_owned);
            found.push(Variant { name, holds, about: std::mem::take(&mut about) });
        }
    }
    assert!(!found.is_empty(), "an enum without variants: {body}");
    found
}

fn snake(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

fn page() -> String {
    fs::read_to_string(root("man/distmsg-control.7")).expect("the page is there")
}

/// The parts of a section by their subheadings.
fn parts(section: &str) -> BTreeMap<String, String> {
    let page = page();
    let head = format!("\n.SH {section}\n");
    let (_, rest) = page.split_once(&head).unwrap_or_else(|| panic!("no section {section}"));
    let text = rest.split("\n.SH ").next().expect("a part");
    let parts = text.split(".SS ").skip(1);
    let part = |part: &str| {
        let (name, text) = part.split_once('\n').expect("lines");
        (name.to_owned(), text.to_owned())
    };
    parts.map(part).collect()
}

/// The members that a part of a page has entries of.
fn entries(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in text.split(".TP\n").skip(1) {
        let line = entry.lines().next().expect("a line");
        let word = line.split_whitespace().nth(1).expect("a member");
        assert!(found.insert(word.to_owned()), "{word} stands there twice");
    }
    found
}

#[test]
fn every_method_stands_there_with_its_parameters_and_its_reply() {
    let definition = Definition::read();
    let mut told = parts("METHODS");
    let requests = definition.variants("Request");
    assert!(requests.len() > 15, "requests were found");
    for request in requests {
        let Variant { name, holds, about } = request;
        let text = told.remove(name).unwrap_or_else(|| panic!("there is no method {name}"));
        let (parameters, reply) = text.split_once("\nReply:").unwrap_or_else(|| panic!("{name}"));
        let expected = holds.as_ref().map_or_else(BTreeSet::new, |name| definition.fields(name));
        assert_eq!(entries(parameters), expected, "parameters of {name}");
        // The last type that the definition links there.
        let (_, replied) = about.split_once("eply").unwrap_or_else(|| panic!("{name}: {about}"));
        let (_, replied) = replied.split_once("[`").unwrap_or_else(|| panic!("{name}: {about}"));
        let replied = replied.split('`').next().expect("a type");
        assert_eq!(entries(reply), definition.fields(replied), "reply of {name}");
    }
    assert!(told.is_empty(), "these are no methods: {:?}", told.keys());
}

#[test]
fn every_event_stands_there_with_its_members() {
    let definition = Definition::read();
    let mut told = parts("EVENTS");
    for event in definition.variants("Event") {
        let text = told.remove(&event.name).unwrap_or_else(|| panic!("no event {}", event.name));
        let holds = event.holds.as_ref().expect("an event has members");
        assert_eq!(entries(&text), definition.fields(holds), "members of {}", event.name);
    }
    assert!(told.is_empty(), "these are no events: {:?}", told.keys());
}

#[test]
fn every_object_stands_there_with_its_members() {
    let definition = Definition::read();
    let told = parts("OBJECTS");
    for (name, text) in &told {
        assert_eq!(entries(text), definition.fields(name), "members of {name}");
    }
    // What is in lists and members of what was checked above, and of these.
    let source = definition_text();
    for name in definition.structs.keys() {
        let inside = ["Vec<", "Option<"]
            .iter()
            .any(|outer| source.lines().any(|line| line.contains(&format!(": {outer}{name}>"))));
        assert!(!inside || told.contains_key(name), "there is no object {name}");
    }
}

#[test]
fn every_word_and_every_error_code_stands_there() {
    let definition = Definition::read();
    let page = page();
    for name in ["Wait", "Topic", "TrafficAction", "GivenUpReason"] {
        for variant in definition.variants(name) {
            let word = &variant.name;
            let bold = [format!(".B {word}\n"), format!(".BR {word} ")];
            assert!(bold.iter().any(|bold| page.contains(bold)), "{name}: {word} is not told of");
        }
    }
    let codes: BTreeSet<String> =
        definition.variants("ErrorCode").iter().map(|code| code.name.clone()).collect();
    assert_eq!(entries(&parts("ERRORS")["Codes"]), codes);
}

#[test]
fn limits_are_those_of_the_code() {
    use distmsg::model::limits::{
        CONTROL_BODY_BYTES_MAX, CONTROL_LINE_BYTES_MAX, KEY_BYTES_MAX, SUBJECT_BYTES_MAX,
    };
    let page = page();
    for (what, number) in [
        ("a line", CONTROL_LINE_BYTES_MAX),
        ("a body", CONTROL_BODY_BYTES_MAX),
        ("a subject", SUBJECT_BYTES_MAX),
        ("a key", KEY_BYTES_MAX),
        ("clients", distmsg::model::Limits::default().clients_max),
        ("outstanding requests", constant("src/control/server.rs", "OUTSTANDING_MAX")),
        ("uploads", constant("src/control/upload.rs", "TOTAL_BYTES_MAX")),
        ("subscriptions", constant("src/node/core/clients.rs", "SUBSCRIPTIONS_MAX")),
        ("a page", constant("src/node/core/clients.rs", "PAGE_MAX")),
        ("a window", constant("src/node/core/listeners/mod.rs", "WINDOW_MAX")),
        ("listeners", constant("src/node/core/listeners/mod.rs", "LISTENERS_MAX")),
        ("a line of the daemon", constant("src/control/client.rs", "LINE_BYTES_MAX")),
    ] {
        let words = page.split(|c: char| !c.is_ascii_digit());
        assert!(words.into_iter().any(|word| word == number.to_string()), "{what}: {number}");
    }
}

/// A number that a file keeps to itself.
fn constant(file: &str, name: &str) -> usize {
    let text = fs::read_to_string(root(file)).expect("a source");
    let (_, rest) = text.split_once(&format!("const {name}: ")).unwrap_or_else(|| panic!("{name}"));
    let (_, value) = rest.split(';').next().expect("its end").split_once("= ").expect("a value");
    let factors = value.split('*').map(|factor| {
        let digits: String = factor.trim().chars().filter(|c| *c != '_').collect();
        digits.parse::<usize>().unwrap_or_else(|_| panic!("{name}: {value}"))
    });
    factors.product()
}
