//! Received bytes, and the memory that they stand in.
//!
//! Receive memory is mapped in regions and cut into blocks of one size. Blocks are page-aligned
//! because some CPUs copy ten times slower to a destination a few bytes past a page's start, which is
//! just where an allocator puts a large vector. A region costs nothing until it is touched, and the
//! block that was freed last is used first: it is still in the cache.
//!
//! # Invariants
//! A block has one owner at a time: the free list (an index in it), the kernel (an index in a buffer
//! ring, see `uring/buffers.rs`), or one [`Block`] value. Only the owner touches its bytes. A region
//! stays mapped while a `Block` of it lives, also when the driver is gone.

#![expect(unsafe_code, reason = "maps memory, and cuts exclusive blocks out of it")]

use std::fmt;
use std::io;
use std::ptr::{self, NonNull};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::mm::{MapFlags, ProtFlags};

/// Bytes that were received, in memory of the driver. Dropping it gives the memory back for reuse;
/// hold it briefly: a provided buffer that is held is one the kernel cannot fill.
pub struct Buffer {
    /// `None`: no bytes (end of file), so no memory either.
    block: Option<Block>,
    length: usize,
}

impl Buffer {
    /// The first `length` bytes of a block.
    pub(crate) fn new(block: Block, length: usize) -> Buffer {
        assert!(length <= block.region.block_size, "{length} bytes in a smaller block");
        Buffer { block: Some(block), length }
    }

    /// What end of file looks like.
    pub(crate) fn empty() -> Buffer {
        Buffer { block: None, length: 0 }
    }

    /// Bytes from elsewhere, for scripts.
    #[cfg(feature = "testing")]
    pub fn copied_from(bytes: &[u8]) -> io::Result<Buffer> {
        if bytes.is_empty() {
            return Ok(Buffer::empty());
        }
        let region = Region::map(1, bytes.len().next_multiple_of(PAGE))?;
        let mut block = region.claim(0);
        block.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
        Ok(Buffer::new(block, bytes.len()))
    }
}

impl std::ops::Deref for Buffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.block.as_ref().map_or(&[], |block| &block.bytes()[..self.length])
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Buffer({} bytes)", self.length)
    }
}

/// One block, owned. Dropping it puts it on its region's free list.
pub(crate) struct Block {
    region: Arc<Region>,
    index: u16,
}

impl Block {
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the region maps this many initialised (zeroed) bytes there for as long as it
        // lives, which `self.region` makes it; the owner of the block alone writes to them.
        unsafe { std::slice::from_raw_parts(self.start().as_ptr(), self.region.block_size) }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; `&mut self` is the only owner's only access.
        unsafe { std::slice::from_raw_parts_mut(self.start().as_ptr(), self.region.block_size) }
    }

    pub(crate) fn start(&self) -> NonNull<u8> {
        self.region.block_start(self.index)
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.region.free().push(self.index);
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Block({})", self.index)
    }
}

/// Blocks of one size in one mapping.
pub(crate) struct Region {
    start: NonNull<u8>,
    block_size: usize,
    count: u16,
    /// Given back and not yet taken or handed to the kernel. Its capacity is `count`: it never grows.
    free: Mutex<Vec<u16>>,
}

// SAFETY: the pointer is to a mapping that belongs to the region alone and is not tied to a thread;
// blocks are disjoint, each with one owner (see the invariants), and the free list has a lock.
unsafe impl Send for Region {}
// SAFETY: as for `Send`; through `&Region` only the locked free list changes.
unsafe impl Sync for Region {}

impl Region {
    /// Maps `count` blocks; nobody owns them yet: each index is to be claimed once, or listed as
    /// free by `release_all`.
    pub(crate) fn map(count: u16, block_size: usize) -> io::Result<Arc<Region>> {
        let length = usize::from(count) * block_size;
        // SAFETY: a fresh private mapping at an address of the kernel's choosing touches no
        // existing memory.
        let start = unsafe {
            rustix::mm::mmap_anonymous(
                ptr::null_mut(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        }?;
        let start = NonNull::new(start.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        let free = Mutex::new(Vec::with_capacity(usize::from(count)));
        Ok(Arc::new(Region { start, block_size, count, free }))
    }

    /// Lists every block as free. For a region no block of which was claimed.
    pub(crate) fn release_all(&self) {
        self.free().extend((0..self.count).rev());
    }

    /// Takes a free block, if there is one.
    pub(crate) fn take(self: &Arc<Self>) -> Option<Block> {
        let index = self.free().pop()?;
        Some(self.claim(index))
    }

    /// Becomes the owner of a block that neither the free list nor a `Block` owns: one that the
    /// kernel has just filled, or a new one.
    pub(crate) fn claim(self: &Arc<Self>, index: u16) -> Block {
        assert!(index < self.count, "block {index} of {}", self.count);
        Block { region: self.clone(), index }
    }

    /// The blocks that were given back. Whoever empties the list owns them.
    pub(crate) fn free(&self) -> MutexGuard<'_, Vec<u16>> {
        // The list is whole at every moment, so a holder that panicked left it so.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn block_start(&self, index: u16) -> NonNull<u8> {
        // SAFETY: indices are below `count` (checked by `claim`; the buffer ring counts to it), so
        // the result is inside the mapping.
        unsafe { self.start.add(usize::from(index) * self.block_size) }
    }

    pub(crate) fn count(&self) -> u16 {
        self.count
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        let length = usize::from(self.count) * self.block_size;
        // SAFETY: exactly what `map` mapped, and no `Block` lives: each holds an `Arc` of this.
        let result = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), length) };
        debug_assert!(result.is_ok(), "unmapping receive memory: {result:?}");
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Region({} x {} bytes)", self.count, self.block_size)
    }
}

/// Large blocks for direct receives. Grows by a region when the host holds every block, and shrinks
/// again when it gave them back.
#[derive(Debug)]
pub(crate) struct Pool {
    regions: Vec<Arc<Region>>,
}

impl Pool {
    pub(crate) fn new() -> Pool {
        Pool { regions: Vec::new() }
    }

    pub(crate) fn take(&mut self) -> io::Result<Block> {
        for region in &self.regions {
            if let Some(block) = region.take() {
                return Ok(block);
            }
        }
        let region = Region::map(POOL_BLOCKS, POOL_BLOCK_SIZE)?;
        region.release_all();
        let block = region.take().ok_or(io::ErrorKind::OutOfMemory)?;
        self.regions.push(region);
        Ok(block)
    }

    /// Unmaps regions beyond the first of which every block is free.
    pub(crate) fn shrink(&mut self) {
        if self.regions.len() > 1 {
            let mut first = true;
            self.regions.retain(|region| {
                std::mem::take(&mut first) || region.free().len() < usize::from(region.count)
            });
        }
    }

    /// Blocks that are out: with the host or with the kernel.
    pub(crate) fn lent(&self) -> usize {
        self.regions.iter().map(|region| usize::from(region.count) - region.free().len()).sum()
    }
}

/// Large enough that a bulk transfer is not made of syscalls, small enough for a second-level cache.
const POOL_BLOCK_SIZE: usize = 64 * 1024;
const POOL_BLOCKS: u16 = 16;
#[cfg(feature = "testing")]
const PAGE: usize = 4096;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{Buffer, POOL_BLOCKS, Pool};

    #[test]
    fn a_pool_grows_while_blocks_are_held_and_shrinks_when_they_return() {
        let mut pool = Pool::new();
        let held: Vec<_> = (0..=POOL_BLOCKS).map(|_| pool.take().unwrap()).collect();
        assert_eq!(pool.lent(), usize::from(POOL_BLOCKS) + 1);
        assert_eq!(pool.regions.len(), 2);
        drop(held);
        pool.shrink();
        assert_eq!(pool.lent(), 0);
        assert_eq!(pool.regions.len(), 1);
    }

    #[test]
    fn blocks_are_disjoint_and_page_aligned() {
        let mut pool = Pool::new();
        let mut first = pool.take().unwrap();
        let mut second = pool.take().unwrap();
        first.bytes_mut().fill(1);
        second.bytes_mut().fill(2);
        assert!(first.bytes().iter().all(|byte| *byte == 1));
        assert!(second.bytes().iter().all(|byte| *byte == 2));
        assert_eq!(first.bytes().as_ptr().align_offset(4096), 0);
        assert_eq!(second.bytes().as_ptr().align_offset(4096), 0);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test needs a second thread")]
    fn a_buffer_outlives_its_pool_and_can_be_dropped_on_another_thread() {
        let mut pool = Pool::new();
        let mut block = pool.take().unwrap();
        block.bytes_mut()[..3].copy_from_slice(b"abc");
        let buffer = Buffer::new(block, 3);
        drop(pool);
        std::thread::spawn(move || assert_eq!(&*buffer, b"abc")).join().unwrap();
    }
}
