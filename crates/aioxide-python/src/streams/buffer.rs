//! The bytes that came and were not read yet.
//!
//! A connection that waits has none, and no memory for them: what is empty is left to the thread's next buffer.

use std::cell::RefCell;
use std::io::BufRead;
use std::mem;

/// More memory than this is given back once it is empty, in bytes.
const KEPT: usize = 64 * 1024;

/// How much memory a thread keeps: pieces.
const SPARE: usize = 16;

thread_local! {
    static SPARES: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// A queue of bytes in one piece.
#[derive(Default)]
pub struct Buffer {
    memory: Vec<u8>,
    /// How many bytes at its beginning were read.
    start: usize,
}

impl Buffer {
    /// What is in it.
    pub fn bytes(&self) -> &[u8] {
        &self.memory[self.start..]
    }

    /// How many bytes are in it.
    pub fn len(&self) -> usize {
        self.memory.len() - self.start
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Add bytes at the end.
    pub fn append(&mut self, data: &[u8]) {
        // Moving the rest costs less than it frees, so each byte moves once or twice in all.
        if self.start > self.len() && self.memory.len() + data.len() > self.memory.capacity() {
            self.memory.drain(..self.start);
            self.start = 0;
        }
        if self.memory.capacity() == 0 {
            self.memory = SPARES.with_borrow_mut(Vec::pop).unwrap_or_default();
        }
        self.memory.extend_from_slice(data);
    }

    /// Remove bytes from the beginning.
    pub fn consume(&mut self, length: usize) {
        self.start += length;
        if self.start < self.memory.len() {
            return;
        }
        self.start = 0;
        let mut memory = mem::take(&mut self.memory);
        if memory.capacity() > KEPT {
            return;
        }
        memory.clear();
        SPARES.with_borrow_mut(|spares| {
            if spares.len() < SPARE {
                spares.push(memory);
            }
        });
    }

    /// Where `needle`, which is not empty, is found first, looking from `offset` on.
    pub fn find(&self, needle: &[u8], offset: usize) -> Option<usize> {
        let bytes = self.bytes();
        let first = *needle.first()?;
        let mut at = offset;
        loop {
            let place = at + find_byte(bytes.get(at..)?, first)?;
            if bytes[place..].starts_with(needle) {
                return Some(place);
            }
            at = place + 1;
        }
    }
}

/// Where a byte is found first; `BufRead` asks the C library, which looks at many at a time.
fn find_byte(mut bytes: &[u8], wanted: u8) -> Option<usize> {
    let whole = bytes;
    let length = bytes.skip_until(wanted).ok()?;
    (length > 0 && whole[length - 1] == wanted).then(|| length - 1)
}
