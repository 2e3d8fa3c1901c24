//! Files that appear whole or not at all, and never in place of another.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

/// How the names of files begin that are not whole yet.
const TEMPORARY: &str = ".distmsg-";

/// The directory a file is in.
fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes a directory for its owner only, and all above it that are missing.
pub(super) fn make_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Writes a file that is not there yet, with this mode as far as the umask allows it, so that it
/// survives power loss; missing directories are made.
///
/// # Errors
/// `AlreadyExists` when something is there, which is left as it is.
pub(super) fn create(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let directory = directory_of(path);
    make_directory(directory)?;
    let mut file = tempfile::Builder::new()
        .prefix(TEMPORARY)
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(directory)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path).map_err(|error| error.error)?;
    File::open(directory)?.sync_all()
}

/// Removes what [`create`] left in a directory when it was killed: it may be half a secret, or a
/// whole one that nobody knows of. Only for whoever has the directory locked.
pub(super) fn remove_leftovers(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let is_ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(TEMPORARY));
        if is_ours && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            // If it cannot be removed, it is as it was before.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Whether anything is there, a dangling link included.
pub(super) fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_created_once_and_never_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a/b/c");
        create(&path, b"one", 0o600).expect("created");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&dir.path().join("a"))), (0o600, 0o700));
        let error = create(&path, b"two", 0o600).expect_err("it is there");
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).expect("read"), b"one");
        let names = fs::read_dir(dir.path().join("a/b")).expect("listed").count();
        assert_eq!(names, 1, "the temporary file is gone");

        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path().join("target"), &link).expect("linked");
        assert!(exists(&link));
        assert!(create(&link, b"x", 0o600).is_err(), "a link is not followed");
        assert!(!dir.path().join("target").exists());
    }
}
