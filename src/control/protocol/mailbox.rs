//! What is asked of the inbox and the outbox, and what is answered.

use serde::{Deserialize, Serialize};

use super::Message;

/// Parameters of `inbox`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub struct InboxQuery {
    /// Only messages after this cursor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// At most this many; default and maximum 500, fewer where bodies are large.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Only messages of this peer: alias, full ID or unique prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

/// One page of the inbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InboxPage {
    /// In order of cursor.
    pub messages: Vec<Message>,
    /// The cursor to ask after next; none at the end.
    pub next: Option<u64>,
}

/// One page of the outbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxPage {
    /// In the order they were queued.
    pub messages: Vec<QueuedMessage>,
    /// For the next page; none at the end.
    pub next: Option<String>,
    /// Messages lately given up, the newest last; at most 100, and only in the first page.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub given_up: Vec<GivenUpMessage>,
}

/// A message that was given up within the last seven days without having been delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenUpMessage {
    /// Its ID.
    pub id: String,
    /// The recipient's full ID.
    pub to: String,
    /// The recipient's alias.
    pub alias: Option<String>,
    /// What it is about.
    pub subject: Option<String>,
    /// When it was queued; RFC 3339.
    pub queued: String,
    /// When it was given up; RFC 3339.
    pub given_up: String,
    /// Bytes of the body.
    pub bytes: u64,
    /// Always `given up`: what a message in the outbox has here tells what keeps it.
    pub state: String,
    /// Why.
    pub reason: GivenUpReason,
}

/// Why a message was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GivenUpReason {
    /// It waited for seven days.
    Expired,
    /// The recipient does not accept messages of its size.
    TooLarge,
}

/// A message that is not delivered yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuedMessage {
    /// Its ID, the same at both ends.
    pub id: String,
    /// The recipient's full ID.
    pub to: String,
    /// The recipient's alias.
    pub alias: Option<String>,
    /// What it is about.
    pub subject: Option<String>,
    /// When it was queued; RFC 3339.
    pub queued: String,
    /// When it is given up; RFC 3339.
    pub expires: String,
    /// Bytes of the body.
    pub bytes: u64,
    /// What keeps it: `waiting`, `finding`, `in flight`, `recipient full`.
    pub state: String,
}

/// Parameters of `read`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Read {
    /// Which message of the inbox.
    pub cursor: u64,
    /// From which byte on.
    pub offset: u64,
    /// At most this many bytes; at most 128 KiB.
    pub bytes: u32,
}

/// A piece of a body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BodyPiece {
    /// The bytes, in base64 (RFC 4648 section 4, padded). Empty at the end.
    pub data_base64: String,
}
