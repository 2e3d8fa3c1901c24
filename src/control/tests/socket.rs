//! The socket's file.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::control::client::Client;
use crate::control::server::Server;
use crate::control::socket::{ControlSocket, SocketError};
use crate::model::Limits;

#[tokio::test]
async fn it_has_exactly_the_mode_asked_for_and_goes_with_its_owner() {
    let directory = tempfile::tempdir().expect("a directory");
    for mode in [0o600, 0o660] {
        let path = directory.path().join("made/socket");
        let socket = ControlSocket::bind(&path, mode).expect("bound");
        let found = fs::symlink_metadata(&path).expect("there").permissions().mode();
        assert_eq!(found & 0o7777, mode);
        let parent = fs::metadata(path.parent().expect("a parent")).expect("there");
        assert_eq!(parent.permissions().mode() & 0o7777, 0o700);
        drop(socket);
        assert!(!path.exists());
    }
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("socket");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
    assert!(path.exists(), "what a crash leaves behind");
    let live = ControlSocket::bind(&path, 0o600).expect("replaced");
    match ControlSocket::bind(&path, 0o600) {
        Err(SocketError::InUse(found)) => assert_eq!(found, path),
        other => panic!("{other:?}"),
    }
    drop(live);
}

#[tokio::test]
async fn what_is_no_socket_is_left_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("file");
    fs::write(&file, "precious").expect("written");
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(&file, &link).expect("linked");
    for path in [&file, &link, &directory.path().to_owned()] {
        let refused = ControlSocket::bind(path, 0o600);
        assert!(matches!(refused, Err(SocketError::NotASocket(_))), "{refused:?}");
        // It may be anything, so to remove it is not what is advised.
        let told = refused.expect_err("refused").to_string();
        assert!(told.contains("not a socket; set another socket"), "{told}");
    }
    assert_eq!(fs::read_to_string(&file).expect("still there"), "precious");
}

#[tokio::test]
async fn a_path_that_no_socket_can_have_is_named_with_the_remedy() {
    let directory = tempfile::tempdir().expect("a directory");
    let fill = |bytes: usize| {
        directory.path().join("s".repeat(bytes - directory.path().as_os_str().len() - 1))
    };
    drop(ControlSocket::bind(&fill(107), 0o600).expect("bound"));
    let told = ControlSocket::bind(&fill(108), 0o600).expect_err("refused").to_string();
    assert!(told.contains("at most 107 bytes; set a shorter socket"), "{told}");
    let told = Client::connect(&fill(108)).await.expect_err("refused").to_string();
    assert!(told.contains("a socket's path has at most 107 bytes"), "{told}");
}

#[tokio::test]
async fn what_the_system_refuses_has_a_remedy() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("file");
    fs::write(&file, "").expect("written");
    let told = ControlSocket::bind(&file.join("x/socket"), 0o600).expect_err("refused").to_string();
    assert!(told.contains(": not a directory; let this user write to"), "{told}");
}

#[tokio::test]
async fn another_daemons_socket_is_not_removed() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("socket");
    let ours = ControlSocket::bind(&path, 0o600).expect("bound");
    fs::remove_file(&path).expect("removed by somebody");
    let theirs = ControlSocket::bind(&path, 0o600).expect("bound");
    drop(ours);
    assert!(path.exists());
    drop(theirs);
    assert!(!path.exists());
}

/// Waits until something holds, on the runtime that is to make it so.
async fn until(condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("in time");
}

#[tokio::test]
async fn a_socket_that_was_removed_is_made_again_and_one_of_another_is_left() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("made/socket");
    let server = Server::new(&Limits::default(), mpsc::channel(1).0);
    let ours = ControlSocket::bind(&path, 0o640).expect("bound");
    let serving = tokio::spawn(ours.serve(server.clone()));
    let answers = || std::os::unix::net::UnixStream::connect(&path).is_ok();
    for remove in [
        |path: &Path| fs::remove_file(path),
        |path: &Path| fs::remove_dir_all(path.parent().expect("a directory")),
    ] {
        remove(&path).expect("removed");
        assert!(!answers());
        server.remind();
        until(answers).await;
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o7777, 0o640);
    }
    // Another's, even if nobody answers there any more.
    fs::remove_file(&path).expect("removed");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
    let theirs = fs::metadata(&path).expect("there").ino();
    server.remind();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(fs::metadata(&path).expect("still there").ino(), theirs);
    // Once that is gone, it is ours again.
    fs::remove_file(&path).expect("removed");
    server.remind();
    until(answers).await;
    serving.abort();
    let _ = serving.await;
    assert!(!path.exists(), "the new file goes with its owner");
}

#[tokio::test]
async fn a_socket_that_was_handed_over_stays_as_it_is() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("socket");
    let made = std::os::unix::net::UnixListener::bind(&path).expect("bound");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("set");
    let kept = made.try_clone().expect("a second descriptor");
    let socket = ControlSocket::adopt(made).expect("adopted");
    assert_eq!(socket.path(), path);
    drop(socket);
    let found = fs::symlink_metadata(&path).expect("its file is still there");
    assert_eq!(found.permissions().mode() & 0o7777, 0o640);
    // Whoever handed it over still listens.
    let _client = std::os::unix::net::UnixStream::connect(&path).expect("nobody is refused");
    drop(kept);
}

#[tokio::test]
async fn a_handed_over_socket_is_not_made_again_when_its_file_is_gone() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("socket");
    let made = std::os::unix::net::UnixListener::bind(&path).expect("bound");
    let mut socket = ControlSocket::adopt(made).expect("adopted");
    fs::remove_file(&path).expect("removed");
    let mut told = false;
    socket.look_after(&mut told);
    assert!(told && !path.exists(), "it is told, and left to whoever made it");
}
