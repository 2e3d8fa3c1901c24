//! What the system says, for people.

use std::io;

/// An error of the system as part of a sentence: in lower case, and without its number, which says
/// nothing to people.
pub fn plainly(error: &io::Error) -> String {
    let text = error.to_string();
    let told = match (error.raw_os_error(), text.rsplit_once(" (os error ")) {
        (Some(_), Some((told, _))) => told,
        _ => &*text,
    };
    let mut rest = told.chars();
    match rest.next() {
        // Not of an abbreviation, which stays as it is.
        Some(first) if rest.clone().next().is_some_and(char::is_lowercase) => {
            first.to_lowercase().chain(rest).collect()
        }
        _ => told.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_speaks_as_we_do() {
        for (error, said) in [
            (io::Error::from_raw_os_error(13), "permission denied"),
            (io::Error::from_raw_os_error(5), "input/output error"),
            (io::Error::other("TLS is (os error 7)"), "TLS is (os error 7)"),
            (io::ErrorKind::NotFound.into(), "entity not found"),
        ] {
            assert_eq!(plainly(&error), said);
        }
    }
}
