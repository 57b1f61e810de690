//! Redis for Rust futures on one thread.
//!
//! Built in rings; an outer one may know the inner ones, never the reverse. The innermost, [`proto`], is the
//! protocol by itself: bytes in, replies out, with neither sockets nor clocks.
#![forbid(unsafe_code)]

pub mod proto;
