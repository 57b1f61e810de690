//! The driver's contract, clause by clause, on every backend.
//!
//! A test names the clauses of the crate's docs that it pins. Sockets are real, ports are the
//! kernel's choice, and nothing sleeps: a test waits for completions, or for a wait to return.
#![cfg(not(loom))]
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test panics, looks at the clock and starts threads"
)]

mod accept;
mod cancel;
mod choice;
mod connect;
mod datagram;
mod drop;
mod harness;
mod hints;
mod interleaving;
mod limits;
mod readiness;
mod stream;
mod threads;
mod wake;
