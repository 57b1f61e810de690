//! Unix stream sockets.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{SocketAddr, UnixListener as StdListener, UnixStream as StdStream};
use std::path::Path;

use socket2::{Domain, SockAddr, Type};

use super::socket::Socket;
use super::stream::Stream;
use super::tcp::retry;

/// A Unix stream connection.
pub type UnixStream = Stream<StdStream>;

impl UnixStream {
    /// Connects to a path. It never waits: unix(7) sockets connect at once, or fail with EAGAIN
    /// ([`WouldBlock`](io::ErrorKind::WouldBlock)) if the listener's backlog is full.
    ///
    /// # Panics
    /// Outside of a runtime.
    #[track_caller]
    pub fn connect(path: impl AsRef<Path>) -> io::Result<Self> {
        let socket = socket2::Socket::new_raw(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
        socket.connect(&SockAddr::unix(path)?)?;
        Self::from_std(socket.into())
    }

    /// Two streams that are connected to each other.
    #[track_caller]
    pub fn pair() -> io::Result<(Self, Self)> {
        let (near, far) = StdStream::pair()?;
        Ok((Self::from_std(near)?, Self::from_std(far)?))
    }
}

/// Accepts Unix stream connections. The path stays when it is dropped, as with `bind(2)`.
#[derive(Debug)]
pub struct UnixListener {
    socket: Socket<StdListener>,
}

impl UnixListener {
    /// Listens at a path that does not exist yet.
    ///
    /// # Panics
    /// Outside of a runtime.
    #[track_caller]
    pub fn bind(path: impl AsRef<Path>) -> io::Result<Self> {
        Ok(Self { socket: Socket::new(StdListener::bind(path)?)? })
    }

    /// Waits for a connection. No connection is lost if the future is dropped.
    pub async fn accept(&self) -> io::Result<UnixStream> {
        let accepted = self.socket.when_readable(|listener| retry(|| listener.accept())).await?;
        UnixStream::from_std(accepted.0)
    }

    /// Where it listens.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.std.local_addr()
    }
}

impl AsFd for UnixListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.std.as_fd()
    }
}
