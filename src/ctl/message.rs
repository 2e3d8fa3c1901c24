//! Messages as lines: for people, and whole as JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::borrow::Cow;

use super::output::{Output, Style};
use super::text::{self, Clock};
use crate::control::protocol::Message;

/// The body that came with the message. None if it is too large for that.
pub(crate) fn inline_body(message: &Message) -> Option<Cow<'_, [u8]>> {
    match (&message.body, &message.body_base64) {
        (Some(body), _) => Some(Cow::Borrowed(body.as_bytes())),
        (None, Some(encoded)) => STANDARD.decode(encoded).ok().map(Cow::Owned),
        (None, None) => (message.bytes == 0).then(|| Cow::Borrowed(&[][..])),
    }
}

/// Adds a message as a plain line: local time, sender, body. Whatever the message holds, it is one
/// line, and its sender is whom the daemon verified.
pub(crate) fn push_line(message: &Message, body: &[u8], clock: &mut Clock, out: &mut Output) {
    let time = out.styled(Style::Dim, clock.local(&message.received));
    let sender = text::peer_label(message.alias.as_deref(), &message.from);
    let sender = out.styled(Style::Peer, &sender);
    let buffer = out.buffer();
    buffer.extend_from_slice(time.as_bytes());
    buffer.push(b' ');
    buffer.extend_from_slice(sender.as_bytes());
    buffer.push(b' ');
    text::push_escaped_bytes(buffer, body);
    buffer.push(b'\n');
}

/// Puts a body that was fetched into its message.
pub(crate) fn fill(message: &mut Message, body: Vec<u8>) {
    match String::from_utf8(body) {
        Ok(text) => message.body = Some(text),
        Err(error) => message.body_base64 = Some(STANDARD.encode(error.as_bytes())),
    }
}
