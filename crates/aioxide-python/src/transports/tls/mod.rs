//! TLS over any stream transport, by Python's own `ssl` objects (asyncio docs, "TLS"; CPython `asyncio/sslproto.py`
//! has the behaviour).
//!
//! ```text
//!   the user's protocol
//!        │ data_received            ▲ write
//!   TlsTransport   backlog of plain text, water marks, state   transport.rs, handshake.rs, reading.rs,
//!        │                                                     writing.rs, shutdown.rs
//!   Engine         an `ssl.SSLObject`, read and written         engine.rs, choice.rs
//!        │          by Python's objects                        memory_bio.rs, scratch.rs
//!        │          or by the OpenSSL inside them              direct.rs
//!        │ feed                     │ take_outgoing
//!   Lower          a StreamTransport, or any transport          lower.rs
//! ```
//!
//! One object is both: the transport that the user sees, and the protocol of the transport below. A user's
//! `SSLContext` means what it was configured to mean, on every build of Python.

mod choice;
mod direct;
mod engine;
mod handshake;
mod lower;
mod memory_bio;
mod reading;
pub mod scratch;
mod shutdown;
pub mod transport;
mod writing;

pub use self::choice::describe;
