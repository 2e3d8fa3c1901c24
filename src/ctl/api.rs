//! What a program needs that speaks with daemons as distmsgctl does.

pub use crate::control::client::{CallError, Client, Events};
pub use crate::control::protocol::{
    Connect, Connected, Done, Event, Message, Request, Send, Sent, SetAlias, Status, Subscribe,
    Subscribed, Topic, TrafficAction, TrafficEvent, Wait,
};
pub use crate::model::escaped as escaped_body;
