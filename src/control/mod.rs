//! The control protocol: JSON-RPC 2.0, one object a line, over any byte stream.

pub mod protocol;
