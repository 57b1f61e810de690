//! What can be wrong: with the bytes of the protocol, or with a command, as the server says.

use std::fmt::{self, Display, Formatter};

/// The bytes are not the Redis protocol, or more than the [limits](super::Limits) allow. The connection has lost
/// its place in the stream of replies and is of no further use.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ProtocolError {
    /// No type of reply begins with this byte.
    UnknownType(u8),
    /// A length that is no number, or a negative one where that means nothing.
    InvalidLength,
    /// `_` with something behind it.
    InvalidNull,
    /// Neither `t` nor `f`.
    InvalidBoolean,
    /// An integer that is no number or does not fit into 64 bits.
    InvalidInteger,
    /// A double that is no number.
    InvalidDouble,
    /// A big number that is no number.
    InvalidBigNumber,
    /// A verbatim string without its format.
    InvalidVerbatimString,
    /// The bytes of a string are not followed by an end of line.
    MissingEndOfLine,
    /// Something else where the next chunk of a streamed string belongs.
    MissingChunk,
    /// A chunk outside of a streamed string.
    UnexpectedChunk,
    /// The end of a streamed aggregate where none is open, or between a key and its value.
    UnexpectedEnd,
    /// A push inside of a reply.
    UnexpectedPush,
    /// Aggregates in aggregates, deeper than [`depth`](super::Limits::depth).
    TooDeep,
    /// A string longer than [`bulk_bytes`](super::Limits::bulk_bytes).
    TooLong,
    /// A reply with more parts than [`items`](super::Limits::items).
    TooManyItems,
}

impl Display for ProtocolError {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::UnknownType(marker) => {
                return write!(formatter, "no reply begins with \"{}\"", marker.escape_ascii());
            }
            Self::InvalidLength => "a length is not a number",
            Self::InvalidNull => "a null carries something",
            Self::InvalidBoolean => "a boolean is neither true nor false",
            Self::InvalidInteger => "an integer is not a number of 64 bits",
            Self::InvalidDouble => "a double is not a number",
            Self::InvalidBigNumber => "a big number is not a number",
            Self::InvalidVerbatimString => "a verbatim string has no format",
            Self::MissingEndOfLine => "a string does not end where it says",
            Self::MissingChunk => "a streamed string is interrupted",
            Self::UnexpectedChunk => "a chunk belongs to no streamed string",
            Self::UnexpectedEnd => "nothing is open that could end here",
            Self::UnexpectedPush => "a push is inside of a reply",
            Self::TooDeep => "a reply is nested too deeply",
            Self::TooLong => "a string is too long",
            Self::TooManyItems => "a reply has too many items",
        };
        formatter.write_str(text)
    }
}

impl std::error::Error for ProtocolError {}

/// An error that the server replied with. The connection is well.
///
/// ```
/// use aioxide_redis::proto::ServerError;
///
/// let error = ServerError::new(b"WRONGTYPE Operation against a key holding the wrong kind of value");
/// assert_eq!(error.code(), "WRONGTYPE");
/// assert_eq!(error.message(), "Operation against a key holding the wrong kind of value");
/// ```
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct ServerError {
    text: Box<str>,
}

impl ServerError {
    /// Takes the text of an error reply, without the marker. What is not UTF-8 is replaced.
    pub fn new(text: &[u8]) -> Self {
        Self { text: String::from_utf8_lossy(text).into() }
    }

    /// All that the server said.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The first word, which tells programs what is wrong: `ERR`, `WRONGTYPE`, `MOVED`.
    pub fn code(&self) -> &str {
        self.text.split(' ').next().unwrap_or_default()
    }

    /// What follows the first word, which tells people.
    pub fn message(&self) -> &str {
        self.text.split_once(' ').map_or("", |(_, message)| message)
    }
}

impl Display for ServerError {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl std::error::Error for ServerError {}
