//! Buffers that were sent, for the next writes of the loop's transports: memory of these sizes, taken and given back once
//! per message, costs the allocator more than all else that a small write does.

/// A larger buffer is not kept, in bytes.
const LARGEST: usize = 8 * 1024;

/// How much all that are kept may be, in bytes.
const MOST: usize = 512 * 1024;

/// Empty buffers that have memory.
#[derive(Default)]
pub struct SpareBuffers {
    buffers: Vec<Vec<u8>>,
    /// Their memory, in bytes.
    size: usize,
}

impl SpareBuffers {
    /// An empty buffer, the one that was used last; one without memory if there is none.
    pub fn take(&mut self) -> Vec<u8> {
        let buffer = self.buffers.pop().unwrap_or_default();
        self.size -= buffer.capacity();
        buffer
    }

    /// Keep a buffer for [`SpareBuffers::take`], or drop it.
    pub fn keep(&mut self, mut buffer: Vec<u8>) {
        let size = buffer.capacity();
        if size == 0 || size > LARGEST || self.size + size > MOST {
            return;
        }
        buffer.clear();
        self.size += size;
        self.buffers.push(buffer);
    }
}
