//! Why a run yields no result, in words for the cell of a table.

use std::fmt;
use std::io;

/// Everything that ends a run without a result.
#[derive(Debug)]
pub enum Failure {
    /// The web server's answer is not the one that is expected.
    Answer(String),
    /// The command line makes no sense.
    Arguments(String),
    /// The server closed a connection that was still owed bytes.
    Closed { connection: usize, missing: u64 },
    /// The operating system refused something.
    Io(io::Error),
    /// The server sent a byte nobody had sent to it, or sent it in the wrong place.
    Mismatch { connection: usize, position: u64 },
    /// No byte arrived for a long time although messages are in flight.
    Stalled { in_flight: usize },
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer(problem) | Self::Arguments(problem) => write!(out, "{problem}"),
            Self::Closed { connection, missing } => {
                write!(out, "the server closed connection {connection} with {missing} bytes still to come")
            }
            Self::Io(error) => write!(out, "{error}"),
            Self::Mismatch { connection, position } => {
                write!(out, "connection {connection}: the echo differs from what was sent at byte {position}")
            }
            Self::Stalled { in_flight } => {
                write!(out, "the server stopped answering with {in_flight} messages in flight")
            }
        }
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            Self::Answer(_)
            | Self::Arguments(_)
            | Self::Closed { .. }
            | Self::Mismatch { .. }
            | Self::Stalled { .. } => None,
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<rustix::io::Errno> for Failure {
    fn from(error: rustix::io::Errno) -> Self {
        Self::Io(error.into())
    }
}
