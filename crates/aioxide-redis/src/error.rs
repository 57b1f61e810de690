//! What can go wrong, by whose fault.

use std::fmt;
use std::io;

use crate::connection::receiver::Role;
use crate::proto::{ConversionError, ProtocolError, ServerError};

/// Why there is no reply.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// No connection could be made, or the network ended it. The command did not run if `may_have_run` is false.
    Network {
        /// What the system said; shared by all whom it concerns.
        source: io::Error,
        /// Whether the server can have received the command.
        may_have_run: bool,
    },
    /// The server said nothing for as long as it may take.
    Timeout {
        /// What took too long, in words.
        what: &'static str,
        /// Whether the server can have received the command.
        may_have_run: bool,
    },
    /// The server broke the protocol.
    Protocol(ProtocolError),
    /// The server answered with an error.
    Server(ServerError),
    /// The server refused us while the connection was set up: credentials, database, protocol version.
    Refused(ServerError),
    /// Nobody knows a server that is what is wanted, or the one that was found is something else by now.
    NotFound {
        /// What is wanted.
        role: Role,
    },
    /// TLS could not be set up, or the server is not who it should be.
    Tls(io::Error),
    /// The client was closed, here.
    Closed,
    /// The reply is of another kind than was asked for.
    UnexpectedReply(ConversionError),
    /// The arguments make no sense; nothing was sent.
    Misuse(String),
}

impl Error {
    /// The same error for somebody else; `may_have_run` as it is for them.
    #[must_use]
    pub fn share(&self, may_have_run: bool) -> Self {
        match self {
            Self::Network { source, .. } => Self::Network { source: share(source), may_have_run },
            Self::Timeout { what, .. } => Self::Timeout { what, may_have_run },
            Self::Protocol(error) => Self::Protocol(*error),
            Self::Server(error) => Self::Server(error.clone()),
            Self::Refused(error) => Self::Refused(error.clone()),
            Self::NotFound { role } => Self::NotFound { role: *role },
            Self::Tls(error) => Self::Tls(share(error)),
            Self::Closed => Self::Closed,
            Self::UnexpectedReply(error) => Self::UnexpectedReply(error.clone()),
            Self::Misuse(text) => Self::Misuse(text.clone()),
        }
    }

    /// Whether another attempt to connect can end better.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Network { .. } | Self::Timeout { .. } | Self::NotFound { .. } => true,
            Self::Refused(error) => matches!(error.code(), "LOADING" | "MASTERDOWN" | "TRYAGAIN"),
            _ => false,
        }
    }
}

/// An `io::Error` cannot be cloned; errno, or kind and text, can.
fn share(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(errno) => io::Error::from_raw_os_error(errno),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

impl From<io::Error> for Error {
    fn from(source: io::Error) -> Self {
        Self::Network { source, may_have_run: false }
    }
}

impl From<ProtocolError> for Error {
    fn from(error: ProtocolError) -> Self {
        Self::Protocol(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network { source, .. } => write!(formatter, "connection to Redis: {source}"),
            Self::Timeout { what, .. } => write!(formatter, "timed out: {what}"),
            Self::Protocol(error) => write!(formatter, "Redis broke the protocol: {error}"),
            Self::Server(error) | Self::Refused(error) => error.fmt(formatter),
            Self::NotFound { role: Role::Master } => formatter.write_str("no master was found"),
            Self::NotFound { role: Role::Replica } => formatter.write_str("no replica was found"),
            Self::Tls(error) => write!(formatter, "TLS: {error}"),
            Self::Closed => formatter.write_str("the client is closed"),
            Self::UnexpectedReply(error) => error.fmt(formatter),
            Self::Misuse(text) => formatter.write_str(text),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Network { source, .. } | Self::Tls(source) => Some(source),
            Self::Protocol(error) => Some(error),
            Self::Server(error) | Self::Refused(error) => Some(error),
            Self::UnexpectedReply(error) => Some(error),
            _ => None,
        }
    }
}
