//! What the system says, of errors and of those who connect.

use std::io;
use std::net::IpAddr;

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

/// Whether accepting failed because the connection was gone before it was taken: that is its own
/// problem, and the next one may be well.
pub fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

/// Who counts as one: an IPv4 address, or the IPv6 network of 64 bits that one customer has.
pub fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) >> 64 << 64).into()),
        v4 => v4,
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
