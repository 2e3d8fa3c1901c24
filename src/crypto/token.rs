//! The token that opens a node's TCP interface port: 256 random bits in hexadecimal digits.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use zeroize::Zeroizing;

use super::Random;

/// Hexadecimal digits of a token: no character of it means anything to a shell or to JSON, and a
/// double click selects it whole.
const DIGITS: usize = 64;

/// What a control client shows to be served over TCP: whoever has it may do what the node's owner
/// may.
pub struct AccessToken(Zeroizing<[u8; 32]>);

impl AccessToken {
    /// A new token.
    pub fn generate(random: &mut Random) -> Self {
        Self(Zeroizing::new(random.bytes()))
    }

    /// Reads 64 lower-case hexadecimal digits; a token has no other form.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = Zeroizing::new([0; 32]);
        if text.len() != DIGITS {
            return None;
        }
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            for digit in digits {
                *byte = *byte << 4 | value_of(*digit)?;
            }
        }
        Some(Self(bytes))
    }

    /// The token's digits.
    pub fn to_text(&self) -> Zeroizing<String> {
        // Room for all of it, and a line's end, from the start: growing would leave a copy behind.
        let mut text = Zeroizing::new(String::with_capacity(DIGITS.saturating_add(1)));
        for byte in self.0.iter() {
            for digit in [byte >> 4, byte & 0xf] {
                text.extend(char::from_digit(u32::from(digit), 16));
            }
        }
        text
    }

    /// Whether somebody showed this token. How long it takes tells nothing of how much was right.
    pub fn is(&self, shown: &str) -> bool {
        Self::parse(shown).is_some_and(|shown| verify_slices_are_equal(&*self.0, &*shown.0).is_ok())
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessToken")
    }
}

const fn value_of(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_by_its_64_digits_and_nothing_else() {
        let token = AccessToken::generate(&mut Random::from_seed([1; 32]));
        let text = token.to_text();
        assert_eq!(text.len(), 64);
        assert!(token.is(&text));
        assert_eq!(AccessToken::parse(&text).map(|again| again.to_text()), Some(text.clone()));
        for at in 0..text.len() {
            let mut other = text.as_bytes().to_vec();
            other[at] = if other[at] == b'0' { b'1' } else { b'0' };
            assert!(!token.is(&String::from_utf8(other).expect("digits")), "digit {at}");
        }
        let upper = text.to_ascii_uppercase();
        let longer = format!("{}\n", *text);
        for other in ["", &text[1..], &longer, &upper, &"é".repeat(32)] {
            assert!(!token.is(other), "{other}");
        }
    }

    #[test]
    fn a_token_is_not_shown() {
        let token = AccessToken::generate(&mut Random::from_seed([2; 32]));
        assert_eq!(format!("{token:?}"), "AccessToken");
    }
}
