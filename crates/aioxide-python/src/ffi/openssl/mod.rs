//! The OpenSSL that Python's `_ssl` is linked with, called directly on the sessions that Python's objects own.
//!
//! Nothing here knows how CPython lays out its structures: `library.rs` finds the functions of the very copy of OpenSSL
//! that `_ssl` is bound to, `created.rs` learns from OpenSSL itself which session Python made, `pipe.rs` is what a
//! session reads from and writes to, `session.rs` reads and writes. All of it is OpenSSL's documented interface.

mod created;
mod library;
mod pipe;
mod session;

pub use self::library::Library;
pub use self::session::{Outcome, Session};
