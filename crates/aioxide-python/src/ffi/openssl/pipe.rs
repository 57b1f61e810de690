//! What a session reads from and writes to: memory of ours, in place of a socket. Cipher text that came can be lent for
//! the time of a call, so that it is not copied before OpenSSL copies it.
//!
//! # Invariants
//! - Bytes are read in the order in which they came: first what is lent, then `incoming`.
//! - What is lent is taken back before its owner goes on (`lending`), under the same lock that reads it.
//! - Locked for the time of a copy only, never while OpenSSL or Python is called: Python may use the session on another
//!   thread, without its lock.
#![expect(unsafe_code, reason = "OpenSSL calls these functions with pointers to memory of its own")]

use std::ffi::{c_char, c_int, c_long, c_void};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::library::{Bio, Library};
use crate::ffi::memory::Memory;

/// More room than this is not kept once it is empty, in bytes.
const KEEP: usize = 32 * 1024;

/// `BIO_FLAGS_READ | BIO_FLAGS_SHOULD_RETRY`: there will be more later.
const RETRY_READ: c_int = 0x01 | 0x08;

/// All the flags that tell of a retry (`BIO_FLAGS_RWS | BIO_FLAGS_SHOULD_RETRY`).
const RETRY: c_int = 0x07 | 0x08;

/// `BIO_CTRL_PENDING` and `BIO_CTRL_FLUSH`.
const CONTROL_PENDING: c_int = 10;
const CONTROL_FLUSH: c_int = 11;

/// The two directions.
#[derive(Default)]
pub struct Pipe(Mutex<Contents>);

/// What lies in a pipe.
#[derive(Default)]
pub struct Contents {
    lent: Option<Slice>,
    incoming: Vec<u8>,
    /// How much of `incoming` was read.
    start: usize,
    /// Cipher text for the peer.
    pub outgoing: Vec<u8>,
    /// How many bytes were read since a record was last read to its end: no more than that of plain text is in OpenSSL's
    /// hands.
    pub carried: usize,
}

/// Bytes that somebody lends.
#[derive(Clone, Copy)]
struct Slice {
    start: *const u8,
    length: usize,
}

// SAFETY: whoever lends the bytes keeps them until the slice was taken back, under the lock of the pipe.
unsafe impl Send for Slice {}

impl Pipe {
    /// Look at the contents, or change them.
    pub fn contents(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Have `bytes` read where they lie while `body` runs; what was not read by then is kept. They are kept at once where
    /// others are still to be read before them.
    pub fn lending<R>(&self, bytes: &[u8], body: impl FnOnce() -> R) -> R {
        {
            let mut contents = self.contents();
            if contents.unread() > 0 {
                contents.feed(bytes);
                drop(contents);
                return body();
            }
            contents.lent = Some(Slice { start: bytes.as_ptr(), length: bytes.len() });
        }
        let _lent = Lent { pipe: self, bytes };
        body()
    }
}

/// Takes back what is lent, also when the borrower panics.
struct Lent<'a> {
    pipe: &'a Pipe,
    bytes: &'a [u8],
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let mut contents = self.pipe.contents();
        // Another loan may have come and gone: it could only because all of this one was read.
        let rest = contents.lent.take().map_or(0, |slice| slice.length);
        if rest > 0 {
            // Ahead of what came meanwhile.
            let start = contents.start;
            let unread = &self.bytes[self.bytes.len() - rest..];
            contents.incoming.splice(..start, unread.iter().copied());
            contents.start = 0;
        }
    }
}

impl Contents {
    /// Keep bytes from the peer.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.start * 2 >= self.incoming.len() {
            self.incoming.drain(..self.start);
            self.start = 0;
        }
        self.incoming.extend_from_slice(bytes);
    }

    /// How many bytes from the peer were not read.
    pub fn unread(&self) -> usize {
        self.incoming.len() - self.start + self.lent.map_or(0, |slice| slice.length)
    }

    fn read(&mut self, memory: Memory<'_>) -> usize {
        let length = if let Some(slice) = self.lent.as_mut().filter(|slice| slice.length > 0) {
            let length = slice.length.min(memory.len());
            // SAFETY: as `Slice` says, the bytes are there.
            let bytes = unsafe { std::slice::from_raw_parts(slice.start, length) };
            memory.copy_from(bytes);
            // SAFETY: within the bytes or one past their end.
            slice.start = unsafe { slice.start.add(length) };
            slice.length -= length;
            length
        } else {
            let length = memory.copy_from(&self.incoming[self.start..]);
            self.start += length;
            if self.start == self.incoming.len() {
                self.start = 0;
                self.incoming.clear();
                self.incoming.shrink_to(KEEP);
            }
            length
        };
        self.carried += length;
        length
    }

    fn write(&mut self, bytes: &[u8]) -> bool {
        if self.outgoing.try_reserve(bytes.len()).is_err() {
            return false;
        }
        self.outgoing.extend_from_slice(bytes);
        true
    }
}

/// Make a BIO of a pipe. The BIO has a reference of its own.
pub fn bio(library: &Library, pipe: &Arc<Pipe>) -> Option<*mut Bio> {
    // SAFETY: the method is never freed.
    let bio = unsafe { (library.functions.BIO_new)(library.method) };
    if bio.is_null() {
        return None;
    }
    let data = Arc::into_raw(Arc::clone(pipe)).cast_mut().cast();
    // SAFETY: the BIO is new. `destroy` takes the reference back.
    unsafe { (library.functions.BIO_set_data)(bio, data) };
    // SAFETY: the BIO is new.
    unsafe { (library.functions.BIO_set_init)(bio, 1) };
    Some(bio)
}

/// The pipe of a BIO, for the time of a call.
///
/// # Safety
/// The BIO is one that `bio` made, and alive throughout `'a`.
unsafe fn pipe<'a>(library: &Library, bio: *mut Bio) -> Option<&'a Pipe> {
    // SAFETY: the BIO is alive.
    let data = unsafe { (library.functions.BIO_get_data)(bio) };
    // SAFETY: null before `bio` is done; else the reference that the BIO has keeps the pipe alive.
    unsafe { data.cast::<Pipe>().cast_const().as_ref() }
}

/// OpenSSL wants up to `size` bytes.
pub unsafe extern "C" fn read(bio: *mut Bio, memory: *mut c_char, size: usize, length: *mut usize) -> c_int {
    let Some(library) = Library::found() else { return 0 };
    // SAFETY: OpenSSL calls this for BIOs of this kind only, while they are alive.
    let Some(pipe) = (unsafe { pipe(library, bio) }) else { return 0 };
    // SAFETY: OpenSSL gives room for `size` bytes.
    let memory = unsafe { Memory::new(memory.cast(), size) };
    let read = pipe.contents().read(memory);
    // SAFETY: OpenSSL gives a place for the answer.
    unsafe { *length = read };
    // SAFETY: the BIO is alive.
    unsafe { (library.functions.BIO_clear_flags)(bio, RETRY) };
    if read == 0 {
        // SAFETY: the BIO is alive.
        unsafe { (library.functions.BIO_set_flags)(bio, RETRY_READ) };
    }
    (read > 0).into()
}

/// OpenSSL has `size` bytes for the peer.
pub unsafe extern "C" fn write(
    bio: *mut Bio,
    bytes: *const c_char,
    size: usize,
    length: *mut usize,
) -> c_int {
    let Some(library) = Library::found() else { return 0 };
    // SAFETY: as in `read`.
    let Some(pipe) = (unsafe { pipe(library, bio) }) else { return 0 };
    // SAFETY: the BIO is alive.
    unsafe { (library.functions.BIO_clear_flags)(bio, RETRY) };
    let bytes = if size == 0 {
        &[]
    } else {
        // SAFETY: OpenSSL gives `size` bytes, which nobody changes during the call.
        unsafe { std::slice::from_raw_parts(bytes.cast(), size) }
    };
    let is_written = pipe.contents().write(bytes);
    // SAFETY: OpenSSL gives a place for the answer.
    unsafe { *length = if is_written { size } else { 0 } };
    is_written.into()
}

/// OpenSSL asks something of the BIO; zero says that it does not know what that is.
pub unsafe extern "C" fn control(
    bio: *mut Bio,
    what: c_int,
    _number: c_long,
    _pointer: *mut c_void,
) -> c_long {
    let Some(library) = Library::found() else { return 0 };
    // SAFETY: as in `read`.
    let Some(pipe) = (unsafe { pipe(library, bio) }) else { return 0 };
    match what {
        CONTROL_FLUSH => 1,
        CONTROL_PENDING => pipe.contents().unread().try_into().unwrap_or(c_long::MAX),
        _ => 0,
    }
}

/// OpenSSL frees the BIO.
pub unsafe extern "C" fn destroy(bio: *mut Bio) -> c_int {
    let Some(library) = Library::found() else { return 0 };
    // SAFETY: the BIO is alive for the time of the call.
    let data = unsafe { (library.functions.BIO_get_data)(bio) };
    if !data.is_null() {
        // SAFETY: the BIO is alive for the time of the call; nobody finds the pipe by it any more.
        unsafe { (library.functions.BIO_set_data)(bio, std::ptr::null_mut()) };
        // SAFETY: the reference that `bio` gave away.
        drop(unsafe { Arc::from_raw(data.cast::<Pipe>().cast_const()) });
    }
    1
}
