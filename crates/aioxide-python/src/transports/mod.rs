//! Transports: what carries a protocol's bytes.
//!
//! `stream` serves TCP and Unix sockets and both ends of pipes; how they differ is written in [`stream::Kind`].

mod descriptor;
mod extra;
mod flow_control;
mod protocol;
mod reading;
pub mod scratch;
pub mod stream;
mod write_queue;
mod writing;
