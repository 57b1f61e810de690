//! What the bytes go through: one non-blocking interface for every kind of connection.
//!
//! # Invariants
//! - After `read` or `write` said `WouldBlock`, the kernel tells with a new edge when to try again.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::arguments::{Address, Arguments, Transport};

/// How to open connections: decided once, used for each of them.
#[derive(Debug)]
pub struct Dialer {
    address: Address,
    datagrams: bool,
    tls: Option<Arc<ClientConfig>>,
}

impl Dialer {
    /// Prepares for the transport that was asked for; reads the certificate of the authority for TLS.
    pub fn new(arguments: &Arguments) -> io::Result<Self> {
        let tls = match (&arguments.transport, &arguments.authority) {
            (Transport::Tls, Some(authority)) => Some(Arc::new(trusting(&fs::read(authority)?)?)),
            _ => None,
        };
        Ok(Self {
            address: arguments.address.clone(),
            datagrams: arguments.transport == Transport::Datagrams,
            tls,
        })
    }

    /// Connects, with the handshake of TLS, then makes the socket non-blocking.
    pub fn open(&self) -> io::Result<Socket> {
        match &self.address {
            Address::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_nonblocking(true)?;
                Ok(Socket::Unix(stream))
            }
            Address::Internet(address) if self.datagrams => {
                let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
                socket.connect(address)?;
                socket.set_nonblocking(true)?;
                Ok(Socket::Datagrams(socket))
            }
            Address::Internet(address) => {
                let mut stream = TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                let Some(config) = &self.tls else {
                    stream.set_nonblocking(true)?;
                    return Ok(Socket::Stream(stream));
                };
                let name = ServerName::from(address.ip());
                let mut session =
                    ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
                while session.is_handshaking() {
                    session.complete_io(&mut stream)?;
                }
                stream.set_nonblocking(true)?;
                Ok(Socket::Tls(Box::new(Tls { session, stream })))
            }
        }
    }
}

/// Trusts the authorities of a PEM file and nobody else.
fn trusting(pem: &[u8]) -> io::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(io::Error::other)?;
        roots.add(certificate).map_err(io::Error::other)?;
    }
    Ok(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

/// A connected socket, or what looks like one.
#[derive(Debug)]
pub enum Socket {
    Stream(TcpStream),
    Unix(UnixStream),
    Tls(Box<Tls>),
    Datagrams(UdpSocket),
}

impl Socket {
    /// Reads what is there; zero bytes are the end.
    pub fn read(&mut self, memory: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Stream(stream) => stream.read(memory),
            Self::Unix(stream) => stream.read(memory),
            Self::Tls(tls) => tls.read(memory),
            Self::Datagrams(socket) => socket.recv(memory),
        }
    }

    /// Writes what fits. With TLS the ciphertext may stay here until [`flush`](Self::flush).
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stream(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
            Self::Tls(tls) => tls.write(bytes),
            Self::Datagrams(socket) => socket.send(bytes),
        }
    }

    /// Sends what an earlier `write` kept, as far as it fits.
    pub fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tls(tls) => tls.flush(),
            Self::Stream(_) | Self::Unix(_) | Self::Datagrams(_) => Ok(()),
        }
    }

    /// Whether each message is a unit of its own.
    pub fn has_boundaries(&self) -> bool {
        matches!(self, Self::Datagrams(_))
    }

    /// Whether a read that did not fill its memory has emptied the socket: epoll(7) says so of streams,
    /// and that the next byte brings a new edge. What rustls returns are records.
    pub fn is_empty_after_short_read(&self) -> bool {
        matches!(self, Self::Stream(_) | Self::Unix(_))
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Stream(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
            Self::Tls(tls) => tls.stream.as_fd(),
            Self::Datagrams(socket) => socket.as_fd(),
        }
    }
}

/// A stream that is enciphered on its way.
#[derive(Debug)]
pub struct Tls {
    session: ClientConnection,
    stream: TcpStream,
}

impl Tls {
    fn read(&mut self, memory: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.session.reader().read(memory) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                result => return result,
            }
            if self.session.read_tls(&mut self.stream)? == 0 {
                return Ok(0);
            }
            self.session.process_new_packets().map_err(io::Error::other)?;
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.flush()?;
        let count = self.session.writer().write(bytes)?;
        match self.flush() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(count),
            result => result.map(|()| count),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            self.session.write_tls(&mut self.stream)?;
        }
        Ok(())
    }
}
