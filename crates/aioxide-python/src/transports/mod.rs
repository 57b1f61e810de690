//! Transports: what carries a protocol's bytes.
//!
//! `datagram` serves what keeps message borders, UDP first of all.
//! `stream` serves TCP and Unix sockets and both ends of pipes; how they differ is written in [`stream::Kind`].
//! `tls` is both a protocol of such a transport and a transport itself.

pub mod clients;
mod closing;
pub mod datagram;
mod delivery;
mod descriptor;
pub mod event_context;
mod extra;
mod flow_control;
mod lifetime;
pub mod methods;
mod protocol;
mod rare_queue;
mod reading;
pub mod scratch;
mod sendfile;
pub mod spare_buffers;
pub mod stream;
mod streams;
pub mod tls;
mod write_queue;
mod writing;
