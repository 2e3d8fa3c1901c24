//! A way between two daemons that keeps every byte passing it.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// Accepts at an address of its own and passes everything on to another, both ways. Its threads
/// end with the connections, or with the test's process.
pub(crate) struct Proxy {
    /// Where it accepts.
    pub(crate) address: String,
    /// All bytes of both directions of every connection, a piece for each direction.
    captured: Captured,
}

type Captured = Arc<Mutex<Vec<Arc<Mutex<Vec<u8>>>>>>;

impl Proxy {
    /// A proxy for an address.
    pub(crate) fn to(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let captured = Captured::default();
        let (target, keeps) = (target.to_owned(), Arc::clone(&captured));
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                // A daemon that is down refuses: so does its proxy.
                let Ok(far) = TcpStream::connect(&target) else { continue };
                pass(&near, &far, &keeps);
                pass(&far, &near, &keeps);
            }
        });
        Self { address, captured }
    }

    /// How many bytes have passed.
    pub(crate) fn bytes(&self) -> usize {
        let captured = self.captured.lock().expect("not poisoned");
        captured.iter().map(|piece| piece.lock().expect("not poisoned").len()).sum()
    }

    /// Whether any direction of any connection held these bytes.
    pub(crate) fn saw(&self, needle: &[u8]) -> bool {
        let captured = self.captured.lock().expect("not poisoned");
        captured.iter().any(|piece| contains(&piece.lock().expect("not poisoned"), needle))
    }
}

/// Whether bytes are found in others.
pub(crate) fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    let first = needle[0];
    let mut at = 0;
    while let Some(found) = haystack[at..].iter().position(|byte| *byte == first) {
        at += found;
        if haystack[at..].starts_with(needle) {
            return true;
        }
        at += 1;
    }
    false
}

fn pass(from: &TcpStream, to: &TcpStream, captured: &Captured) {
    let mut from = from.try_clone().expect("a socket");
    let mut to = to.try_clone().expect("a socket");
    let piece = Arc::new(Mutex::new(Vec::new()));
    captured.lock().expect("not poisoned").push(Arc::clone(&piece));
    thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            piece.lock().expect("not poisoned").extend_from_slice(&buffer[..read]);
            if to.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    });
}

#[test]
fn what_passes_is_found() {
    let target = TcpListener::bind("127.0.0.1:0").expect("a port");
    let proxy = Proxy::to(&target.local_addr().expect("bound").to_string());
    let mut near = TcpStream::connect(&proxy.address).expect("connected");
    let (mut far, _) = target.accept().expect("accepted");
    near.write_all(b"up and away").expect("written");
    near.shutdown(Shutdown::Write).expect("half closed");
    let mut up = Vec::new();
    far.read_to_end(&mut up).expect("read");
    assert_eq!(up, b"up and away");
    assert!(proxy.saw(b"away") && !proxy.saw(b"a way"));
    assert_eq!(proxy.bytes(), 11);
}
