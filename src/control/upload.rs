//! Bodies that come in pieces, and the one form in which all bodies reach the node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::codec::SendRequest;
use super::protocol::{ErrorCode, Failure, Send, UploadBegin, UploadChunk};
use crate::model::limits::{CONTROL_BODY_BYTES_MAX, KEY_BYTES_MAX, SUBJECT_BYTES_MAX};

/// Uploads of one client at once.
const UPLOADS_MAX: usize = 4;

/// Bytes of all clients' unfinished uploads together.
const TOTAL_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// One client's uploads.
#[derive(Debug)]
pub(super) struct Uploads {
    /// The same for all clients; it may change meanwhile.
    message_bytes_max: Arc<AtomicUsize>,
    /// By the client's numbers; a refused one stays, so that those who do not wait for the reply
    /// hear of it when they send.
    uploads: BTreeMap<u64, Result<Upload, Failure>>,
    total: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Upload {
    expected: usize,
    data: Vec<u8>,
    /// Gives the room back when it is dropped.
    _room: Room,
}

/// Room that an upload takes in the total of all clients.
#[derive(Debug)]
struct Room {
    bytes: u64,
    total: Arc<AtomicU64>,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Uploads {
    pub(super) const fn new(message_bytes_max: Arc<AtomicUsize>, total: Arc<AtomicU64>) -> Self {
        Self { message_bytes_max, uploads: BTreeMap::new(), total }
    }

    /// Whether nothing was begun.
    pub(super) fn is_empty(&self) -> bool {
        self.uploads.is_empty()
    }

    /// Drops all that was begun; whoever refers to it is told that it is unknown.
    pub(super) fn clear(&mut self) {
        self.uploads.clear();
    }

    pub(super) fn begin(&mut self, request: UploadBegin) -> Result<(), Failure> {
        if self.uploads.len() >= UPLOADS_MAX && !self.uploads.contains_key(&request.upload) {
            return Err(too_many());
        }
        let upload = self.admit(request.bytes);
        let result = upload.as_ref().map(|_| ()).map_err(Clone::clone);
        self.uploads.insert(request.upload, upload);
        result
    }

    fn admit(&self, bytes: u64) -> Result<Upload, Failure> {
        let expected = self.check_size(bytes)?;
        let total = self.total.fetch_add(bytes, Ordering::Relaxed);
        let room = Room { bytes, total: Arc::clone(&self.total) };
        if total.saturating_add(bytes) > TOTAL_BYTES_MAX {
            return Err(too_many());
        }
        // Grown as data comes: announcing costs the client nothing, so it costs us nothing.
        Ok(Upload { expected, data: Vec::new(), _room: room })
    }

    pub(super) fn chunk(&mut self, request: &UploadChunk) -> Result<(), Failure> {
        let invalid = |text: &str| Failure::new(ErrorCode::InvalidParams, text);
        let upload = self.uploads.get_mut(&request.upload);
        let upload = upload.ok_or_else(|| invalid("there is no such upload on this connection"))?;
        let upload = upload.as_mut().map_err(|failure| failure.clone())?;
        let data = decode_base64("data_base64", &request.data_base64)?;
        if data.len() > CONTROL_BODY_BYTES_MAX {
            let text = format!("a chunk has at most {CONTROL_BODY_BYTES_MAX} bytes");
            return Err(Failure::new(ErrorCode::TooLarge, text));
        }
        if upload.data.len() + data.len() > upload.expected {
            return Err(invalid("the chunks are longer than what was announced"));
        }
        upload.data.extend_from_slice(&data);
        Ok(())
    }

    /// Resolves a send: its body, wherever it is.
    pub(super) fn resolve(&mut self, request: Send) -> Result<SendRequest, Failure> {
        let too_long = |what: &str, max: usize| {
            Failure::new(ErrorCode::TooLarge, format!("the {what} has at most {max} bytes"))
        };
        if request.subject.as_ref().is_some_and(|subject| subject.len() > SUBJECT_BYTES_MAX) {
            return Err(too_long("subject", SUBJECT_BYTES_MAX));
        }
        if request.key.as_ref().is_some_and(|key| key.is_empty() || key.len() > KEY_BYTES_MAX) {
            let text = format!("a key has 1 to {KEY_BYTES_MAX} bytes");
            return Err(Failure::new(ErrorCode::InvalidParams, text));
        }
        let body = match (request.body, request.body_base64, request.upload) {
            (Some(text), None, None) => Bytes::from(text),
            (None, Some(packed), None) => decode_base64("body_base64", &packed)?.into(),
            (None, None, Some(number)) => self.take(number)?,
            _ => {
                let text = "give exactly one of body, body_base64 and upload";
                return Err(Failure::new(ErrorCode::InvalidParams, text));
            }
        };
        self.check_size(body.len() as u64)?;
        Ok(SendRequest {
            peer: request.peer,
            body,
            subject: request.subject.map(Into::into),
            wait: request.wait,
            timeout_ms: request.timeout_ms,
            key: request.key.map(Into::into),
        })
    }

    fn take(&mut self, number: u64) -> Result<Bytes, Failure> {
        let invalid = |text: String| Failure::new(ErrorCode::InvalidParams, text);
        let missing = || invalid("there is no such upload on this connection".to_owned());
        let upload = self.uploads.remove(&number).ok_or_else(missing)??;
        if upload.data.len() < upload.expected {
            let (have, expected) = (upload.data.len(), upload.expected);
            return Err(invalid(format!("the upload had only {have} of {expected} bytes")));
        }
        Ok(upload.data.into())
    }

    fn check_size(&self, bytes: u64) -> Result<usize, Failure> {
        let max = self.message_bytes_max.load(Ordering::Relaxed);
        match usize::try_from(bytes) {
            Ok(bytes) if bytes <= max => Ok(bytes),
            _ => {
                let text = format!(
                    "a message has at most {max} bytes, this has {bytes}; send it in parts, or \
                     raise message_bytes_max at both ends"
                );
                Err(Failure::new(ErrorCode::TooLarge, text))
            }
        }
    }
}

fn too_many() -> Failure {
    let text = "too many uploads at once; finish one and try again";
    Failure::new(ErrorCode::Busy, text)
}

fn decode_base64(what: &str, text: &str) -> Result<Vec<u8>, Failure> {
    STANDARD.decode(text).map_err(|error| {
        let text = format!("{what} is no base64: {error}");
        Failure::new(ErrorCode::InvalidParams, text)
    })
}
