//! A file of bounded size as text.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use super::Problems;
use crate::model::{escaped, plainly};

/// Bytes of a configuration file: far more than anybody writes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// The text of a configuration file.
///
/// # Errors
/// When it cannot be read, is larger than 1 MiB, or is not UTF-8.
pub(super) fn text_of(path: &Path) -> Result<String, Problems> {
    let refused = |message: String| Problems::of_file(path, message);
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => refused(format!(
            "does not exist; write it with 'distmsg init {}', or name another file",
            escaped(&path.to_string_lossy())
        )),
        _ => refused(format!(
            "cannot read the configuration: {}; let this user read it, or name another file",
            plainly(&error)
        )),
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    if file.metadata().map_err(unreadable)?.is_dir() {
        return Err(refused("this is a directory; name the configuration file in it".to_owned()));
    }
    // One byte more than allowed shows that there is more.
    let most = FILE_BYTES_MAX.saturating_add(1);
    let read = file.take(most).read_to_end(&mut bytes).map_err(unreadable)?;
    if u64::try_from(read).is_ok_and(|read| read > FILE_BYTES_MAX) {
        return Err(refused(
            "larger than 1 MiB; this is not a configuration, name another file".to_owned(),
        ));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.as_bytes().iter().take(error.utf8_error().valid_up_to());
        let line = valid.filter(|byte| **byte == b'\n').count().saturating_add(1);
        refused(format!("line {line} is not UTF-8; save the file as UTF-8"))
    })
}

/// Refuses what can be read only once, or for which a reader may have to wait: a pipe that has been
/// emptied would count as a configuration in which nothing is written.
///
/// # Errors
/// When it is neither a file nor a directory. What is not there is another matter.
pub(super) fn check_lasting(path: &Path) -> Result<(), Problems> {
    match std::fs::metadata(path) {
        Ok(found) if !found.is_file() && !found.is_dir() => Err(Problems::of_file(
            path,
            "a pipe or device, which cannot be read again; restart the daemon, or start it with a \
             regular file"
                .to_owned(),
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_no_configuration_are_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("config.toml");
        let message = |path: &Path| text_of(path).expect_err("refused").to_string();
        assert!(message(&path).contains("does not exist; write it with"), "{}", message(&path));
        assert!(message(dir.path()).contains("a directory"), "{}", message(dir.path()));
        std::fs::write(&path, b"# fine\nname = \"\xff\"\n").expect("written");
        assert!(message(&path).contains("line 2 is not UTF-8"), "{}", message(&path));
        std::fs::write(&path, vec![b'#'; 1024 * 1024 + 1]).expect("written");
        assert!(message(&path).contains("1 MiB"), "{}", message(&path));
        std::fs::write(&path, vec![b'#'; 1024 * 1024]).expect("written");
        assert!(text_of(&path).is_ok());
    }
    #[test]
    fn what_cannot_be_read_again_is_refused_without_waiting_for_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("config.toml");
        assert!(check_lasting(&path).is_ok(), "who reads it says that it is not there");
        std::fs::write(&path, "").expect("written");
        assert!(check_lasting(&path).is_ok());
        // As from a shell's <(...).
        let (_writer, reader) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let descriptor = std::os::fd::AsRawFd::as_raw_fd(&reader);
        let pipe = std::path::PathBuf::from(format!("/dev/fd/{descriptor}"));
        for other in [Path::new("/dev/null"), &pipe] {
            let message = check_lasting(other).expect_err("refused").to_string();
            assert!(message.contains("cannot be read again; restart"), "{message}");
        }
    }
}
