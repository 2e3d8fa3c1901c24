//! Every bound of the system, in one place.
//!
//! Constants are fixed by the protocol: two nodes must agree on them. [`Limits`] are this node's
//! own and can be configured under `[limits]`.

use super::time::Span;

/// Bytes of one frame on a link, without its length prefix.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;
/// Bytes of one flooded frame (find or flood), signature included: floods cross every link of the
/// network.
pub const FLOOD_BYTES_MAX: usize = 4 * 1024;
/// Bytes of a peer record with its signature; a find carries one and is itself at most
/// [`FLOOD_BYTES_MAX`].
pub const RECORD_BYTES_MAX: usize = 3_840;
/// Bytes of an envelope's sealed body, authentication tag included.
pub const SEALED_BYTES_MAX: usize = 60 * 1024;
/// Body bytes of one chunk of a message that spans several envelopes. Fixed, so that chunk numbers
/// mean the same after either side restarted.
pub const CHUNK_BYTES: usize = 56 * 1024;
/// Bytes of a message body by protocol: far above what nodes accept by default, and still a value
/// that one row of a database can hold.
pub const MESSAGE_BYTES_CEILING: usize = 512 * 1024 * 1024;
/// What a stored message counts for beside its body: keys, times, subject, index. Without it empty
/// messages would cost nothing and fill the disk.
pub const STORED_OVERHEAD_BYTES: u64 = 512;
/// Bytes of a message's subject.
pub const SUBJECT_BYTES_MAX: usize = 255;
/// Messages of one incarnation that may be on their way at once: the recipient's ordering window.
pub const WINDOW: u64 = 1_024;
/// Items (messages or chunks) in one envelope.
pub const ITEMS_MAX: usize = 1_024;
/// Flooded fragments of one envelope.
pub const FRAGMENTS_MAX: usize = 32;
/// Next hops kept for one destination.
pub const NEXT_HOPS_MAX: usize = 3;
/// Peers that have an alias or are connected by the operator: each is a row on disk, and perhaps a
/// link that is kept.
pub const KNOWN_PEERS_MAX: usize = 10_000;
/// Bytes of a node's name or an alias.
pub const NAME_BYTES_MAX: usize = 64;
/// Bytes of a host name.
pub const HOST_BYTES_MAX: usize = 253;
/// Addresses in one record.
pub const RECORD_ADDRESSES_MAX: usize = 8;
/// Prekeys in one record.
pub const RECORD_PREKEYS_MAX: usize = 2;
/// How long a record may be valid.
pub const RECORD_LIFETIME_MAX: Span = Span::from_secs(14 * DAY_SECS);
/// How far a peer's clock may be ahead of ours.
pub const CLOCK_SKEW_MAX: Span = Span::from_secs(600);
/// How old a find or flood may be. Short: dedup must remember it that long.
pub const FLOOD_LIFETIME: Span = Span::from_secs(600);
/// How long a message may wait for delivery.
pub const MESSAGE_LIFETIME_MAX: Span = Span::from_secs(7 * DAY_SECS);
/// Messages given up that are remembered for people: the newest.
pub const GIVEN_UP_MAX: u32 = 100;
/// How often prekeys and sessions are renewed.
pub const ROTATION: Span = Span::from_secs(DAY_SECS);
/// When a prekey's private half is erased: after every message sealed to it has expired.
pub const PREKEY_LIFETIME: Span = Span::from_secs(8 * DAY_SECS);
/// When a recipient forgets a session: senders roll theirs after [`ROTATION`].
pub const SESSION_LIFETIME: Span = Span::from_secs(2 * DAY_SECS);
/// A neighbour that says nothing for this long is gone.
pub const LINK_SILENCE_MAX: Span = Span::from_secs(45);
/// How long an idle link goes without a ping.
pub const PING_INTERVAL: Span = Span::from_secs(15);
/// From connecting to the end of hello.
pub const HANDSHAKE_TIMEOUT: Span = Span::from_secs(5);
/// Full queues of links whose bytes may wait in all; beyond, whoever has more than its fair part
/// waiting loses traffic.
pub const FULL_LINK_QUEUES_MAX: usize = 32;
/// Digests in one answer when records are compared.
pub const DIGESTS_MAX: usize = 1_024;
/// Records in one request or answer.
pub const RECORDS_PER_FRAME_MAX: usize = 16;
/// Bytes of a reason that one node tells another.
pub const REASON_BYTES_MAX: usize = 255;
/// Bytes of a socket's path: `sun_path` of unix(7), less the NUL at its end.
pub const SOCKET_PATH_BYTES_MAX: usize = 107;
/// Bytes of one line of the control protocol, newline excluded.
pub const CONTROL_LINE_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of a body that goes inline into a control line; a larger one goes in chunks of this size.
/// Base64 makes four bytes of three, and JSON may escape a byte as six.
pub const CONTROL_BODY_BYTES_MAX: usize = 128 * 1024;
/// Bytes of a client's `--id` key, and of a listener's name.
pub const KEY_BYTES_MAX: usize = 128;

const DAY_SECS: u64 = 24 * 60 * 60;
const MIB: usize = 1024 * 1024;

/// Bytes that a message or chunk with such a body counts for on disk. A message counts what its
/// chunks would count: putting them together changes nothing.
pub const fn stored_bytes(body: u64) -> u64 {
    let parts = body.div_ceil(CHUNK_BYTES as u64);
    let overhead = STORED_OVERHEAD_BYTES.saturating_mul(if parts == 0 { 1 } else { parts });
    body.saturating_add(overhead)
}

/// This node's own bounds, with their defaults. Each is a key under `[limits]` in the
/// configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes of the largest message body sent or accepted.
    pub message_bytes_max: usize,
    /// Finds and floods a second from one link, and as many answers; checked before any signature.
    pub link_floods_per_second: u32,
    /// Finds and floods from one link at once, and as many answers.
    pub link_floods_burst: u32,
    /// Finds and floods a second of one origin, charged only after its signature was verified.
    pub origin_floods_per_second: u32,
    /// Finds and floods of one origin at once.
    pub origin_floods_burst: u32,
    /// Signature checks a second in all, shared among links.
    pub verifications_per_second: u32,
    /// Entries remembered against duplicates.
    pub seen_entries_max: usize,
    /// How long they are remembered.
    pub seen_lifetime: Span,
    /// Bytes of others' envelopes held while they are on their way.
    pub relay_bytes_max: usize,
    /// Bytes waiting to be written to one link.
    pub link_queue_bytes_max: usize,
    /// Peer records kept.
    pub records_max: usize,
    /// Sessions kept with others that write to us.
    pub sessions_max: usize,
    /// Links in all.
    pub links_max: usize,
    /// Control clients at once.
    pub clients_max: usize,
    /// Bytes of messages kept in the inbox, as [`stored_bytes`] counts them.
    pub inbox_bytes_max: u64,
    /// Bytes of messages waiting in the outbox, with [`STORED_OVERHEAD_BYTES`] for each.
    pub outbox_bytes_max: u64,
    /// How long a message that every listener acknowledged is kept.
    pub inbox_retention: Span,
}

impl Limits {
    /// Bytes of the inbox that senders whom the operator does not know can fill: three quarters,
    /// but always one message.
    pub fn strangers_bytes_max(&self) -> u64 {
        let largest = stored_bytes(self.message_bytes_max as u64);
        (self.inbox_bytes_max / 4 * 3).max(largest.min(self.inbox_bytes_max))
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes_max: 16 * MIB,
            link_floods_per_second: 10,
            link_floods_burst: 200,
            origin_floods_per_second: 2,
            origin_floods_burst: 20,
            verifications_per_second: 200,
            seen_entries_max: 360_000,
            seen_lifetime: Span::from_secs(30 * 60),
            relay_bytes_max: 64 * MIB,
            link_queue_bytes_max: 4 * MIB,
            records_max: 100_000,
            sessions_max: 10_000,
            links_max: 1_024,
            clients_max: 256,
            inbox_bytes_max: 1024 * MIB as u64,
            outbox_bytes_max: 1024 * MIB as u64,
            inbox_retention: Span::from_secs(7 * DAY_SECS),
        }
    }
}
