//! Redis for Rust futures on one thread.
//!
//! Built in rings; an outer one may know the inner ones, never the reverse. The innermost, [`proto`], is the
//! protocol by itself: bytes in, replies out, with neither sockets nor clocks. A [`connection`] is one task that keeps
//! one connection alive for many callers. [`Client`] is what a program uses.
#![forbid(unsafe_code)]

mod backoff;
mod client;
pub mod config;
pub mod connection;
mod error;
pub mod proto;
mod sentinel;
mod signal;
mod stream;

pub use backoff::Backoff;
pub use client::Client;
pub use config::Config;
pub use connection::receiver::Role;
pub use error::Error;
pub use proto::{Command, FromValue, Value};
pub use sentinel::Sentinel;
