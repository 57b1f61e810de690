//! The ring of provided buffers: memory that the kernel picks from when bytes arrive.
//!
//! The kernel and we share an array of descriptions (io_uring_register_buf_ring(3)). We append blocks
//! at the tail, the kernel takes them at the head, and a completion says which one it filled. So
//! memory is in use only while bytes are, however many connections wait.
//!
//! # Invariants
//! - A block is in one place: described between the kernel's head and our tail, claimed by a
//!   completion (a `Block`), or on the region's free list until the next `give_back`.
//! - `lent` counts the blocks in the last two places. Hence `lent <= count`, and a description is
//!   never written over one that the kernel has yet to read.
//! - The array stays mapped until the kernel's ring is closed: `Ring` owns both and drops this last.

#![expect(unsafe_code, reason = "the array of descriptions is shared with the kernel")]

use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;

use crate::buffer::{Block, Region};

/// See the module's docs.
#[derive(Debug)]
pub(super) struct BufferRing {
    /// The shared array.
    array: Block,
    blocks: Arc<Region>,
    /// Where the next description goes; wraps, and so does the kernel's copy.
    tail: u16,
    lent: u16,
}

impl BufferRing {
    /// Makes `count` blocks, a power of two, and shows them to the kernel.
    pub(super) fn register(submitter: &Submitter<'_>, count: u16) -> io::Result<BufferRing> {
        if !count.is_power_of_two() {
            let message = format!("{count} receive blocks: expected a power of two");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let length = usize::from(count) * size_of::<BufRingEntry>();
        let array = Region::map(1, length.next_multiple_of(PAGE))?.claim(0);
        let blocks = Region::map(count, BLOCK_SIZE)?;
        blocks.release_all();
        let mut ring = BufferRing { array, blocks, tail: 0, lent: count };
        let address = ring.array.start().as_ptr() as u64;
        // SAFETY: the array is page-aligned, long enough for `count` entries, and outlives the
        // kernel's ring (third invariant).
        unsafe { submitter.register_buf_ring_with_flags(address, count, GROUP, 0) }?;
        ring.give_back();
        Ok(ring)
    }

    /// Owns the block that a completion says was filled.
    pub(super) fn claim(&mut self, index: u16) -> Block {
        self.lent += 1;
        self.blocks.claim(index)
    }

    /// Appends the blocks that were dropped since the last time.
    pub(super) fn give_back(&mut self) {
        if self.lent == 0 {
            return;
        }
        let mut free = self.blocks.free();
        if free.is_empty() {
            return;
        }
        self.lent -= free.len() as u16;
        let mask = self.blocks.count() - 1;
        for index in free.drain(..) {
            let mut entry = self.entry(self.tail & mask);
            // SAFETY: inside the array, and the kernel does not read it before the tail moves on.
            // Address, length and index do not overlap the tail, which entry 0 shares its space with.
            let entry = unsafe { entry.as_mut() };
            entry.set_addr(self.blocks.block_start(index).as_ptr() as u64);
            entry.set_len(BLOCK_SIZE as u32);
            entry.set_bid(index);
            self.tail = self.tail.wrapping_add(1);
        }
        self.publish_tail();
    }

    /// Whether the kernel has any block left to fill, once the completions were collected.
    pub(super) fn is_exhausted(&self) -> bool {
        self.lent == self.blocks.count()
    }

    /// Blocks that the host holds.
    pub(super) fn lent(&self) -> usize {
        usize::from(self.lent) - self.blocks.free().len()
    }

    fn publish_tail(&self) {
        // SAFETY: the address of a field of the array's first entry, which is mapped.
        let tail = unsafe { BufRingEntry::tail(self.entry(0).as_ptr()) };
        // SAFETY: aligned, mapped, and changed by nobody but us; the kernel reads it atomically.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        // Release: the descriptions are written before the kernel can see them.
        tail.store(self.tail, Ordering::Release);
    }

    fn entry(&self, position: u16) -> NonNull<BufRingEntry> {
        let first = self.array.start().cast::<BufRingEntry>();
        // SAFETY: positions are masked by the count, which the array was made for.
        unsafe { first.add(usize::from(position)) }
    }
}

/// The only buffer group of a ring.
pub(super) const GROUP: u16 = 0;
/// A page: most messages fit, and a received kilobyte does not waste sixteen.
pub(super) const BLOCK_SIZE: usize = 4096;
const PAGE: usize = 4096;
