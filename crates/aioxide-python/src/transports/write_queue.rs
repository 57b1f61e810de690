//! What a transport was given to write and has not sent: pieces, in order.
//!
//! Small pieces are gathered into one buffer, for one system call. Large `bytes` objects are kept by
//! reference, all else is copied: who changes a bytearray after `write()` changes nothing that is sent.
//!
//! # Invariant
//! Python objects leave by return; the queue drops none.

use std::io::{self, IoSlice};
use std::os::fd::RawFd;

use aioxide_driver::sys;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::rare_queue::RareQueue;
use super::reading::is_not_ready;
use super::stream::Kind;
use crate::ffi::buffer::Contiguous;

/// A `bytes` object of at least so many bytes is kept rather than copied.
const KEEP: usize = 8 * 1024;

/// A buffer of at least so many bytes gathers no more.
const GATHER: usize = 64 * 1024;

/// A buffer that is too small for a further piece grows by at least so many bytes.
const GROWTH: usize = 4 * 1024;

/// How many pieces one system call sends at the most (`IOV_MAX` is 1024).
const PIECES_PER_CALL: usize = 64;

/// The argument of `write()`.
pub enum Data<'a, 'py> {
    /// A `bytes` object, which never changes.
    Bytes(&'a Bound<'py, PyBytes>),
    /// Any other bytes-like object.
    Buffer(Contiguous),
    /// Bytes of ours, borrowed for the call.
    Slice(&'a [u8]),
}

/// The queue. It holds no memory while it is empty: there are as many queues as connections, and most are.
#[derive(Default)]
pub struct WriteQueue {
    first: Option<Piece>,
    /// What is behind the first.
    rest: RareQueue<Piece>,
    /// Whether more than one write was queued since the queue was empty.
    several: bool,
}

/// A piece, and how much of it has left.
pub enum Piece {
    /// A buffer of ours.
    Gathered(Vec<u8>, usize),
    /// The user's object.
    Bytes(Py<PyBytes>, usize),
}

/// What became of an attempt to send.
pub struct Attempt {
    /// How many bytes the kernel took.
    pub sent: usize,
    /// Objects that have left, to be dropped unborrowed.
    pub finished: Vec<Py<PyBytes>>,
    /// A buffer that has left.
    pub emptied: Option<Vec<u8>>,
    /// Whether something went wrong; a full kernel buffer is nothing wrong.
    pub result: io::Result<()>,
}

impl WriteQueue {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Whether what waits was given to a single write.
    pub fn is_single(&self) -> bool {
        self.first.is_some() && !self.several
    }

    /// Queue the bytes of `data` from `start`, and return how many they are; `spare` has an empty buffer for them.
    pub fn keep(&mut self, data: &Data<'_, '_>, start: usize, spare: impl FnOnce() -> Vec<u8>) -> usize {
        self.several = self.first.is_some();
        match data {
            Data::Bytes(bytes) if data.len() - start >= KEEP => {
                self.push_back(Piece::Bytes((*bytes).clone().unbind(), start));
            }
            _ => data.read(|data| self.gather(&data[start..], spare)),
        }
        data.len() - start
    }

    /// Take out the buffer, where one buffer is all that waits.
    pub fn take_only_buffer(&mut self) -> Option<(Vec<u8>, usize)> {
        if !self.rest.is_empty() {
            return None;
        }
        match self.first.take()? {
            Piece::Gathered(buffer, start) => Some((buffer, start)),
            piece @ Piece::Bytes(..) => {
                self.first = Some(piece);
                None
            }
        }
    }

    /// Take back a buffer of which the bytes from `start` did not leave; one of which all have left is returned.
    #[must_use]
    pub fn put_back(&mut self, buffer: Vec<u8>, start: usize) -> Option<Vec<u8>> {
        if start >= buffer.len() {
            return Some(buffer);
        }
        self.push_front(Piece::Gathered(buffer, start));
        None
    }

    /// Take out the first piece.
    pub fn pop_front(&mut self) -> Option<Piece> {
        let first = self.first.take()?;
        self.first = self.rest.pop_front();
        Some(first)
    }

    /// Take back what is left of a piece; a user's object that is finished is returned.
    #[must_use]
    pub fn put_back_piece(&mut self, py: Python<'_>, piece: Piece) -> Option<Piece> {
        if !piece.rest(py).is_empty() {
            self.push_front(piece);
            return None;
        }
        match piece {
            Piece::Gathered(..) => None,
            bytes @ Piece::Bytes(..) => Some(bytes),
        }
    }

    /// Send until nothing waits or the kernel takes no more.
    pub fn send(&mut self, py: Python<'_>, kind: Kind, descriptor: RawFd) -> Attempt {
        let mut attempt = Attempt { sent: 0, finished: Vec::new(), emptied: None, result: Ok(()) };
        while let Some(first) = &self.first {
            let sent = if self.rest.is_empty() {
                match kind {
                    Kind::Socket => sys::send(descriptor, first.rest(py)),
                    Kind::ReadPipe | Kind::WritePipe => sys::write(descriptor, first.rest(py)),
                }
            } else {
                let pieces = std::iter::once(first).chain(self.rest.iter()).take(PIECES_PER_CALL);
                let pieces: Vec<_> = pieces.map(|piece| IoSlice::new(piece.rest(py))).collect();
                match kind {
                    Kind::Socket => sys::send_vectored(descriptor, &pieces),
                    Kind::ReadPipe | Kind::WritePipe => sys::write_vectored(descriptor, &pieces),
                }
            };
            match sent {
                Ok(sent) => {
                    attempt.sent += sent;
                    self.advance(py, sent, &mut attempt);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_not_ready(&error) => break,
                Err(error) => {
                    attempt.result = Err(error);
                    break;
                }
            }
        }
        attempt
    }

    /// Take out everything.
    #[must_use = "Python objects are dropped with the iterator, so choose where that happens"]
    pub fn clear(&mut self) -> impl Iterator<Item = Piece> + use<> {
        self.first.take().into_iter().chain(std::mem::take(&mut self.rest))
    }

    fn gather(&mut self, data: &[u8], spare: impl FnOnce() -> Vec<u8>) {
        let last = self.rest.back_mut().or(self.first.as_mut());
        if let Some(Piece::Gathered(last, _)) = last
            && last.len() < GATHER
        {
            // Where a second piece comes, more will.
            if last.capacity() - last.len() < data.len() {
                last.reserve(data.len().max(GROWTH));
            }
            last.extend_from_slice(data);
            return;
        }
        let mut buffer = if data.len() < GATHER { spare() } else { Vec::new() };
        buffer.extend_from_slice(data);
        self.push_back(Piece::Gathered(buffer, 0));
    }

    fn push_back(&mut self, piece: Piece) {
        if self.first.is_none() {
            self.first = Some(piece);
        } else {
            self.rest.push_back(piece);
        }
    }

    fn push_front(&mut self, piece: Piece) {
        if let Some(second) = self.first.replace(piece) {
            self.rest.push_front(second);
        }
    }

    fn advance(&mut self, py: Python<'_>, mut sent: usize, attempt: &mut Attempt) {
        while let Some(first) = &mut self.first {
            let rest = first.rest(py).len();
            if sent < rest {
                first.advance(sent);
                return;
            }
            sent -= rest;
            match self.pop_front() {
                Some(Piece::Bytes(bytes, _)) => attempt.finished.push(bytes),
                Some(Piece::Gathered(buffer, _)) => attempt.emptied = Some(buffer),
                None => {}
            }
        }
    }
}

impl Piece {
    /// What has not left.
    pub fn rest<'a>(&'a self, py: Python<'a>) -> &'a [u8] {
        match self {
            Self::Gathered(bytes, start) => &bytes[*start..],
            Self::Bytes(bytes, start) => &bytes.as_bytes(py)[*start..],
        }
    }

    /// So many more bytes have left.
    pub fn advance(&mut self, length: usize) {
        match self {
            Self::Gathered(_, start) | Self::Bytes(_, start) => *start += length,
        }
    }
}

impl<'a, 'py> Data<'a, 'py> {
    /// Look at what `write()` was given; TypeError, in asyncio's words, where it is no bytes.
    pub fn of(object: &'a Bound<'py, PyAny>) -> PyResult<Self> {
        if let Ok(bytes) = object.cast::<PyBytes>() {
            return Ok(Self::Bytes(bytes));
        }
        match Contiguous::of(object) {
            Ok(buffer) => Ok(Self::Buffer(buffer)),
            Err(error) if error.is_instance_of::<PyTypeError>(object.py()) => {
                Err(PyTypeError::new_err(format!(
                    "data argument must be a bytes-like object, not {}",
                    object.get_type().name()?.repr()?
                )))
            }
            Err(error) => Err(error),
        }
    }

    /// How many bytes.
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.as_bytes().len(),
            Self::Buffer(buffer) => buffer.len(),
            Self::Slice(bytes) => bytes.len(),
        }
    }

    /// Lend the bytes to `read`, which must not call Python.
    pub fn read<R>(&self, read: impl FnOnce(&[u8]) -> R) -> R {
        match self {
            Self::Bytes(bytes) => read(bytes.as_bytes()),
            Self::Buffer(buffer) => buffer.read(read),
            Self::Slice(bytes) => read(bytes),
        }
    }
}
