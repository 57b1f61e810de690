//! TCP.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use aioxide_driver::{Op, sys};
use socket2::{Domain, Protocol, SockRef, TcpKeepalive, Type};

use super::socket::Socket;
use super::stream::Stream;
use crate::handle::Handle;
use crate::operation::{Operation, finished};

/// A TCP connection. Small writes leave at once (`TCP_NODELAY`), as in asyncio.
pub type TcpStream = Stream<StdStream>;

impl TcpStream {
    /// Connects to one address. For a host name, see [`connect`](super::connect()).
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        let handle = Handle::current();
        let kind = Type::STREAM.nonblocking().cloexec();
        let socket = socket2::Socket::new_raw(Domain::for_address(address), kind, Some(Protocol::TCP))?;
        let op = Op::Connect { socket: socket.as_raw_fd(), address: Box::new(address.into()) };
        // The operation ends before the socket is closed: locals are dropped in reverse order.
        finished(Operation::submit(&handle, op).await)?;
        socket.set_tcp_nodelay(true)?;
        Self::from_std(socket.into())
    }

    /// Has the kernel probe a peer that was silent for `idle`, every `interval`, and end the connection after `probes`
    /// probes without an answer (tcp(7), `SO_KEEPALIVE`).
    pub fn set_keep_alive(&self, idle: Duration, interval: Duration, probes: u32) -> io::Result<()> {
        let keep_alive = TcpKeepalive::new().with_time(idle).with_interval(interval).with_retries(probes);
        SockRef::from(&self.socket.std).set_tcp_keepalive(&keep_alive)
    }

    /// Our address.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.std.local_addr()
    }

    /// The peer's address.
    pub fn peer_address(&self) -> io::Result<SocketAddr> {
        self.socket.std.peer_addr()
    }
}

/// Accepts TCP connections.
#[derive(Debug)]
pub struct TcpListener {
    socket: Socket<StdListener>,
}

impl TcpListener {
    /// Listens at an address; port 0 picks a free one. The address may be used again soon after
    /// (`SO_REUSEADDR`).
    ///
    /// # Panics
    /// Outside of a runtime.
    #[track_caller]
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        Self::from_std(StdListener::bind(address)?)
    }

    /// Takes a listening socket of std's into the current runtime.
    #[track_caller]
    pub fn from_std(listener: StdListener) -> io::Result<Self> {
        Ok(Self { socket: Socket::new(listener)? })
    }

    /// Waits for a connection. No connection is lost if the future is dropped. After an error such as
    /// EMFILE the listener still listens.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, address) = self.socket.when_readable(|listener| retry(|| listener.accept())).await?;
        stream.set_nodelay(true)?;
        Ok((TcpStream::from_std(stream)?, address))
    }

    /// Where it listens.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.std.local_addr()
    }
}

impl AsFd for TcpListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.std.as_fd()
    }
}

/// A connection that died in the backlog fails `accept(2)`; the next one may be well.
pub(super) fn retry<R>(mut accept: impl FnMut() -> io::Result<R>) -> io::Result<R> {
    loop {
        match accept() {
            Err(error) if sys::is_lost_connection(&error) => {}
            result => return result,
        }
    }
}
