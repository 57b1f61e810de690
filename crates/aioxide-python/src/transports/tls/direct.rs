//! TLS by the OpenSSL session inside Python's object: no Python object and no copy for each record.
//!
//! Where OpenSSL reports a failure, Python's object is asked for the same operation: OpenSSL refuses it again and leaves
//! its list of errors as it was, and Python makes of it the exception that it would have made at once.

use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;
use pyo3::types::PyBytes;
use pyo3::{PyTraverseError, intern};

use super::engine::{Answer, End, SIZE, classify, ssl};
use super::transport::empty_buffer;
use crate::event_loop::EventLoop;
use crate::ffi::buffer::{Contiguous, with_view};
use crate::ffi::bytes::BytesBuilder;
use crate::ffi::call;
use crate::ffi::memory::Memory;
use crate::ffi::openssl::{Outcome, Session};

/// The most plain text that a record carries, in bytes (RFC 8446, section 5.1).
const RECORD: usize = 16 * 1024;

/// A session that this connection reads and writes with.
pub struct Direct {
    session: Session,
}

impl Direct {
    /// Of a session.
    pub fn new(session: Session) -> Self {
        Self { session }
    }

    /// Take cipher text from the peer.
    pub fn feed(&self, data: &[u8]) {
        self.session.feed(data);
    }

    /// Have cipher text from the peer read where it lies while `body` runs; what was not read by then is kept.
    pub fn lending<R>(&self, data: &[u8], body: impl FnOnce() -> R) -> R {
        self.session.lending(data, body)
    }

    /// How many bytes from the peer are undeciphered.
    pub fn incoming_size(&self) -> usize {
        self.session.incoming_size()
    }

    /// How many bytes for the peer were not taken yet.
    pub fn outgoing_size(&self) -> usize {
        self.session.outgoing_size()
    }

    /// Take the cipher text for the peer, if there is any.
    pub fn take_outgoing(&self) -> Option<Vec<u8>> {
        Some(self.session.take_outgoing()).filter(|data| !data.is_empty())
    }

    /// Decipher what came.
    pub fn read_bytes<'py>(&self, py: Python<'py>) -> PyResult<(Option<Bound<'py, PyBytes>>, End)> {
        let mut bytes = BytesBuilder::with_capacity(py, self.session.readable().min(SIZE))?;
        let (length, end) = self.read(py, bytes.memory())?;
        Ok((bytes.finish(length)?, end))
    }

    /// The same into the memory of an object.
    pub fn read_into(&self, py: Python<'_>, memory: &Bound<'_, PyAny>) -> PyResult<(usize, End)> {
        let mut memory = Contiguous::of(memory)?;
        if memory.len() == 0 {
            return Err(empty_buffer());
        }
        self.read(py, memory.memory()?)
    }

    /// Decipher all that came and forget it.
    pub fn discard(&self, py: Python<'_>) -> PyResult<()> {
        let mut memory = [0; RECORD];
        loop {
            match self.read(py, Memory::from(&mut memory[..]))?.1 {
                End::Full => {}
                End::Drained | End::Goodbye => return Ok(()),
                End::Failed(error) => return Err(error),
            }
        }
    }

    /// Decipher what came, as far as there is room.
    pub fn read(&self, py: Python<'_>, memory: Memory<'_>) -> PyResult<(usize, End)> {
        let mut length = 0;
        loop {
            let (more, outcome) = self.session.read(py, memory.after(length));
            length += more;
            let end = match outcome {
                Outcome::Done(_) => End::Full,
                Outcome::Wants => End::Drained,
                Outcome::Goodbye => End::Goodbye,
                Outcome::Failed => match self.read_by_python(py)? {
                    // Not so bad, then.
                    Ok(byte) => {
                        length += memory.after(length).copy_from(byte.as_bytes());
                        continue;
                    }
                    Err(end) => end,
                },
            };
            return Ok((length, end));
        }
    }

    /// Read one byte, or find out why that is impossible.
    fn read_by_python<'py>(&self, py: Python<'py>) -> PyResult<Result<Bound<'py, PyBytes>, End>> {
        let length = 1_u8.into_pyobject(py)?;
        let owner = self.session.owner().bind_borrowed(py);
        let read = call::call_method(owner, intern!(py, "read"), &[length.as_any().as_borrowed()]);
        Ok(match classify(py, read.and_then(|read| Ok(read.cast_into::<PyBytes>()?))) {
            Ok(Answer::Done(byte)) if byte.as_bytes().is_empty() => Err(End::Goodbye),
            Ok(Answer::Done(byte)) => Ok(byte),
            Ok(Answer::Wants) => Err(End::Drained),
            Err(error) if error.matches(py, &ssl(py)?.zero_return)? => Err(End::Goodbye),
            // What came before it is good.
            Err(error) => Err(End::Failed(error)),
        })
    }

    /// Encipher `data`.
    pub fn write(&self, py: Python<'_>, event_loop: &EventLoop, data: &[u8]) -> PyResult<Answer<usize>> {
        // Where the loop is closed, OpenSSL's first record makes new memory.
        let _ = event_loop.with_core(|core| self.session.give_memory(&mut core.tls_memory));
        match self.session.write(py, data) {
            Outcome::Done(length) => Ok(Answer::Done(length)),
            Outcome::Wants => Ok(Answer::Wants),
            Outcome::Goodbye | Outcome::Failed => {
                let owner = self.session.owner().bind_borrowed(py);
                let written = with_view(py, data, |view| {
                    call::call_method(owner, intern!(py, "write"), &[view.as_borrowed()])
                });
                classify(py, written.and_then(|length| length.extract()))
            }
        }
    }

    /// Show the garbage collector what is kept alive.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.session.traverse(visit)
    }
}
