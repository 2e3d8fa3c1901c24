//! Reads Rust source just well enough to see which paths it uses: comments and strings are not
//! code, `use` trees are spelled out, and `super` is followed to where it leads.

use std::collections::BTreeSet;

/// One token of source, with the lines it spans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    /// What it is.
    pub(crate) kind: Kind,
    /// Its first line, from 1.
    pub(crate) line: usize,
    last_line: usize,
}

/// Kinds of tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An identifier or keyword.
    Word(String),
    /// `::`.
    PathSep,
    /// Any other single character.
    Mark(char),
    /// A string, character, number or lifetime.
    Literal,
}

/// A path somewhere in the source, as written: `["crate", "wire", "Frame"]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Path {
    /// Its segments.
    pub(crate) segments: Vec<String>,
    /// The line it stands on.
    pub(crate) line: usize,
    /// The inline modules around it, outermost first.
    pub(crate) inside: Vec<String>,
    /// Whether a `use` declares it.
    pub(crate) imported: bool,
}

impl Token {
    fn is(&self, mark: char) -> bool {
        self.kind == Kind::Mark(mark)
    }

    fn word(&self) -> Option<&str> {
        match &self.kind {
            Kind::Word(word) => Some(word),
            _ => None,
        }
    }

    fn is_word(&self, word: &str) -> bool {
        self.word() == Some(word)
    }
}

/// The source as tokens, without comments.
pub(crate) fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let (mut out, mut at, mut line) = (Vec::new(), 0, 1);
    while at < chars.len() {
        let (kind, end) = next_token(&chars, at);
        let last_line = line + chars[at..end].iter().filter(|c| **c == '\n').count();
        if let Some(kind) = kind {
            out.push(Token { kind, line, last_line });
        }
        (at, line) = (end, last_line);
    }
    out
}

/// The token at a place, none for a comment or space, and where it ends.
fn next_token(chars: &[char], at: usize) -> (Option<Kind>, usize) {
    let char_at = |place: usize| chars.get(place).copied().unwrap_or('\0');
    let literal = |end: usize| (Some(Kind::Literal), end.min(chars.len()));
    let first = char_at(at);
    match first {
        '/' if char_at(at + 1) == '/' => (None, find(chars, at, &['\n'])),
        '/' if char_at(at + 1) == '*' => (None, end_of_block_comment(chars, at)),
        ':' if char_at(at + 1) == ':' => (Some(Kind::PathSep), at + 2),
        '"' => literal(end_of_quoted(chars, at)),
        '\'' if char_at(at + 1) == '\\' || char_at(at + 2) == '\'' => {
            literal(end_of_quoted(chars, at))
        }
        '\'' => literal(end_of_word(chars, at + 1)),
        c if c.is_ascii_digit() => literal(end_of_word(chars, at)),
        c if is_word_char(c) => {
            let end = end_of_word(chars, at);
            let word: String = chars[at..end].iter().collect();
            let prefix = matches!(&*word, "r" | "b" | "br" | "c" | "cr");
            match char_at(end) {
                '"' if word.ends_with('r') && prefix => literal(end_of_raw(chars, end)),
                '#' if word.ends_with('r') && prefix && is_raw_string(chars, end) => {
                    literal(end_of_raw(chars, end))
                }
                '"' | '\'' if prefix => literal(end_of_quoted(chars, end)),
                '#' if word == "r" && is_word_char(char_at(end + 1)) => {
                    let raw_end = end_of_word(chars, end + 1);
                    (Some(Kind::Word(chars[end + 1..raw_end].iter().collect())), raw_end)
                }
                _ => (Some(Kind::Word(word)), end),
            }
        }
        c if c.is_whitespace() => (None, at + 1),
        c => (Some(Kind::Mark(c)), at + 1),
    }
}

fn is_word_char(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

fn find(chars: &[char], from: usize, ends: &[char]) -> usize {
    (from..chars.len()).find(|at| ends.contains(&chars[*at])).unwrap_or(chars.len())
}

fn end_of_word(chars: &[char], from: usize) -> usize {
    (from..chars.len()).find(|at| !is_word_char(chars[*at])).unwrap_or(chars.len())
}

/// Behind the quote that closes the one at `from`.
fn end_of_quoted(chars: &[char], from: usize) -> usize {
    let quote = chars[from];
    let mut at = from + 1;
    while at < chars.len() && chars[at] != quote {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

fn is_raw_string(chars: &[char], from: usize) -> bool {
    let quote = (from..chars.len()).find(|at| chars[*at] != '#');
    quote.is_some_and(|at| chars[at] == '"')
}

/// Behind the raw string whose `#`s or quote begin at `from`.
fn end_of_raw(chars: &[char], from: usize) -> usize {
    let hashes = chars[from..].iter().take_while(|c| **c == '#').count();
    let closes = |at: usize| {
        let rest = &chars[at + 1..];
        chars[at] == '"' && rest.len() >= hashes && rest[..hashes].iter().all(|c| *c == '#')
    };
    let end = (from + hashes + 1..chars.len()).find(|at| closes(*at));
    end.map_or(chars.len(), |at| at + 1 + hashes)
}

fn end_of_block_comment(chars: &[char], from: usize) -> usize {
    let (mut depth, mut at) = (0_usize, from);
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// The source without what is built for tests only, and the modules in other files that are.
pub(crate) fn without_tests(source: &[Token]) -> (Vec<Token>, Vec<String>) {
    let (mut kept, mut test_modules, mut at) = (Vec::new(), Vec::new(), 0);
    while at < source.len() {
        let rest = &source[at..];
        if let Some(inner) = length_of_cfg_test(rest) {
            if inner.is_whole_file {
                return (Vec::new(), test_modules);
            }
            let item = &rest[inner.length..];
            let length = length_of_item(item);
            test_modules.extend(name_of_file_module(&item[..length]));
            at += inner.length + length;
        } else {
            kept.push(source[at].clone());
            at += 1;
        }
    }
    (kept, test_modules)
}

struct CfgTest {
    length: usize,
    is_whole_file: bool,
}

/// `#[cfg(test)]`, or `#![cfg(test)]` for a whole file.
fn length_of_cfg_test(tokens: &[Token]) -> Option<CfgTest> {
    let hash = usize::from(tokens.first()?.is('#'));
    let bang = usize::from(tokens.get(1)?.is('!'));
    let rest = tokens.get(hash + bang..)?;
    let [open, cfg, paren, test, close, end, ..] = rest else { return None };
    let is_cfg_test = hash == 1
        && (open.is('[') && cfg.is_word("cfg") && paren.is('('))
        && (test.is_word("test") && close.is(')') && end.is(']'));
    is_cfg_test.then_some(CfgTest { length: hash + bang + 6, is_whole_file: bang == 1 })
}

/// Tokens of the item at the front, its attributes included.
fn length_of_item(tokens: &[Token]) -> usize {
    let ends_with_semicolon =
        tokens.iter().find_map(Token::word).is_some_and(|word| matches!(word, "use" | "type"));
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate() {
        match token.kind {
            Kind::Mark('{' | '(' | '[') => depth += 1,
            Kind::Mark('}' | ')' | ']') => {
                depth = depth.saturating_sub(1);
                if depth == 0 && token.is('}') && !ends_with_semicolon {
                    return at + 1;
                }
            }
            Kind::Mark(';') if depth == 0 => return at + 1,
            _ => {}
        }
    }
    tokens.len()
}

fn name_of_file_module(item: &[Token]) -> Option<String> {
    let [.., keyword, name, end] = item else { return None };
    (keyword.is_word("mod") && end.is(';')).then(|| name.word().map(str::to_owned))?
}

/// Lines on which there is code.
pub(crate) fn lines_of_code(tokens: &[Token]) -> usize {
    let lines = tokens.iter().flat_map(|token| token.line..=token.last_line);
    lines.collect::<BTreeSet<_>>().len()
}

/// Names of the macros called, with their lines.
pub(crate) fn macros(tokens: &[Token]) -> Vec<(&str, usize)> {
    let calls = tokens.windows(2).filter(|pair| pair[1].is('!'));
    calls.filter_map(|pair| Some((pair[0].word()?, pair[0].line))).collect()
}

/// Names of attributes, with their lines; of those under a `cfg_attr` all words, too.
pub(crate) fn attributes(tokens: &[Token]) -> Vec<(&str, usize)> {
    let (mut names, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        let open = at + 1 + usize::from(tokens.get(at + 1).is_some_and(|t| t.is('!')));
        if !tokens[at].is('#') || !tokens.get(open).is_some_and(|token| token.is('[')) {
            at += 1;
            continue;
        }
        let (mut depth, mut words) = (0_usize, Vec::new());
        at = open;
        while let Some(token) = tokens.get(at) {
            match token.kind {
                Kind::Mark('[') => depth += 1,
                Kind::Mark(']') => depth -= 1,
                _ => words.extend(token.word().map(|word| (word, token.line))),
            }
            at += 1;
            if depth == 0 {
                break;
            }
        }
        let conditional = words.first().is_some_and(|(name, _)| *name == "cfg_attr");
        words.truncate(if conditional { words.len() } else { 1 });
        names.extend(words);
    }
    names
}

/// All paths, in expressions, types and `use` trees.
pub(crate) fn paths(tokens: &[Token]) -> Vec<Path> {
    let mut finder = Finder { tokens, at: 0, blocks: Vec::new(), found: Vec::new() };
    while finder.at < tokens.len() {
        finder.step();
    }
    finder.found
}

struct Finder<'a> {
    tokens: &'a [Token],
    at: usize,
    /// The braces that are open, with the name of the module they belong to.
    blocks: Vec<Option<String>>,
    found: Vec<Path>,
}

impl Finder<'_> {
    fn step(&mut self) {
        let before = |places: usize| self.at.checked_sub(places).map(|at| &self.tokens[at]);
        let is_dot = |places: usize| before(places).is_some_and(|token| token.is('.'));
        // A dot begins a field, two dots a range or the rest of a struct.
        let is_field = is_dot(1) && !is_dot(2);
        let in_path = is_field || before(1).is_some_and(|token| token.kind == Kind::PathSep);
        let token = &self.tokens[self.at];
        match token.word() {
            Some("use") if !self.is_at(1, |next| next.is('<')) => {
                self.at += 1;
                self.use_tree(&[]);
            }
            Some("mod") if self.is_at(2, |next| next.is('{')) => {
                self.blocks.push(self.tokens[self.at + 1].word().map(str::to_owned));
                self.at += 3;
            }
            Some(_) if !in_path || self.is_global() => self.plain_path(),
            _ => {
                if token.is('{') {
                    self.blocks.push(None);
                } else if token.is('}') {
                    self.blocks.pop();
                }
                self.at += 1;
            }
        }
    }

    fn is_at(&self, ahead: usize, test: impl Fn(&Token) -> bool) -> bool {
        self.tokens.get(self.at + ahead).is_some_and(test)
    }

    /// Whether the word here follows a `::` that follows nothing: `::std::fs`.
    fn is_global(&self) -> bool {
        let Some(sep) = self.at.checked_sub(1) else { return false };
        let before = sep.checked_sub(1).map(|at| &self.tokens[at]);
        let continues = before.is_some_and(|token| token.word().is_some() || token.is('>'));
        self.tokens[sep].kind == Kind::PathSep && !continues
    }

    fn plain_path(&mut self) {
        let line = self.tokens[self.at].line;
        let mut segments = Vec::new();
        while let Some(word) = self.tokens.get(self.at).and_then(Token::word) {
            segments.push(word.to_owned());
            self.at += 1;
            let goes_on = self.is_at(0, |token| token.kind == Kind::PathSep)
                && self.is_at(1, |token| token.word().is_some());
            if !goes_on {
                break;
            }
            self.at += 1;
        }
        self.add(segments, line, false);
    }

    fn use_tree(&mut self, prefix: &[String]) {
        let mut segments = prefix.to_vec();
        let line = self.tokens.get(self.at).map_or(0, |token| token.line);
        loop {
            let Some(token) = self.tokens.get(self.at) else { return };
            self.at += 1;
            match &token.kind {
                Kind::PathSep => {}
                Kind::Word(word) if word == "as" => self.at += 1,
                Kind::Word(word) => segments.push(word.clone()),
                Kind::Mark('*') => segments.push("*".to_owned()),
                Kind::Mark('{') => {
                    while self.is_at(0, |next| !next.is('}')) {
                        self.use_tree(&segments);
                        if self.is_at(0, |next| next.is(',')) {
                            self.at += 1;
                        }
                    }
                    self.at += 1;
                    return;
                }
                _ => {
                    // The end of this tree is for the caller: `,` or `}` or `;`.
                    self.at -= 1;
                    break;
                }
            }
        }
        if self.is_at(0, |token| token.is(';')) && prefix.is_empty() {
            self.at += 1;
        }
        // `use a::{self}` is `use a`.
        if segments.len() > 1 && segments.last().is_some_and(|last| last == "self") {
            segments.pop();
        }
        if segments.is_empty() {
            // Not a tree at all: step over what is there, so that there is an end.
            self.at += 1;
        } else {
            self.add(segments, line, true);
        }
    }

    fn add(&mut self, segments: Vec<String>, line: usize, imported: bool) {
        let inside = self.blocks.iter().flatten().cloned().collect();
        self.found.push(Path { segments, line, inside, imported });
    }
}

/// Where a path leads from a module of this crate: the segments below the crate's root, or none if
/// it leads to another crate or a local name.
pub(crate) fn resolve(path: &Path, module: &[String]) -> Option<Vec<String>> {
    let mut place: Vec<String> = module.iter().chain(&path.inside).cloned().collect();
    let mut rest = path.segments.iter().peekable();
    match path.segments.first()?.as_str() {
        "crate" => {
            rest.next();
            place.clear();
        }
        "self" if path.segments.len() > 1 => {
            rest.next();
        }
        "super" => {}
        _ => return None,
    }
    while rest.next_if(|segment| *segment == "super").is_some() {
        place.pop();
    }
    place.extend(rest.cloned());
    Some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths_of(source: &str) -> Vec<String> {
        let tokens = without_tests(&tokens(source)).0;
        paths(&tokens).iter().map(|path| path.segments.join("::")).collect()
    }

    /// Where the paths of a source in `src/a/b.rs` lead to in this crate.
    fn resolved(source: &str) -> Vec<String> {
        let module = ["a".to_owned(), "b".to_owned()];
        let tokens = without_tests(&tokens(source)).0;
        let places = paths(&tokens).into_iter().filter_map(|path| resolve(&path, &module));
        places.map(|place| place.join("::")).collect()
    }

    #[test]
    fn comments_and_literals_are_not_code() {
        let source = r####"
            // use a::b;
            /* use c::d; /* nested */ use e::f; */
            let x = "g::h \" i::j"; let y = r#"k::l " m::n"#; let z = br"\"; let c = b"o\\";
            let quote = '"'; let escaped = '\''; let byte = b'"'; let life: &'a str = p::q;
            let raw = r#type; let number = 0x1f_u8; let range = 0..r::s;
            let rest = T { a, ..t::u() };
        "####;
        let found = paths_of(source).join(" ");
        for not_code in ["a::b", "c::d", "e::f", "g::h", "i::j", "k::l", "m::n"] {
            assert!(!found.contains(not_code), "{not_code} in {found}");
        }
        for code in ["p::q", "type", "r::s", "range", "t::u"] {
            assert!(found.contains(code), "no {code} in {found}");
        }
    }

    #[test]
    fn use_trees_are_spelled_out() {
        let source = "pub(crate) use crate::{a, b::{self, C as D, e::*}, r#f}; use ::std::fs; g();";
        let expected = [
            "pub",
            "crate",
            "crate::a",
            "crate::b",
            "crate::b::C",
            "crate::b::e::*",
            "crate::f",
            "std::fs",
            "g",
        ];
        assert_eq!(paths_of(source), expected);
        assert_eq!(paths_of("use {a::b, c}; d::e"), ["a::b", "c", "d::e"]);
        assert_eq!(paths_of("use crate as x; y"), ["crate", "y"]);
    }

    #[test]
    fn paths_in_expressions_and_types_are_found() {
        let source = "fn f(x: &[a::B], y: ::c::D) -> Vec<e::F::<G>> { x.thread; h::i!(j) }";
        let found = paths_of(source);
        for path in ["a::B", "c::D", "e::F", "G", "h::i", "j"] {
            assert!(found.iter().any(|f| f == path), "{path} in {found:?}");
        }
        assert!(!found.iter().any(|f| f.contains("thread")), "a field is no path: {found:?}");
    }

    #[test]
    fn every_way_to_another_room_is_followed() {
        for (source, place) in [
            ("use crate::store::op;", "store::op"),
            ("use super::super::store;", "store"),
            ("use super::{super::store, c};", "store a::c"),
            ("use super::c;", "a::c"),
            ("use self::c;", "a::b::c"),
            ("mod m { use super::super::super::store; }", "store"),
            ("mod m { fn f() { if x { super::super::super::store::f() } } }", "store::f"),
            ("mod m {} use super::super::store;", "store"),
            ("fn f() -> crate::store::Op {}", "store::Op"),
            ("macro_rules! m { () => { $crate::store::f() } }", "store::f"),
            ("use crate::*;", "*"),
            ("use super::super::*;", "*"),
        ] {
            assert_eq!(resolved(source).join(" "), place, "{source}");
        }
        assert!(resolved("use std::fs; use wire::x; self.a; fn f(self) {}").is_empty());
    }

    #[test]
    fn what_is_only_for_tests_is_left_out() {
        let source = "
            #[cfg(test)] use a::{b, c};
            #[cfg(test)]
            #[allow(x)]
            mod tests { use d::e; fn f() { if g {} } }
            #[cfg(test)] fn h() -> [u8; 3] { i::j }
            #[cfg(test)] mod other;
            #[cfg(not(test))] use k::l;
        ";
        let (kept, modules) = without_tests(&tokens(source));
        let found: Vec<_> = paths(&kept).iter().map(|path| path.segments.join("::")).collect();
        assert_eq!(found, ["cfg", "not", "test", "k::l"]);
        assert_eq!(modules, ["other"]);
        assert!(without_tests(&tokens("#![cfg(test)] use a::b;")).0.is_empty());
    }

    #[test]
    fn lines_of_code_are_those_with_code() {
        let source = "//! x\n\nuse a;\n/// y\nfn f() {\n    // z\n    \"1\n2\n3\";\n}\n";
        assert_eq!(lines_of_code(&tokens(source)), 6);
    }

    #[test]
    fn macros_and_attributes_are_found() {
        let source = "#![allow(a)] #[test]\n#[ignore = \"b\"]\nfn f() { todo!(); c != d }";
        let all = tokens(source);
        assert!(macros(&all).contains(&("todo", 3)));
        assert_eq!(attributes(&all), [("allow", 1), ("test", 1), ("ignore", 2)]);
        let conditional = tokens("#[cfg_attr(x, ignore)] #[error(path)]");
        let words: Vec<_> = attributes(&conditional).iter().map(|(word, _)| *word).collect();
        assert_eq!(words, ["cfg_attr", "x", "ignore", "error"]);
    }
}
