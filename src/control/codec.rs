//! Lines to requests, replies and events to lines (JSON-RPC 2.0).

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::protocol::{ErrorCode, Event, Failure, Message, Reply, Request, Wait};
use crate::model::excerpt;

/// Bytes of a request's ID when it is a string.
const REQUEST_ID_BYTES_MAX: usize = 128;
/// Characters of a client's input repeated in an error.
const SHOWN_CHARS_MAX: usize = 80;

/// A request's ID: comes back with its reply.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum RequestId {
    /// A whole number.
    Number(i64),
    /// A string of at most 128 bytes.
    Text(Box<str>),
}

/// A request as it reaches the node: bodies are bytes, uploads are resolved.
#[derive(Debug, Clone, PartialEq)]
pub enum Call {
    /// Send a message.
    Send(SendRequest),
    /// Anything else.
    Other(Request),
}

/// A message to be sent, in whatever way its body came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendRequest {
    /// The recipient: alias, full ID or unique prefix.
    pub peer: String,
    /// The body.
    pub body: Bytes,
    /// What it is about; bounded.
    pub subject: Option<Box<str>>,
    /// What must be true before the reply.
    pub wait: Wait,
    /// How long to wait for it.
    pub timeout_ms: Option<u64>,
    /// Makes a retry safe; bounded.
    pub key: Option<Box<str>>,
}

/// What a client is sent.
#[derive(Debug, Clone, PartialEq)]
pub enum Outgoing {
    /// The reply to a request.
    Reply {
        /// The request's ID.
        id: RequestId,
        /// What became of it.
        result: Result<Reply, Failure>,
    },
    /// Something happened.
    Event(Event),
    /// Messages arrived: an [`Event::Message`] for each. All subscribers are sent the same ones, so
    /// that they are in memory once, however many subscribers do not read.
    Messages {
        /// The subscription.
        subscription: u64,
        /// The messages, in order.
        messages: Arc<[Message]>,
    },
}

/// A line that was read as far as possible.
#[derive(Debug, PartialEq)]
pub struct Incoming {
    /// The request's ID, if it could be read.
    pub id: Option<RequestId>,
    /// The request, or why it is none.
    pub request: Result<Request, Failure>,
}

/// A request's line. Unknown and repeated members are refused: they are mistakes that would go
/// unnoticed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestLine<'a> {
    #[serde(borrow)]
    jsonrpc: Cow<'a, str>,
    id: Option<RequestId>,
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
}

/// Reads one line of a client.
///
/// Every request needs an ID: a request whose failure nobody would hear of is a mistake.
pub fn decode_request(line: &[u8]) -> Incoming {
    let refuse = |id, code, text: String| Incoming { id, request: Err(Failure::new(code, text)) };
    let Ok(text) = std::str::from_utf8(line) else {
        return refuse(None, ErrorCode::ParseError, "the line is not UTF-8".to_owned());
    };
    // Anything else that is JSON: serde would take a list for a request without names.
    if !text.trim_ascii_start().starts_with('{') && serde_json::from_str::<IgnoredAny>(text).is_ok()
    {
        let text = "not a request: a request is an object".to_owned();
        return refuse(None, ErrorCode::InvalidRequest, text);
    }
    let parsed: RequestLine<'_> = match serde_json::from_str(text) {
        Ok(parsed) => parsed,
        Err(error) if error.is_data() => {
            let text = format!("not a request: {}", plain(&error));
            return refuse(None, ErrorCode::InvalidRequest, text);
        }
        Err(error) => {
            let text = format!("the line is not JSON: {}", plain(&error));
            return refuse(None, ErrorCode::ParseError, text);
        }
    };
    let Some(id) = parsed.id else {
        let text = "a request needs an id; notifications are not taken".to_owned();
        return refuse(None, ErrorCode::InvalidRequest, text);
    };
    if parsed.jsonrpc != "2.0" {
        let text = "jsonrpc must be \"2.0\"".to_owned();
        return refuse(Some(id), ErrorCode::InvalidRequest, text);
    }
    let params = parsed.params.map_or("{}", RawValue::get);
    Incoming { id: Some(id), request: decode_params(&parsed.method, params) }
}

fn decode_params(method: &str, params: &str) -> Result<Request, Failure> {
    Ok(match method {
        "send" => Request::Send(typed(method, params)?),
        "ack" => Request::Ack(typed(method, params)?),
        "status" => {
            typed::<Nothing>(method, params)?;
            Request::Status {}
        }
        "authenticate" => Request::Authenticate(typed(method, params)?),
        "probe" => Request::Probe(typed(method, params)?),
        "connect" => Request::Connect(typed(method, params)?),
        "disconnect" => Request::Disconnect(typed(method, params)?),
        "forget" => Request::Forget(typed(method, params)?),
        "alias" => Request::Alias(typed(method, params)?),
        "peers" => Request::Peers(typed(method, params)?),
        "routes" => Request::Routes(typed(method, params)?),
        "ping" => Request::Ping(typed(method, params)?),
        "discover" => Request::Discover(typed(method, params)?),
        "upload_begin" => Request::UploadBegin(typed(method, params)?),
        "upload_chunk" => Request::UploadChunk(typed(method, params)?),
        "listen" => Request::Listen(typed(method, params)?),
        "remove_listener" => Request::RemoveListener(typed(method, params)?),
        "subscribe" => Request::Subscribe(typed(method, params)?),
        "unsubscribe" => Request::Unsubscribe(typed(method, params)?),
        "inbox" => Request::Inbox(typed(method, params)?),
        "outbox" => Request::Outbox(typed(method, params)?),
        "read" => Request::Read(typed(method, params)?),
        "log" => Request::Log(typed(method, params)?),
        _ => {
            let text = format!("there is no method '{}'", shown(method));
            return Err(Failure::new(ErrorCode::MethodNotFound, text));
        }
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

fn typed<T: DeserializeOwned>(method: &str, params: &str) -> Result<T, Failure> {
    if !params.starts_with('{') {
        let text = format!("the params of {method} must be an object");
        return Err(Failure::new(ErrorCode::InvalidParams, text));
    }
    serde_json::from_str(params).map_err(|error| {
        let text = format!("params of {method}: {}", plain(&error));
        Failure::new(ErrorCode::InvalidParams, text)
    })
}

/// Appends a message for a subscription as one line: an [`Event::Message`], but borrowed.
pub(super) fn encode_message(subscription: u64, message: &Message, out: &mut Vec<u8>) {
    #[derive(Serialize)]
    #[serde(tag = "method", content = "params", rename_all = "snake_case")]
    enum Borrowed<'a> {
        Message { subscription: u64, message: &'a Message },
    }
    out.extend_from_slice(b"{\"jsonrpc\":\"2.0\",");
    put_members(out, &Borrowed::Message { subscription, message });
}

/// Appends a reply or an event as one line; several messages as several.
pub fn encode_outgoing(outgoing: &Outgoing, out: &mut Vec<u8>) {
    match outgoing {
        Outgoing::Reply { id, result: Ok(result) } => {
            put(out, &ReplyLine { jsonrpc: "2.0", id: Some(id), result });
        }
        Outgoing::Reply { id, result: Err(failure) } => encode_failure(Some(id), failure, out),
        Outgoing::Event(event) => {
            out.extend_from_slice(b"{\"jsonrpc\":\"2.0\",");
            put_members(out, event);
        }
        Outgoing::Messages { subscription, messages } => {
            messages.iter().for_each(|message| encode_message(*subscription, message, out));
        }
    }
}

/// Appends an error as one line; without an ID if the request's could not be read.
pub fn encode_failure(id: Option<&RequestId>, failure: &Failure, out: &mut Vec<u8>) {
    let error = ErrorObject {
        code: failure.code.number(),
        message: Cow::Borrowed(&failure.message),
        data: ErrorData {
            code: failure.code,
            id: failure.id.as_deref().map(Cow::Borrowed),
            peer: failure.peer.as_deref().map(Cow::Borrowed),
        },
    };
    put(out, &ErrorLine { jsonrpc: "2.0", id, error });
}

/// Appends a request as one line.
pub fn encode_request(id: i64, request: &Request, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
    out.extend_from_slice(id.to_string().as_bytes());
    out.push(b',');
    put_members(out, request);
}

#[derive(Serialize)]
struct ReplyLine<'a, T> {
    jsonrpc: &'static str,
    id: Option<&'a RequestId>,
    result: T,
}

#[derive(Serialize)]
struct ErrorLine<'a> {
    jsonrpc: &'static str,
    id: Option<&'a RequestId>,
    error: ErrorObject<'a>,
}

#[derive(Serialize, Deserialize)]
struct ErrorObject<'a> {
    code: i32,
    message: Cow<'a, str>,
    data: ErrorData<'a>,
}

#[derive(Serialize, Deserialize)]
struct ErrorData<'a> {
    code: ErrorCode,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    peer: Option<Cow<'a, str>>,
}

/// A line of the server, as a client reads it.
#[derive(Debug)]
pub(super) enum ServerLine {
    /// The reply to a request of ours.
    Reply(i64, Result<Box<RawValue>, Failure>),
    /// A failure of a line that the server could not read.
    Fault(Failure),
    /// Something happened.
    Event(Event),
}

#[derive(Deserialize)]
struct AnyLine<'a> {
    id: Option<i64>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<ErrorObject<'a>>,
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
}

/// Reads one line of the server.
pub(super) fn decode_server_line(line: &[u8]) -> Result<ServerLine, String> {
    let text = std::str::from_utf8(line).map_err(|_| "a line is not UTF-8".to_owned())?;
    let line: AnyLine<'_> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if let Some(error) = line.error {
        let failure = Failure {
            code: error.data.code,
            message: error.message.into_owned(),
            id: error.data.id.map(Cow::into_owned),
            peer: error.data.peer.map(Cow::into_owned),
        };
        return Ok(match line.id {
            Some(id) => ServerLine::Reply(id, Err(failure)),
            None => ServerLine::Fault(failure),
        });
    }
    match (line.id, line.result, line.method, line.params) {
        (Some(id), Some(result), _, _) => Ok(ServerLine::Reply(id, Ok(result.to_owned()))),
        (None, None, Some(method), Some(params)) => {
            decode_event(&method, params.get()).map(ServerLine::Event)
        }
        _ => Err("a line is neither reply nor event".to_owned()),
    }
}

fn decode_event(method: &str, params: &str) -> Result<Event, String> {
    let event = match method {
        "message" => serde_json::from_str(params).map(Event::Message),
        "discovered" => serde_json::from_str(params).map(Event::Discovered),
        "link" => serde_json::from_str(params).map(Event::Link),
        "traffic" => serde_json::from_str(params).map(Event::Traffic),
        _ => return Err(format!("unknown event '{}'", shown(method))),
    };
    event.map_err(|error| error.to_string())
}

fn put(out: &mut Vec<u8>, value: &impl Serialize) {
    // Our own types have string keys and finite numbers: writing them to memory cannot fail.
    let _ = serde_json::to_writer(&mut *out, value);
    out.push(b'\n');
}

/// Appends the members of an object, without its opening brace.
fn put_members(out: &mut Vec<u8>, value: &impl Serialize) {
    let at = out.len();
    put(out, value);
    out.remove(at);
}

/// An error in serde's words, without its position: there is only one line.
fn plain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    shown(text.split(" at line ").next().unwrap_or(&text))
}

fn shown(text: &str) -> String {
    excerpt(text, SHOWN_CHARS_MAX)
}

impl Serialize for RequestId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(number) => serializer.serialize_i64(*number),
            Self::Text(text) => serializer.serialize_str(text),
        }
    }
}

impl<'de> Deserialize<'de> for RequestId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(IdVisitor)
    }
}

struct IdVisitor;

impl serde::de::Visitor<'_> for IdVisitor {
    type Value = RequestId;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an id: a whole number or a string of at most {REQUEST_ID_BYTES_MAX} bytes")
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<RequestId, E> {
        Ok(RequestId::Number(number))
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<RequestId, E> {
        let unexpected = || E::invalid_value(serde::de::Unexpected::Unsigned(number), &self);
        i64::try_from(number).map(RequestId::Number).map_err(|_| unexpected())
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<RequestId, E> {
        if text.len() > REQUEST_ID_BYTES_MAX {
            return Err(E::invalid_length(text.len(), &self));
        }
        Ok(RequestId::Text(text.into()))
    }
}
