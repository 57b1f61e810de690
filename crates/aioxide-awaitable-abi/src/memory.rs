//! Memory of futures that are over, for the next ones: many live shortly, and to allocate and free one costs as much as
//! all else that making, polling and dropping it takes.
//!
//! # Invariants
//! - Blocks are of one size; a bigger future gets memory of its own.
//! - Who takes and gives back holds a lock, the same one always. So one thread at a time touches the list.
#![expect(unsafe_code, reason = "memory is handed out without the type of what is put there")]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::Cell;
use std::ffi::c_void;
use std::ptr::NonNull;

/// The memory of one future.
#[repr(C, align(16))]
struct Block {
    bytes: [u8; 128],
}

/// What is in a block that is free: the next one that is.
struct Free {
    next: Option<NonNull<Free>>,
}

/// How many free blocks are kept.
const CAPACITY: usize = 1024;

/// The free blocks of this library.
pub static MEMORY: Memory = Memory { first: Cell::new(None), count: Cell::new(0) };

/// Free blocks.
pub struct Memory {
    first: Cell<Option<NonNull<Free>>>,
    count: Cell<usize>,
}

// SAFETY: `take` and `give_back` say that their callers hold one lock.
unsafe impl Sync for Memory {}

impl Memory {
    /// Whether a value fits into a block.
    pub const fn fits<T>() -> bool {
        size_of::<T>() <= size_of::<Block>() && align_of::<T>() <= align_of::<Block>()
    }

    /// Takes a block.
    ///
    /// # Safety
    /// The caller holds the lock.
    #[inline]
    pub unsafe fn take(&self) -> NonNull<c_void> {
        let Some(block) = self.first.get() else { return allocate() };
        // SAFETY: `give_back` wrote it, and nobody else has the block.
        let Free { next } = unsafe { block.read() };
        self.first.set(next);
        self.count.set(self.count.get() - 1);
        block.cast()
    }

    /// Takes a block back.
    ///
    /// # Safety
    /// It came from `take`, and nobody uses it any more. The caller holds the lock.
    #[inline]
    pub unsafe fn give_back(&self, block: NonNull<c_void>) {
        if self.count.get() == CAPACITY {
            // SAFETY: `take` allocated it with this layout.
            return unsafe { dealloc(block.as_ptr().cast(), Layout::new::<Block>()) };
        }
        let block = block.cast();
        // SAFETY: a block has room for this, and nobody else has it.
        unsafe { block.write(Free { next: self.first.get() }) };
        self.first.set(Some(block));
        self.count.set(self.count.get() + 1);
    }
}

#[cold]
fn allocate() -> NonNull<c_void> {
    let layout = Layout::new::<Block>();
    // SAFETY: the layout has a size.
    let block = unsafe { alloc(layout) };
    NonNull::new(block.cast()).unwrap_or_else(|| handle_alloc_error(layout))
}
