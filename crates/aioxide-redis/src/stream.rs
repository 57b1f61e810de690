//! A connected stream of any kind.

use std::io;
use std::net::TcpStream as StdTcpStream;

use aioxide_runtime::net::tls::TlsStream;
use aioxide_runtime::net::{TcpStream, UnixStream, connect};

use crate::Error;
use crate::config::{Address, Config};

/// A connected stream. One task reads and writes at the same time.
pub(crate) enum Stream {
    Tcp(TcpStream),
    Tls(Box<TlsStream<StdTcpStream>>),
    Unix(UnixStream),
}

impl Stream {
    /// Connects to where `config` says.
    pub(crate) async fn connect(config: &Config) -> Result<Self, Error> {
        match &config.address {
            Address::Tcp { host, port } => {
                let stream = connect(host, *port).await?;
                if let Some(keep) = config.keep_alive {
                    stream.set_keep_alive(keep.idle, keep.interval, keep.probes)?;
                }
                let Some(tls) = &config.tls else { return Ok(Self::Tcp(stream)) };
                let secured = tls.connect(host, stream).await.map_err(|error| match error.kind() {
                    // Whom we do not trust, or who does not trust us; another attempt would end alike.
                    io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => Error::Tls(error),
                    _ => error.into(),
                });
                Ok(Self::Tls(Box::new(secured?)))
            }
            Address::Unix(path) => Ok(UnixStream::connect(path).map(Self::Unix)?),
        }
    }

    /// Reads what is there, at least one byte; zero at the end.
    pub(crate) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer).await,
            Self::Tls(stream) => stream.read(buffer).await,
            Self::Unix(stream) => stream.read(buffer).await,
        }
    }

    /// Writes what fits now, at least one byte.
    pub(crate) async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes).await,
            Self::Tls(stream) => stream.write(bytes).await,
            Self::Unix(stream) => stream.write(bytes).await,
        }
    }

    /// Writes everything.
    pub(crate) async fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(bytes).await,
            Self::Tls(stream) => stream.write_all(bytes).await,
            Self::Unix(stream) => stream.write_all(bytes).await,
        }
    }
}
