//! Memory for direct reads, one piece for all transports of a loop.

/// As asyncio's `max_size`: how much one read may take, in bytes.
const SIZE: usize = 256 * 1024;

/// Receive memory must not begin 1 to 31 bytes after a page's start: some CPUs copy ten times slower
/// there, and that is where a large vector begins.
const PAGE: usize = 4096;

/// A page-aligned buffer, made at the first use.
#[derive(Default)]
pub struct Scratch {
    memory: Vec<u8>,
}

impl Scratch {
    /// The memory.
    pub fn bytes(&mut self) -> &mut [u8] {
        if self.memory.is_empty() {
            self.memory = vec![0; SIZE + PAGE];
        }
        let start = self.memory.as_ptr().align_offset(PAGE);
        &mut self.memory[start..start + SIZE]
    }
}
