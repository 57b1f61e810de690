//! Memory that C code fills: no Rust reference to its bytes exists meanwhile, and they need hold nothing before.
#![expect(unsafe_code, reason = "pieces of memory that may be uninitialised are cut by pointer arithmetic")]

use std::marker::PhantomData;

/// So many writable bytes somewhere.
#[derive(Clone, Copy)]
pub struct Memory<'a> {
    start: *mut u8,
    length: usize,
    lifetime: PhantomData<&'a mut [u8]>,
}

impl<'a> Memory<'a> {
    /// The `length` bytes from `start` on.
    ///
    /// # Safety
    /// They are writable throughout the lifetime, and nobody relies on what they hold.
    pub unsafe fn new(start: *mut u8, length: usize) -> Self {
        Self { start, length, lifetime: PhantomData }
    }

    /// How many bytes.
    pub fn len(&self) -> usize {
        self.length
    }

    /// What follows the first `count` bytes.
    #[must_use]
    pub fn after(self, count: usize) -> Self {
        assert!(count <= self.length, "more bytes were filled than there was room for");
        // SAFETY: within the memory, or one past its end.
        let start = unsafe { self.start.add(count) };
        Self { start, length: self.length - count, lifetime: PhantomData }
    }

    /// Where it begins.
    pub fn as_ptr(&self) -> *mut u8 {
        self.start
    }

    /// Copy bytes to its beginning, as many as there is room for.
    pub fn copy_from(&self, bytes: &[u8]) -> usize {
        let length = bytes.len().min(self.length);
        // SAFETY: `length` bytes of both are there; who made the memory promised that nobody refers to it.
        unsafe { std::ptr::copy(bytes.as_ptr(), self.start, length) };
        length
    }
}

impl<'a> From<&'a mut [u8]> for Memory<'a> {
    fn from(bytes: &'a mut [u8]) -> Self {
        Self { start: bytes.as_mut_ptr(), length: bytes.len(), lifetime: PhantomData }
    }
}
