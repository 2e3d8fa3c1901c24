//! Did you mean: the known word nearest to a mistyped one.

/// Words longer than this are compared with nothing: the comparison takes time in the square of it.
const COMPARED_BYTES_MAX: usize = 64;

/// The candidate that differs least from the word, if it differs little enough to be meant.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    if word.len() > COMPARED_BYTES_MAX {
        return None;
    }
    let word = word.to_lowercase().replace('-', "_");
    let near = |candidate: &&str| candidate.len().max(word.len()) / 3;
    candidates
        .into_iter()
        .map(|candidate| (distance(&word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= near(candidate).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// How many letters must be changed, added, left out or swapped with the next one (Damerau 1964, as
/// optimal string alignment).
fn distance(from: &str, to: &str) -> usize {
    let from: Vec<char> = from.chars().collect();
    let to: Vec<char> = to.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, letter) in from.iter().enumerate() {
        let mut next = vec![i.saturating_add(1)];
        for (j, other) in to.iter().enumerate() {
            let cost = |row: &[usize], at: usize, more: usize| {
                row.get(at).map_or(usize::MAX, |cost| cost.saturating_add(more))
            };
            let mut best = cost(&row, j, usize::from(letter != other))
                .min(cost(&row, j.saturating_add(1), 1))
                .min(cost(&next, j, 1));
            let (i, j) = (i.checked_sub(1), j.checked_sub(1));
            if let (Some(i), Some(j)) = (i, j)
                && from.get(i) == Some(other)
                && to.get(j) == Some(letter)
            {
                best = best.min(cost(&before, j, 1));
            }
            next.push(best);
        }
        before = std::mem::replace(&mut row, next);
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_counted() {
        for (a, b, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("kitten", "sitting", 3),
            ("nmae", "name", 1),
            ("listen", "listen", 0),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn typing_errors_are_recognised_and_other_words_are_not() {
        let keys = ["name", "listen", "advertise", "network", "network_key_file"];
        assert_eq!(nearest("lsiten", keys), Some("listen"));
        assert_eq!(nearest("Listen", keys), Some("listen"));
        assert_eq!(nearest("network-key-file", keys), Some("network_key_file"));
        assert_eq!(nearest("nam", keys), Some("name"));
        assert_eq!(nearest("nmae", keys), Some("name"));
        assert_eq!(nearest("colour", keys), None);
        assert_eq!(nearest(&"listen".repeat(50), keys), None);
    }
}
