//! Values that every room shares: who a peer is, what a message is, what time it is, and every
//! bound.
//!
//! Nothing here touches a clock, a socket or a key; a value that exists has been checked
//! (parse, don't validate), so the rooms that receive it need not check it again.

mod address;
mod bucket;
mod fair_bucket;
mod interface;
mod level;
mod message;
mod name;
mod network;
mod occupancy;
mod peer_id;
mod record;
mod settled_clock;
mod stored;
mod system;
mod time;

pub mod limits;

pub use address::{Address, AddressError};
pub use bucket::Bucket;
pub use fair_bucket::FairBucket;
pub use interface::{InterfaceAddress, InterfaceAddressError};
pub use level::{Level, WordError};
pub use limits::Limits;
pub use message::{Incarnation, MessageId, Sequence, SessionId, Uid};
pub use name::{Name, NameError, escaped, excerpt};
pub use network::NetworkId;
pub use occupancy::Occupancy;
pub use peer_id::{PeerId, PeerIdError};
pub use record::{Prekey, PrekeyId, Record, SignedRecord};
pub use settled_clock::SettledClock;
pub use stored::{
    Cursor, GivenUp, HeldRow, Incoming, IncomingChunk, Outgoing, PartialRow, PrekeyRow,
    ReceivedKey, Row, SessionRow, WhyGivenUp, WindowRow,
};
pub use system::{is_of_one_connection, plainly, source_of};
pub use time::{Monotonic, Now, Span, Timestamp};
