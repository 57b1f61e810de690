//! Reading and writing with a session that a Python object owns.
//!
//! Handshake, verification and goodbyes stay with that object: it uses the same session and, by it, the same pipe.
//!
//! # Invariants
//! - The object that owns the session is held, and with it the session.
//! - Every call is made by an attached thread, on an interpreter with its lock, so that no two of ours are made at once.
//!   A program that reads or writes with the `ssl` object on a thread of its own meanwhile, for which Python lets go of its
//!   lock, lets two threads into one session, as it does with asyncio on Pythons that have no lock for each session.
//! - OpenSSL may call back into Python (pre-shared keys on a renegotiation): no lock is held and no Rust reference to
//!   what is read into exists then.
#![expect(unsafe_code, reason = "OpenSSL is called")]

use std::ffi::c_int;
use std::ptr::NonNull;
use std::sync::Arc;

use pyo3::PyTraverseError;
use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;

use super::created::Observer;
use super::library::{Library, Ssl};
use super::pipe::{Pipe, bio};
use crate::ffi::memory::Memory;

/// `SSL_ERROR_WANT_READ` and `SSL_ERROR_ZERO_RETURN`.
const WANT_READ: c_int = 2;
const ZERO_RETURN: c_int = 6;

/// What became of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// So many bytes were read or written.
    Done(usize),
    /// It needs more from the peer.
    Wants,
    /// The peer said goodbye.
    Goodbye,
    /// It failed. Python's object, asked for the same, finds out how: OpenSSL's errors are left for it.
    Failed,
}

/// A session.
pub struct Session {
    library: &'static Library,
    session: NonNull<Ssl>,
    owner: Py<PyAny>,
    pipe: Arc<Pipe>,
}

// SAFETY: a session is used by attached threads only, of which one runs at a time.
unsafe impl Send for Session {}
// SAFETY: as above.
unsafe impl Sync for Session {}

impl Session {
    /// Let `make` make a Python object that owns a session (`ssl.SSLObject._sslobj`) inside another, and take part
    /// in it, where OpenSSL knows it.
    pub fn of<'py, R>(
        library: &'static Library,
        make: impl FnOnce() -> PyResult<R>,
        owner: impl FnOnce(&R) -> PyResult<Option<Bound<'py, PyAny>>>,
    ) -> PyResult<(R, Option<Self>)> {
        let observer = Observer::begin();
        let made = make()?;
        let session = match owner(&made)? {
            Some(owner) => observer.find(library, &owner).map(|session| (session, owner)),
            None => None,
        };
        let Some((session, owner)) = session else { return Ok((made, None)) };
        let pipe = Arc::new(Pipe::default());
        let Some(bio) = bio(library, &pipe) else { return Ok((made, None)) };
        // SAFETY: the session is alive, for its owner is. It lets go of what it had and takes the BIO over.
        unsafe { (library.functions.SSL_set_bio)(session.as_ptr(), bio, bio) };
        Ok((made, Some(Self { library, session, owner: owner.unbind(), pipe })))
    }

    /// The Python object.
    pub fn owner(&self) -> &Py<PyAny> {
        &self.owner
    }

    /// Keep cipher text from the peer.
    pub fn feed(&self, bytes: &[u8]) {
        self.pipe.contents().feed(bytes);
    }

    /// Have `bytes` read where they lie while `body` runs; what was not read by then is kept.
    pub fn lending<R>(&self, bytes: &[u8], body: impl FnOnce() -> R) -> R {
        self.pipe.lending(bytes, body)
    }

    /// How many bytes from the peer are undeciphered.
    pub fn incoming_size(&self) -> usize {
        self.pipe.contents().unread()
    }

    /// How many bytes for the peer were not taken yet.
    pub fn outgoing_size(&self) -> usize {
        self.pipe.contents().outgoing.len()
    }

    /// Take the cipher text for the peer.
    pub fn take_outgoing(&self) -> Vec<u8> {
        std::mem::take(&mut self.pipe.contents().outgoing)
    }

    /// Give memory for cipher text, which is what a session has none of between its writes.
    pub fn give_memory(&self, memory: &mut Vec<u8>) {
        let outgoing = &mut self.pipe.contents().outgoing;
        if outgoing.capacity() == 0 {
            std::mem::swap(outgoing, memory);
        }
    }

    /// Not fewer bytes of plain text than can be read now.
    pub fn readable(&self) -> usize {
        let contents = self.pipe.contents();
        contents.unread() + contents.carried
    }

    /// Decipher into `memory`. Returns how many bytes were read, and what the last attempt came to: `Done` where the
    /// memory is full.
    pub fn read(&self, _py: Python<'_>, memory: Memory<'_>) -> (usize, Outcome) {
        self.library.clear_errors();
        let mut length = 0;
        loop {
            if length == memory.len() {
                return (length, Outcome::Done(length));
            }
            let outcome = self.read_record(memory.after(length));
            let Outcome::Done(more) = outcome else { return (length, outcome) };
            length += more;
            if !self.has_more() {
                return (length, Outcome::Wants);
            }
        }
    }

    fn read_record(&self, memory: Memory<'_>) -> Outcome {
        let mut length = 0;
        // SAFETY: the session is alive, the memory writable; a record's bytes are all written.
        let answer = unsafe {
            (self.library.functions.SSL_read_ex)(
                self.session.as_ptr(),
                memory.as_ptr().cast(),
                memory.len(),
                &raw mut length,
            )
        };
        self.outcome(answer, length)
    }

    /// Whether another attempt to read may succeed: OpenSSL reads no further than a record's end.
    fn has_more(&self) -> bool {
        // SAFETY: the session is alive.
        let pending = unsafe { (self.library.functions.SSL_pending)(self.session.as_ptr()) };
        let mut contents = self.pipe.contents();
        if pending == 0 {
            contents.carried = 0;
        }
        pending > 0 || contents.unread() > 0
    }

    /// Encipher `bytes`.
    pub fn write(&self, _py: Python<'_>, bytes: &[u8]) -> Outcome {
        self.library.clear_errors();
        let mut length = 0;
        // SAFETY: the session is alive, the bytes are borrowed for the call.
        let answer = unsafe {
            (self.library.functions.SSL_write_ex)(
                self.session.as_ptr(),
                bytes.as_ptr().cast(),
                bytes.len(),
                &raw mut length,
            )
        };
        self.outcome(answer, length)
    }

    fn outcome(&self, answer: c_int, length: usize) -> Outcome {
        if answer > 0 {
            return Outcome::Done(length);
        }
        // SAFETY: the session is alive; the answer is of the call before, on this thread.
        match unsafe { (self.library.functions.SSL_get_error)(self.session.as_ptr(), answer) } {
            WANT_READ => Outcome::Wants,
            ZERO_RETURN => Outcome::Goodbye,
            _ => Outcome::Failed,
        }
    }

    /// Show the garbage collector what is kept alive.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.owner)
    }
}
