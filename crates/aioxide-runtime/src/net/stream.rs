//! A connected byte stream, TCP or Unix.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};

use socket2::SockRef;

use super::socket::Socket;

/// A connected byte stream around one of std's. Dropping it closes the connection.
///
/// Both directions work at the same time, also from two tasks that share it with `Rc`.
///
/// ```
/// use aioxide_runtime::net::UnixStream;
///
/// let received = aioxide_runtime::run(async {
///     let (near, far) = UnixStream::pair()?;
///     near.write_all(b"ping").await?;
///     let mut received = [0; 4];
///     far.read_exact(&mut received).await?;
///     std::io::Result::Ok(received)
/// })??;
/// assert_eq!(&received, b"ping");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Stream<S> {
    pub(super) socket: Socket<S>,
}

impl<S> Stream<S>
where
    S: AsFd,
    for<'socket> &'socket S: Read + Write,
{
    /// Takes a connected socket of std's into the current runtime.
    ///
    /// # Panics
    /// Outside of a runtime.
    #[track_caller]
    pub fn from_std(socket: S) -> io::Result<Self> {
        Ok(Self { socket: Socket::new(socket)? })
    }

    /// Gives std's socket back; it stays non-blocking.
    pub fn into_std(self) -> S {
        self.socket.std
    }

    /// Reads what is there, at most `buffer` full, at least one byte; zero means that the peer has
    /// ended its direction. Nothing is lost if the future is dropped. After a read that brought less than
    /// there was room for, the next one waits for the driver's word: polled only once, it may miss what is there.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = self.socket.when_readable(|mut socket| socket.read(buffer)).await?;
        if 0 < count && count < buffer.len() {
            self.socket.note_drained();
        }
        Ok(count)
    }

    /// Fills `buffer`, or fails with [`UnexpectedEof`](io::ErrorKind::UnexpectedEof). What was read
    /// is lost if the future is dropped.
    pub async fn read_exact(&self, buffer: &mut [u8]) -> io::Result<()> {
        fill(buffer, async |room| self.read(room).await).await
    }

    /// Appends everything to `contents` until the peer ends its direction. What was read so far
    /// stays there if the future is dropped.
    pub async fn read_to_end(&self, contents: &mut Vec<u8>) -> io::Result<usize> {
        drain(contents, async |room| self.read(room).await).await
    }

    /// Writes what fits now, at least one byte unless `bytes` is empty. Nothing was written if the
    /// future is dropped.
    pub async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.when_writable(|mut socket| socket.write(bytes)).await
    }

    /// Writes everything. Some of it may have been written if the future is dropped.
    pub async fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        pour(bytes, async |rest| self.write(rest).await).await
    }

    /// Ends one direction or both: the peer reads to the end of what was written.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        SockRef::from(&self.socket.std).shutdown(how)
    }
}

impl<S: AsFd> AsFd for Stream<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.std.as_fd()
    }
}

/// Fills `buffer` by reads that bring at least one byte each.
pub(super) async fn fill(
    mut buffer: &mut [u8],
    read: impl AsyncFn(&mut [u8]) -> io::Result<usize>,
) -> io::Result<()> {
    while !buffer.is_empty() {
        match read(buffer).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => buffer = &mut buffer[count..],
        }
    }
    Ok(())
}

/// Appends all that reads bring to `contents`; returns how much that was.
pub(super) async fn drain(
    contents: &mut Vec<u8>,
    read: impl AsyncFn(&mut [u8]) -> io::Result<usize>,
) -> io::Result<usize> {
    let before = contents.len();
    let mut piece = [0; 8192];
    loop {
        match read(&mut piece).await? {
            0 => return Ok(contents.len() - before),
            count => contents.extend_from_slice(&piece[..count]),
        }
    }
}

/// Has everything written, by writes that take at least one byte each.
pub(super) async fn pour(
    mut bytes: &[u8],
    write: impl AsyncFn(&[u8]) -> io::Result<usize>,
) -> io::Result<()> {
    while !bytes.is_empty() {
        match write(bytes).await? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            count => bytes = &bytes[count..],
        }
    }
    Ok(())
}
