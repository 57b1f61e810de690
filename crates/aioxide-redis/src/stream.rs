//! A connected stream of any kind.

use std::io;

use aioxide_runtime::net::{TcpStream, UnixStream, connect};

use crate::config::{Address, Config};

/// TLS settings.
#[derive(Clone, Debug)]
pub struct Tls {}

/// A connected stream. One task reads and writes at the same time.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// Connects to where `config` says.
    pub(crate) async fn connect(config: &Config) -> io::Result<Self> {
        match &config.address {
            Address::Tcp { host, port } => {
                let stream = connect(host, *port).await?;
                if let Some(keep) = config.keep_alive {
                    stream.set_keep_alive(keep.idle, keep.interval, keep.probes)?;
                }
                Ok(Self::Tcp(stream))
            }
            Address::Unix(path) => UnixStream::connect(path).map(Self::Unix),
        }
    }

    /// Reads what is there, at least one byte; zero at the end.
    pub(crate) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer).await,
            Self::Unix(stream) => stream.read(buffer).await,
        }
    }

    /// Writes what fits now, at least one byte.
    pub(crate) async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes).await,
            Self::Unix(stream) => stream.write(bytes).await,
        }
    }

    /// Writes everything.
    pub(crate) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.write(bytes).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                count => bytes = &bytes[count..],
            }
        }
        Ok(())
    }
}
