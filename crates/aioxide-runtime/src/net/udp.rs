//! UDP.

use std::io;
use std::net::{SocketAddr, UdpSocket as StdSocket};
use std::os::fd::{AsFd, BorrowedFd};

use super::socket::Socket;

/// A UDP socket. No datagram is lost or sent twice if a future is dropped.
///
/// ```
/// use aioxide_runtime::net::UdpSocket;
///
/// aioxide_runtime::run(async {
///     let near = UdpSocket::bind(([127, 0, 0, 1], 0).into())?;
///     let far = UdpSocket::bind(([127, 0, 0, 1], 0).into())?;
///     near.send_to(b"hello", far.local_address()?).await?;
///     let mut buffer = [0; 16];
///     let (length, source) = far.receive_from(&mut buffer).await?;
///     assert_eq!((&buffer[..length], source), (&b"hello"[..], near.local_address()?));
///     std::io::Result::Ok(())
/// })??;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct UdpSocket {
    socket: Socket<StdSocket>,
}

impl UdpSocket {
    /// Binds an address; port 0 picks a free one.
    ///
    /// # Panics
    /// Outside of a runtime.
    #[track_caller]
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        Ok(Self { socket: Socket::new(StdSocket::bind(address)?)? })
    }

    /// Fixes the peer for [`send`](Self::send) and [`receive`](Self::receive). Nothing is sent.
    pub fn connect(&self, peer: SocketAddr) -> io::Result<()> {
        self.socket.std.connect(peer)
    }

    /// Sends one datagram to the connected peer.
    pub async fn send(&self, datagram: &[u8]) -> io::Result<usize> {
        self.socket.when_writable(|socket| socket.send(datagram)).await
    }

    /// Sends one datagram.
    pub async fn send_to(&self, datagram: &[u8], destination: SocketAddr) -> io::Result<usize> {
        self.socket.when_writable(|socket| socket.send_to(datagram, destination)).await
    }

    /// Receives one datagram; what does not fit into `buffer` is cut off.
    pub async fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.when_readable(|socket| socket.recv(buffer)).await
    }

    /// Receives one datagram and tells who sent it.
    pub async fn receive_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.socket.when_readable(|socket| socket.recv_from(buffer)).await
    }

    /// Our address.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.std.local_addr()
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.std.as_fd()
    }
}
