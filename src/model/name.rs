//! Names that people give: a node's own name and the aliases of its peers.

use std::fmt;
use std::fmt::Write as _;
use std::str::FromStr;

use thiserror::Error;

use super::limits::NAME_BYTES_MAX;

/// A name for a node: 1 to 64 bytes of letters, digits, `.`, `_` and `-`, beginning with a letter
/// or digit.
///
/// A name can never be mistaken for a peer ID (it may not begin with `dm1`), for an option, or for
/// anything a terminal or a shell would act on. Letters may be of any script.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<str>);

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a text is no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("a name has at least one character")]
    Empty,
    /// Longer than 64 bytes.
    #[error("a name has at most {NAME_BYTES_MAX} bytes")]
    TooLong,
    /// A character that is not allowed.
    #[error("a name has only letters, digits, '.', '_' and '-', and begins with a letter or digit")]
    Character,
    /// It could be mistaken for a peer ID.
    #[error("a name does not begin with dm1, as peer IDs do")]
    LooksLikePeerId,
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > NAME_BYTES_MAX {
            return Err(NameError::TooLong);
        }
        let visible = |c: char| c.is_alphanumeric() && !is_deceptive(c);
        let allowed = |c: char| visible(c) || matches!(c, '.' | '_' | '-');
        if !text.chars().all(allowed) || !text.starts_with(char::is_alphanumeric) {
            return Err(NameError::Character);
        }
        if text.get(..3).is_some_and(|head| head.eq_ignore_ascii_case("dm1")) {
            return Err(NameError::LooksLikePeerId);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Text from elsewhere made safe for one line of a terminal or a log: control characters, newlines,
/// backslashes and characters that reorder or hide text are written as escapes, so that no peer can
/// forge a line or reach the terminal.
pub fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => safe.push_str("\\\\"),
            '\n' => safe.push_str("\\n"),
            '\r' => safe.push_str("\\r"),
            '\t' => safe.push_str("\\t"),
            c if c.is_control() || is_deceptive(c) => {
                // Writing to a string cannot fail.
                let _ = write!(safe, "\\u{{{:x}}}", u32::from(c));
            }
            c => safe.push(c),
        }
    }
    safe
}

/// The beginning of a text from elsewhere, of `most` characters, safe for one line: enough for
/// people to know it again, however long it is.
pub fn excerpt(text: &str, most: usize) -> String {
    let end = text.char_indices().nth(most).map_or(text.len(), |(end, _)| end);
    escaped(text.get(..end).unwrap_or(text))
}

/// Characters that reorder or hide what follows, or show nothing themselves: Unicode's
/// bidirectional controls, line and paragraph separators, zero-width and filler characters, tags.
fn is_deceptive(c: char) -> bool {
    matches!(
        u32::from(c),
        0x00ad
            | 0x034f
            | 0x061c
            | 0x115f..=0x1160
            | 0x17b4..=0x17b5
            | 0x180b..=0x180f
            | 0x200b..=0x200f
            | 0x2028..=0x202e
            | 0x2060..=0x206f
            | 0x3164
            | 0xfe00..=0xfe0f
            | 0xfeff
            | 0xffa0
            | 0xfff9..=0xfffb
            | 0xe0000..=0xe01ef
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for good in ["a", "alice", "web-1.example", "Zoë", "7of9", &"x".repeat(64)] {
            assert_eq!(good.parse::<Name>().map(|n| n.to_string()), Ok(good.to_owned()));
        }
        for (bad, why) in [
            ("", NameError::Empty),
            (&*"x".repeat(65), NameError::TooLong),
            ("-x", NameError::Character),
            ("a b", NameError::Character),
            ("a\n", NameError::Character),
            ("a\u{202e}b", NameError::Character),
            ("bob\u{3164}", NameError::Character),
            ("bob\u{ffa0}", NameError::Character),
            ("dm1abc", NameError::LooksLikePeerId),
            ("DM1abc", NameError::LooksLikePeerId),
        ] {
            assert_eq!(bad.parse::<Name>(), Err(why), "{bad:?}");
        }
    }

    #[test]
    fn escapes_leave_nothing_a_terminal_acts_on() {
        assert_eq!(escaped("a\nb\\\t\u{1b}[31m\u{202e}é"), "a\\nb\\\\\\t\\u{1b}[31m\\u{202e}é");
    }

    #[test]
    fn an_excerpt_counts_characters_of_what_there_is() {
        for (text, shown) in [("", ""), ("éa", "éa"), ("éa\n", "éa\\n"), ("é\nab", "é\\na")] {
            assert_eq!(excerpt(text, 3), shown);
        }
        assert_eq!(excerpt("a", 0), "");
    }
}
