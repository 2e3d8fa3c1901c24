//! distmsgctl on a terminal of its own.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::daemon::SOON;
use crate::running::{until, wait};

/// A command on a terminal. Dropped, it is killed.
pub(crate) struct Terminal {
    child: Child,
    keys: File,
    screen: Arc<Mutex<String>>,
}

impl Terminal {
    pub(crate) fn run(mut command: Command) -> Self {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .expect("a terminal");
        grantpt(&terminal).expect("granted");
        unlockpt(&terminal).expect("unlocked");
        let name = ptsname(&terminal, Vec::new()).expect("a name");
        let name = name.to_str().expect("text").to_owned();
        let end = || -> OwnedFd {
            OpenOptions::new().read(true).write(true).open(&name).expect("its other end").into()
        };
        command.env("TERM", "xterm").stdin(end()).stdout(end()).stderr(end());
        let child = command.spawn().expect("it starts");
        // The command holds its ends of the terminal too, which would keep it open.
        drop(command);
        let keys = File::from(terminal);
        let mut output = keys.try_clone().expect("a descriptor");
        let screen = Arc::new(Mutex::new(String::new()));
        let shared = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // The terminal is closed with an error when the last process leaves it.
            while let Ok(read @ 1..) = output.read(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..read]).into_owned();
                shared.lock().expect("no panic").push_str(&text);
            }
        });
        Self { child, keys, screen }
    }

    /// What was shown, from the beginning on.
    pub(crate) fn screen(&self) -> String {
        self.screen.lock().expect("no panic").clone()
    }

    pub(crate) fn type_keys(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("keys are taken");
    }

    /// Waits until so many of these are on the screen.
    #[track_caller]
    pub(crate) fn wait_for(&self, text: &str, times: usize) {
        until(&format!("{text:?} on the screen"), SOON, || {
            (self.screen().matches(text).count() >= times).then_some(())
        });
    }

    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        wait(&mut self.child, "a command on a terminal", SOON).code()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
