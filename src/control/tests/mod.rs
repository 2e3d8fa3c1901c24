//! The control protocol's two ends, against each other and against what does not speak it.

mod codec;
mod server;
mod socket;
