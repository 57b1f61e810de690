//! The Redis protocol, RESP2 and RESP3, without IO.
//!
//! Commands are written into a buffer ([`encoder`], or a [`Command`] of their own). What the server sends
//! goes through a [`Decoder`], in pieces of any size, which hands it to a [`ReplyBuilder`]: the same decoder
//! makes Rust [`Value`]s and whatever another language needs, with nothing in between.
//!
//! ```
//! use aioxide_redis::proto::{Command, Decoded, Decoder, Limits, Value, ValueBuilder};
//!
//! let mut output = Vec::new();
//! Command::new("SET").arg("key").arg(1).encode_into(&mut output);
//! assert_eq!(output, b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$1\r\n1\r\n");
//!
//! let mut decoder = Decoder::new(Limits::default());
//! let mut builder = ValueBuilder::default();
//! let mut input: &[u8] = b"+OK\r\n$5\r\nhel";
//! let reply = decoder.decode(&mut input, &mut builder)?;
//! assert_eq!(reply, Some(Decoded::Reply(Value::SimpleString(b"OK".into()))));
//! // The second reply is not all there: what is left of the input is given again, with more behind it.
//! assert_eq!(decoder.decode(&mut input, &mut builder)?, None);
//! assert_eq!(input, b"$5\r\nhel");
//! assert_eq!(decoder.wanted(), b"$5\r\nhello\r\n".len());
//! # Ok::<(), aioxide_redis::proto::ProtocolError>(())
//! ```
//!
//! # Invariants
//! - Nothing here reads a clock, waits, or knows what a socket is; `tests/test_layering.py` reads the imports.

mod command;
mod conversion;
mod decoder;
pub mod encoder;
mod error;
mod parse;
mod reply;
mod slot;
mod value;

pub use command::{Argument, Command};
pub use conversion::{ConversionError, FromValue};
pub use decoder::{Decoded, Decoder, Limits};
pub use error::{ProtocolError, ServerError};
pub use reply::ReplyBuilder;
pub use slot::{SLOTS, slot};
pub use value::{Attributed, Value, ValueBuilder};
