//! Every request, reply, event and error of the control protocol, defined once.
//!
//! These are the outside's types: they are made of text and numbers, and core types are translated
//! at the door. The JSON they become is a contract with scripts.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};
use zeroize::Zeroizing;

mod mailbox;

pub use mailbox::{
    BodyPiece, GivenUpMessage, GivenUpReason, InboxPage, InboxQuery, OutboxPage, QueuedMessage,
    Read,
};

/// A request's method and parameters. `method` names the variant, `params` holds its fields.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", content = "params", rename_all = "snake_case")]
pub enum Request {
    /// Shows the token: the first request on the TCP interface port, and on no other connection.
    /// Reply: [`Done`]. A wrong token is answered with [`ErrorCode::Unauthorized`] after a second;
    /// whatever else comes first is not answered at all. Either way the connection is closed.
    Authenticate(Authenticate),
    /// What the daemon is and how it does. Reply: [`Status`].
    Status {},
    /// Who answers at an address: dials it, learns the peer's ID, hangs up. Keeps nothing.
    /// Reply: [`Probed`].
    Probe(Probe),
    /// Links to a peer and keeps the link. Reply: [`Connected`], once the link is authenticated.
    Connect(Connect),
    /// Ends the link to a peer and no longer redials it. Reply: [`Disconnected`].
    Disconnect(PeerRef),
    /// Forgets everything about a peer but its messages. Reply: [`Done`].
    Forget(PeerRef),
    /// Gives a peer an alias, or takes it away. Reply: [`Done`].
    Alias(SetAlias),
    /// One page of the peers known. Reply: [`PeersPage`].
    Peers(Page),
    /// One page of the learned routes. Reply: [`RoutesPage`].
    Routes(Page),
    /// Asks a peer's node for a sign of life, end to end. Reply: [`Pong`].
    Ping(Ping),
    /// Merges the tables of all neighbours into ours. Events: [`Event::Discovered`] as it learns;
    /// reply, at the end: [`DiscoverCounts`].
    Discover(Discover),
    /// Begins the upload of a body that is too large for one line. Reply: [`Done`].
    UploadBegin(UploadBegin),
    /// The next piece of an upload, in order. Reply: [`Done`].
    UploadChunk(UploadChunk),
    /// Sends a message. Reply: [`Sent`], as soon as what was waited for is true.
    Send(Send),
    /// Follows the unread of a named listener. Reply: [`Subscribed`]; then [`Event::Message`]s,
    /// each leased to this client until it is acknowledged or the client leaves.
    Listen(Listen),
    /// Removes a named listener and what it acknowledged. Reply: [`Done`], once that is on disk.
    RemoveListener(ListenerRef),
    /// Acknowledges messages to their listener. Reply: [`Done`], once that is on disk.
    Ack(Ack),
    /// Events as they happen, acknowledging nothing. Reply: [`Subscribed`].
    Subscribe(Subscribe),
    /// Ends a subscription or a listening. Reply: [`Done`].
    Unsubscribe(Unsubscribe),
    /// One page of the inbox. Reply: [`InboxPage`]. Acknowledges nothing.
    Inbox(InboxQuery),
    /// One page of the messages that are not delivered yet. Reply: [`OutboxPage`].
    Outbox(Page),
    /// A piece of a message's body. Reply: [`BodyPiece`].
    Read(Read),
    /// How much the daemon logs; changes it first, if a level is given. Reply: [`LogLevel`].
    Log(SetLog),
}

/// The reply to a request. On the wire it is the bare object, without the variant's name: the
/// request says which it is.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
#[expect(missing_docs, reason = "each variant is documented at its type")]
pub enum Reply {
    Status(Box<Status>),
    Probed(Probed),
    Connected(Connected),
    Disconnected(Disconnected),
    Done(Done),
    Peers(PeersPage),
    Routes(RoutesPage),
    Pong(Pong),
    Discover(DiscoverCounts),
    Sent(Sent),
    Subscribed(Subscribed),
    Inbox(InboxPage),
    Outbox(OutboxPage),
    Body(BodyPiece),
    Log(LogLevel),
}

/// What happened, sent to clients that asked for it. `method` names the variant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", content = "params", rename_all = "snake_case")]
pub enum Event {
    /// A message for a listener or a subscriber.
    Message(MessageEvent),
    /// A peer that a running discover learned of.
    Discovered(DiscoveredEvent),
    /// A link came up or went down.
    Link(LinkEvent),
    /// An envelope passed this node: all that a relay sees of a message.
    Traffic(TrafficEvent),
}

/// Why a request failed. `code` is stable; `message` is for people and ends with the remedy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Which kind of failure.
    pub code: ErrorCode,
    /// One line, lower case, with the remedy.
    pub message: String,
    /// The message the failure is about, if it was queued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The peer the failure is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
}

/// The stable error codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The line is no JSON, or too long. The connection is closed.
    ParseError,
    /// It is JSON but no request.
    InvalidRequest,
    /// There is no such method.
    MethodNotFound,
    /// A parameter is missing, of the wrong type or out of range.
    InvalidParams,
    /// No peer by that alias or ID is known.
    NoSuchPeer,
    /// A prefix fits several peers.
    AmbiguousPeer,
    /// No message by that cursor or ID.
    NoSuchMessage,
    /// No listener by that name.
    NoSuchListener,
    /// Somebody listens by that name.
    ListenerInUse,
    /// The alias belongs to another peer.
    AliasTaken,
    /// The key was used for another message: to somebody else, or with another subject or body.
    KeyConflict,
    /// The peer at the address has another key than the one expected.
    IdentityMismatch,
    /// The peer refused the link: another network, another version.
    Refused,
    /// Nothing answers at the address.
    Unreachable,
    /// Not delivered in time; still queued.
    NotDelivered,
    /// Expired before it was delivered; no longer queued.
    Expired,
    /// Nothing came in time.
    Timeout,
    /// A body, name or list is larger than the limit.
    TooLarge,
    /// The outbox is full.
    OutboxFull,
    /// The disk is full.
    StorageFull,
    /// The database failed.
    StorageFailed,
    /// Too many clients, uploads or subscriptions at once.
    Busy,
    /// The daemon is stopping.
    Stopping,
    /// The token is not this daemon's. The connection is closed.
    Unauthorized,
}

impl ErrorCode {
    /// The JSON-RPC number: the reserved ones where JSON-RPC 2.0 section 5.1 defines them, else the
    /// server's own range.
    pub const fn number(self) -> i32 {
        match self {
            Self::ParseError => -32_700,
            Self::InvalidRequest => -32_600,
            Self::MethodNotFound => -32_601,
            Self::InvalidParams => -32_602,
            _ => -32_000,
        }
    }
}

impl Failure {
    /// A failure with its kind and its line for people.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), id: None, peer: None }
    }
}

/// Nothing to tell but that it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Done {}

/// Parameters of `authenticate`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authenticate {
    /// The token: 64 lower-case hexadecimal digits.
    pub token: TokenText,
}

/// A token as it was written, right or wrong: not shown, and erased afterwards.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub struct TokenText(Zeroizing<String>);

impl TokenText {
    /// What was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for TokenText {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl Serialize for TokenText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl fmt::Debug for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenText")
    }
}

/// Names a peer: an alias, a full ID, or a unique prefix of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerRef {
    /// The alias, ID or prefix.
    pub peer: String,
}

/// What the daemon is and how it does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// This node's full ID.
    pub peer: String,
    /// This node's own name.
    pub name: Option<String>,
    /// `open` or `closed`.
    pub network: String,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// Where state is kept.
    pub state_dir: String,
    /// Addresses it listens on.
    pub listen: Vec<String>,
    /// Addresses it tells others.
    pub advertise: Vec<String>,
    /// Addresses of its TCP interface port; none, if it has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interface: Vec<String>,
    /// Peers known.
    pub peers: u64,
    /// Links up.
    pub links: u64,
    /// Messages accepted and not delivered yet.
    pub outbox_messages: u64,
    /// Their bytes.
    pub outbox_bytes: u64,
    /// Messages lately given up without having been delivered; `outbox` tells of each.
    pub given_up: u64,
    /// The last of them.
    pub last_given_up: Option<GivenUpMessage>,
    /// Messages in the inbox.
    pub inbox_messages: u64,
    /// Their bytes.
    pub inbox_bytes: u64,
    /// Named listeners and how many messages each has not acknowledged.
    pub listeners: Vec<ListenerStatus>,
    /// What an operator should know: a full disk, a peer with another network.
    pub warnings: Vec<String>,
}

/// One named listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerStatus {
    /// Its name.
    pub name: String,
    /// Messages it has not acknowledged.
    pub unread: u64,
    /// Everything up to this cursor is acknowledged.
    pub position: u64,
    /// Messages leased to its clients now.
    pub leased: u64,
    /// Clients attached to it now.
    pub clients: u64,
    /// When the last client left; RFC 3339. None while one is attached, and if none was since the
    /// daemon started.
    pub last_seen: Option<String>,
}

/// Parameters of `probe`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// `HOST:PORT`.
    pub address: String,
    /// At most this long.
    pub timeout_ms: u64,
}

/// Who answered at the address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probed {
    /// Its full ID, proven by its key.
    pub peer: String,
    /// What it calls itself.
    pub name: Option<String>,
}

/// Parameters of `connect`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connect {
    /// The full ID that must answer.
    pub peer: String,
    /// `HOST:PORT`.
    pub address: String,
    /// The alias to give it; by default its own name, if that is free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// How long to wait for the link; after it, dialling goes on.
    pub timeout_ms: u64,
}

/// The link is up and authenticated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connected {
    /// The peer's full ID.
    pub peer: String,
    /// Its alias.
    pub alias: Option<String>,
    /// What it calls itself.
    pub name: Option<String>,
    /// The address dialled.
    pub address: String,
}

/// The link is over, and we do not make it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disconnected {
    /// Whether the peer dialled it, or would have: it may do so again, until its operator
    /// disconnects as well.
    pub dialled_by_peer: bool,
}

/// Parameters of `alias`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetAlias {
    /// The peer: alias, full ID or unique prefix.
    pub peer: String,
    /// The new alias; none takes it away.
    pub alias: Option<String>,
}

/// Asks for one page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub struct Page {
    /// The `next` of the page before; none for the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// At most this many; the daemon may return fewer. Default and maximum 500.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// One page of peers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeersPage {
    /// In order of ID.
    pub peers: Vec<Peer>,
    /// For the next page; none at the end.
    pub next: Option<String>,
}

/// A peer as the table has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// Its full ID.
    pub peer: String,
    /// What the operator calls it.
    pub alias: Option<String>,
    /// What it calls itself.
    pub name: Option<String>,
    /// Where it says it can be dialled.
    pub addresses: Vec<String>,
    /// Whether the operator connected it: its link is kept and redialled.
    pub connected: bool,
    /// The address it was connected by.
    pub dial: Option<String>,
    /// The link to it, if there is one.
    pub link: Option<Link>,
    /// When its record was made; RFC 3339. None while only its ID is known.
    pub record_made: Option<String>,
    /// When its record expires; RFC 3339.
    pub record_expires: Option<String>,
    /// Messages waiting for it.
    pub queued: u64,
    /// Why it was not reached when it was last dialled.
    pub last_error: Option<String>,
}

/// A link that is up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// `outbound` if we dialled, `inbound` if it did.
    pub direction: String,
    /// The address at the other end.
    pub address: String,
    /// Seconds since it came up.
    pub up_s: u64,
    /// Round trip of the last ping in milliseconds.
    pub rtt_ms: Option<f64>,
}

/// One page of routes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoutesPage {
    /// In order of destination.
    pub routes: Vec<Route>,
    /// For the next page; none at the end.
    pub next: Option<String>,
}

/// The ways known to one destination.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Route {
    /// Full ID.
    pub destination: String,
    /// Its alias.
    pub alias: Option<String>,
    /// At most three, the best first.
    pub next_hops: Vec<NextHop>,
}

/// One way to a destination.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NextHop {
    /// The neighbour's full ID.
    pub peer: String,
    /// The neighbour's alias.
    pub alias: Option<String>,
    /// Links to the destination when the way was learned, by hearsay; 1 is a direct neighbour.
    pub hops: u8,
    /// From 0 (only misses) to 1 (only verified receipts).
    pub score: f64,
    /// Verified receipts that came back this way.
    pub receipts: u64,
    /// Seconds since it was last learned or confirmed.
    pub age_s: u64,
}

/// Parameters of `ping`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ping {
    /// The peer: alias, full ID or unique prefix.
    pub peer: String,
    /// At most this long.
    pub timeout_ms: u64,
}

/// The peer's node answered, and proved that it is the peer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pong {
    /// Its full ID.
    pub peer: String,
    /// From request to proof, in milliseconds; the first ping includes finding the way.
    pub rtt_ms: f64,
    /// Attempts that were made.
    pub attempts: u32,
}

/// Parameters of `discover`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Discover {
    /// At most this long.
    pub timeout_ms: u64,
}

/// What a discover brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct DiscoverCounts {
    /// Neighbours asked.
    pub asked: u64,
    /// Neighbours whose table was merged completely.
    pub answered: u64,
    /// Peers not known before.
    pub new: u64,
    /// Peers whose record was replaced by a newer one.
    pub updated: u64,
    /// Peers known now.
    pub known: u64,
}

/// A peer that a discover learned of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiscoveredEvent {
    /// Full ID.
    pub peer: String,
    /// What it calls itself.
    pub name: Option<String>,
    /// Where it says it can be dialled.
    pub addresses: Vec<String>,
    /// The neighbour that told us: full ID.
    pub via: String,
    /// Whether it was not known before.
    pub new: bool,
}

/// Parameters of `upload_begin`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UploadBegin {
    /// Its number, chosen by the client; valid on this connection until it is sent.
    pub upload: u64,
    /// The body's length.
    pub bytes: u64,
}

/// Parameters of `upload_chunk`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UploadChunk {
    /// Which upload.
    pub upload: u64,
    /// The bytes, in base64 (RFC 4648 section 4, padded); at most 128 KiB before encoding.
    pub data_base64: String,
}

/// Parameters of `send`. Exactly one of `body`, `body_base64` and `upload`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Send {
    /// The recipient: alias, full ID (known or not) or unique prefix.
    pub peer: String,
    /// The body as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The body as base64 (RFC 4648 section 4, padded).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_base64: Option<String>,
    /// The body as a finished upload of this connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<u64>,
    /// What it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// What must be true before the reply.
    #[serde(default)]
    pub wait: Wait,
    /// How long to wait for it, from when the message is queued. Default 10 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Makes a retry safe: a second send with the same key sends nothing and reports on the first.
    /// If it is not the same message, it fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// What a `send` waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Wait {
    /// It is on our disk.
    Queued,
    /// It was handed to a link.
    Sent,
    /// The recipient's node proved that it is on its disk.
    #[default]
    Delivered,
}

/// What became of a `send`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// The message's ID, the same at both ends.
    pub id: String,
    /// What is true of it now; at least what was waited for.
    pub state: Wait,
    /// True if the key was used before: this is what became of that message.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub duplicate: bool,
}

/// Parameters of `listen`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// The listener's name.
    pub name: String,
    /// Only messages of this peer: alias, full ID or unique prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Only messages received at or after this time; RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// How many messages may be leased to this client at once, 1 to 1024.
    #[serde(default = "window_default")]
    pub window: u32,
}

const fn window_default() -> u32 {
    256
}

/// Names a listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenerRef {
    /// Its name.
    pub name: String,
}

/// Parameters of `ack`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ack {
    /// The listening that leased them.
    pub subscription: u64,
    /// The messages done with, at most 1024.
    pub cursors: Vec<u64>,
}

/// Parameters of `subscribe`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subscribe {
    /// What to be told of.
    pub topics: Vec<Topic>,
}

/// Kinds of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Topic {
    /// Messages as they arrive.
    Messages,
    /// Links as they come and go.
    Links,
    /// Envelopes as they pass.
    Traffic,
}

/// A subscription or listening.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscribed {
    /// Its number on this connection.
    pub subscription: u64,
}

/// Parameters of `unsubscribe`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unsubscribe {
    /// Which subscription or listening of this connection.
    pub subscription: u64,
}

/// A message for one subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageEvent {
    /// Which subscription or listening it is for.
    pub subscription: u64,
    /// The message.
    pub message: Message,
}

/// A message in the inbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Its place in the inbox; grows.
    pub cursor: u64,
    /// Its ID, the same at both ends.
    pub id: String,
    /// The sender's full ID, proven.
    pub from: String,
    /// What the operator calls the sender.
    pub alias: Option<String>,
    /// What it is about.
    pub subject: Option<String>,
    /// When its sender queued it, by the sender's clock; RFC 3339.
    pub sent: String,
    /// When it was stored here; RFC 3339.
    pub received: String,
    /// Bytes of the body.
    pub bytes: u64,
    /// The body, if it is UTF-8 and fits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The body in base64, if it is not UTF-8 and fits. With neither, fetch it with `read`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_base64: Option<String>,
}

/// A link came up or went down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkEvent {
    /// The peer's full ID.
    pub peer: String,
    /// Its alias.
    pub alias: Option<String>,
    /// Whether the link is up now.
    pub up: bool,
    /// Why it went down.
    pub reason: Option<String>,
}

/// An envelope passed this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficEvent {
    /// What this node did with it.
    pub action: TrafficAction,
    /// Who wrote it: full ID.
    pub source: String,
    /// Who it is for: full ID.
    pub destination: String,
    /// The neighbour it came from; none if it began here.
    pub previous: Option<String>,
    /// The neighbours it went to; empty if it ended here.
    pub next: Vec<String>,
    /// Bytes of the envelope.
    pub bytes: u64,
    /// Which attempt of its sender this is.
    pub attempt: u16,
}

/// What a node did with an envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrafficAction {
    /// Sent by this node.
    Originated,
    /// Passed on to the next hop.
    Forwarded,
    /// Passed on to all neighbours.
    Flooded,
    /// Opened here: this node is the recipient.
    Delivered,
    /// Sent back: no way on from here.
    Rejected,
}

/// Parameters of `log`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub struct SetLog {
    /// `error`, `warn`, `info`, `debug` or `trace`; none changes nothing. It counts until the
    /// configuration is read again, or the daemon ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
}

/// How much the daemon logs now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLevel {
    /// The level; or the filter that `DISTMSG_LOG` gave it at its start.
    pub level: String,
}
