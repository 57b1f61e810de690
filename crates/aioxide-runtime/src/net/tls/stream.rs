//! TLS over a connected stream.
//!
//! The session is rustls', without IO. What it wants to send is handed to the socket by a single call that
//! does not wait, under the session's borrow, so records leave whole and in order whoever sends them, and a
//! future that is dropped has taken nothing along.
//!
//! # Invariants
//! - No borrow of the session is held while a future waits.
//! - Bytes are given to the session in the order in which they were received.
//! - Reading never waits for the peer to read: what the session answers by itself (a new key) is sent beside it.

use std::cell::RefCell;
use std::fmt::{self, Debug, Formatter};
use std::future::{Future, poll_fn};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::pin;
use std::task::Poll;

use rustls::ClientConnection;

use super::super::stream::{Stream, drain, fill, pour};
use super::connector::invalid;

/// A connected stream that speaks TLS. Dropping it tells the peer and closes the connection.
///
/// Both directions work at the same time, from one task that polls a future of each or from two tasks that
/// share it with `Rc`: one reader and one writer at a time.
pub struct TlsStream<S>
where
    S: AsFd,
    for<'socket> &'socket S: Read + Write,
{
    stream: Stream<S>,
    session: RefCell<Session>,
}

struct Session {
    connection: ClientConnection,
    received: Received,
    /// Why it cannot go on, once what came before has been read.
    failure: Option<rustls::Error>,
    /// Whether we have told the peer that nothing more comes.
    is_shut_down: bool,
}

/// Bytes of the socket that the session has not seen yet.
struct Received {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
    /// The peer has ended its direction.
    is_at_end: bool,
}

impl<S> TlsStream<S>
where
    S: AsFd,
    for<'socket> &'socket S: Read + Write,
{
    pub(super) fn new(stream: Stream<S>, connection: ClientConnection) -> Self {
        let received =
            Received { bytes: vec![0; RECEIVED_SIZE].into_boxed_slice(), start: 0, end: 0, is_at_end: false };
        let session = Session { connection, received, failure: None, is_shut_down: false };
        Self { stream, session: RefCell::new(session) }
    }

    /// Agrees with the peer on keys.
    pub(super) async fn handshake(&self) -> io::Result<()> {
        loop {
            self.flush().await?;
            let is_fed = {
                let session = &mut *self.session.borrow_mut();
                if let Some(failure) = &session.failure {
                    return Err(invalid(failure.clone()));
                }
                if !session.connection.is_handshaking() {
                    return Ok(());
                }
                session.feed(&self.stream)?
            };
            if !is_fed {
                self.receive().await?;
            }
        }
    }

    /// Reads what is there, at most `buffer` full, at least one byte; zero means that the peer has ended its
    /// direction. Nothing is lost if the future is dropped.
    ///
    /// # Errors
    /// [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) if the connection ended without the peer having said
    /// so: somebody may have cut it. [`InvalidData`](io::ErrorKind::InvalidData), around rustls' error, if
    /// what came is not what the peer sent, or is the peer's alert.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let result = self.session.borrow_mut().read(buffer, &self.stream);
            match result {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.receive().await?,
                result => return result,
            }
        }
    }

    /// Fills `buffer`, or fails with [`UnexpectedEof`](io::ErrorKind::UnexpectedEof). What was read is lost
    /// if the future is dropped.
    pub async fn read_exact(&self, buffer: &mut [u8]) -> io::Result<()> {
        fill(buffer, async |room| self.read(room).await).await
    }

    /// Appends everything to `contents` until the peer ends its direction. What was read so far stays there
    /// if the future is dropped.
    pub async fn read_to_end(&self, contents: &mut Vec<u8>) -> io::Result<usize> {
        drain(contents, async |room| self.read(room).await).await
    }

    /// Writes as much as is encrypted at once, at least one byte unless `bytes` is empty, and waits until the
    /// kernel has it.
    ///
    /// If the future is dropped while it waits, some of the bytes may have been written, whole records; the
    /// rest of those that were encrypted leaves with the next [`write`](Self::write) or
    /// [`flush`](Self::flush).
    pub async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let count = loop {
            let accepted = self.session.borrow_mut().write(bytes)?;
            if accepted > 0 {
                break accepted;
            }
            // As much as it may hold waits to be sent.
            self.flush().await?;
        };
        self.flush().await?;
        Ok(count)
    }

    /// Writes everything. Some of it may have been written if the future is dropped.
    pub async fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        pour(bytes, async |rest| self.write(rest).await).await
    }

    /// Waits until the kernel has everything that was encrypted: only needed after a write that was dropped.
    pub async fn flush(&self) -> io::Result<()> {
        while self.session.borrow().connection.wants_write() {
            self.stream.socket.when_writable(|socket| self.session.borrow_mut().send(socket)).await?;
        }
        Ok(())
    }

    /// Ends our direction: tells the peer that nothing more comes (`close_notify`), so that it can tell the
    /// end from a cut. Reading goes on.
    pub async fn shutdown(&self) -> io::Result<()> {
        self.session.borrow_mut().shut_down();
        self.flush().await
    }

    /// The protocol that was agreed on, if both sides named any (ALPN).
    pub fn application_protocol(&self) -> Option<Vec<u8>> {
        self.session.borrow().connection.alpn_protocol().map(<[u8]>::to_vec)
    }

    /// The stream below, for its addresses and options: bytes read from it or written to it are lost to TLS.
    pub fn stream(&self) -> &Stream<S> {
        &self.stream
    }

    /// Waits for bytes of the peer, and sends meanwhile what the session has to say.
    async fn receive(&self) -> io::Result<()> {
        let receiving = self.stream.socket.when_readable(|socket| {
            if self.session.borrow_mut().received.fill(socket)? {
                self.stream.socket.note_drained();
            }
            Ok(())
        });
        if !self.session.borrow().connection.wants_write() {
            return receiving.await;
        }
        let mut receiving = pin!(receiving);
        let mut flushing = pin!(self.flush());
        let mut is_flushed = false;
        poll_fn(|context| {
            if !is_flushed {
                match flushing.as_mut().poll(context) {
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Ready(Ok(())) => is_flushed = true,
                    Poll::Pending => {}
                }
            }
            receiving.as_mut().poll(context)
        })
        .await
    }
}

impl Session {
    /// Plaintext, or `WouldBlock` if more must be received first.
    fn read<S>(&mut self, buffer: &mut [u8], stream: &Stream<S>) -> io::Result<usize>
    where
        for<'socket> &'socket S: Write,
    {
        loop {
            match self.connection.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // What is wrong may have come behind what is well: that is read first.
                    if let Some(failure) = &self.failure {
                        return Err(invalid(failure.clone()));
                    }
                    if !self.feed(stream)? {
                        return Err(error);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(io::Error::new(error.kind(), "the TLS connection was cut"));
                }
                result => return result,
            }
        }
    }

    /// Gives received bytes to the session: whether there were any.
    fn feed<S>(&mut self, stream: &Stream<S>) -> io::Result<bool>
    where
        for<'socket> &'socket S: Write,
    {
        let received = &mut self.received;
        let mut bytes = &received.bytes[received.start..received.end];
        if bytes.is_empty() && !received.is_at_end {
            return Ok(false);
        }
        let count = self.connection.read_tls(&mut bytes)?;
        received.start += count;
        match self.connection.process_new_packets() {
            Ok(_) if count == 0 && self.connection.is_handshaking() => {
                let text = "the connection was closed during the TLS handshake";
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, text))
            }
            Ok(_) => Ok(true),
            Err(error) => {
                // The alert that tells the peer what is wrong, if there is room for it.
                drop(self.send(&stream.socket.std));
                self.failure = Some(error);
                Ok(true)
            }
        }
    }

    /// How many of the bytes were encrypted.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_shut_down {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.connection.writer().write(bytes)
    }

    /// Hands to the socket what fits.
    fn send<S>(&mut self, mut socket: &S) -> io::Result<()>
    where
        for<'socket> &'socket S: Write,
    {
        match self.connection.wants_write() && self.connection.write_tls(&mut socket)? == 0 {
            true => Err(io::ErrorKind::WriteZero.into()),
            false => Ok(()),
        }
    }

    fn shut_down(&mut self) {
        if !self.is_shut_down {
            self.is_shut_down = true;
            self.connection.send_close_notify();
        }
    }
}

impl Received {
    /// Reads from the socket once, unless something is left of what was read before. Whether that was all it had.
    fn fill<S>(&mut self, mut socket: &S) -> io::Result<bool>
    where
        for<'socket> &'socket S: Read,
    {
        if self.start < self.end {
            return Ok(false);
        }
        let count = socket.read(&mut self.bytes)?;
        (self.start, self.end) = (0, count);
        self.is_at_end = count == 0;
        Ok(0 < count && count < self.bytes.len())
    }
}

impl<S> Drop for TlsStream<S>
where
    S: AsFd,
    for<'socket> &'socket S: Read + Write,
{
    fn drop(&mut self) {
        let session = self.session.get_mut();
        if !session.connection.is_handshaking() {
            session.shut_down();
            // If it does not fit now, the peer sees a cut: nobody is left to wait.
            drop(session.send(&self.stream.socket.std));
        }
    }
}

impl<S> AsFd for TlsStream<S>
where
    S: AsFd,
    for<'socket> &'socket S: Read + Write,
{
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl<S> Debug for TlsStream<S>
where
    S: AsFd,
    for<'socket> &'socket S: Read + Write,
{
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        // Not the session: it has keys.
        formatter.debug_struct("TlsStream").finish_non_exhaustive()
    }
}

/// A record of TLS at its longest, with room for more than one of the usual size.
const RECEIVED_SIZE: usize = 32 * 1024;
