//! A line of the prompt cut into words, as a shell would: quotes and backslashes, and nothing else.

/// Why a line cannot be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SplitError {
    /// A quote has no end.
    #[error("a quote is not closed; close it, or write \\{0} for the character itself")]
    Quote(char),
    /// Nothing follows the last backslash.
    #[error("nothing follows the last backslash; write \\\\ for the character itself")]
    Backslash,
}

/// The words of a line. `'...'` keeps everything as it is, `"..."` all but `\"` and `\\`, and
/// outside of quotes a backslash keeps the next character. A line whose first word begins with `#`
/// is a comment.
pub(crate) fn split(line: &str) -> Result<Vec<String>, SplitError> {
    let mut words = Vec::new();
    // None between words; '' makes a word that is empty.
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '#' if word.is_none() && words.is_empty() => break,
            c if c.is_whitespace() => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next().ok_or(SplitError::Quote('\''))? {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
            }
            '"' => double_quoted(&mut chars, word.get_or_insert_default())?,
            '\\' => {
                let c = chars.next().ok_or(SplitError::Backslash)?;
                word.get_or_insert_default().push(c);
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

fn double_quoted(chars: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), SplitError> {
    let unclosed = SplitError::Quote('"');
    loop {
        match chars.next().ok_or(unclosed)? {
            '"' => return Ok(()),
            '\\' => match chars.next().ok_or(unclosed)? {
                c @ ('"' | '\\') => word.push(c),
                c => word.extend(['\\', c]),
            },
            c => word.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_cut_as_by_a_shell() {
        for (line, words) in [
            ("", &[][..]),
            ("  \t ", &[]),
            ("send bob  hi", &["send", "bob", "hi"]),
            ("send bob 'it is $5 \\n'", &["send", "bob", "it is $5 \\n"]),
            (r#"send bob "say \"hi\" \n""#, &["send", "bob", r#"say "hi" \n"#]),
            (r"send bob it\'s\ fine", &["send", "bob", "it's fine"]),
            ("send bob ''", &["send", "bob", ""]),
            (r#"a"b"'c'd"#, &["abcd"]),
            ("# a comment", &[]),
            ("send bob #1", &["send", "bob", "#1"]),
        ] {
            assert_eq!(split(line), Ok(words.iter().map(|w| (*w).to_owned()).collect()), "{line}");
        }
    }

    #[test]
    fn what_has_no_end_is_refused() {
        assert_eq!(split("say 'hi"), Err(SplitError::Quote('\'')));
        assert_eq!(split("say \"hi\\\""), Err(SplitError::Quote('"')));
        assert_eq!(split("say hi\\"), Err(SplitError::Backslash));
    }
}
