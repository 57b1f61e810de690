//! What of a connection is no IO: which commands are to be written, which wait for replies, and what becomes of them
//! when the connection dies.
//!
//! | an entry's bytes           | the connection dies                                              |
//! |----------------------------|------------------------------------------------------------------|
//! | none was written           | it goes out on the next connection                               |
//! | some, not the last         | as above if it is one command or a transaction: it cannot have run |
//! | all                        | it may have run: who waits is told, or it goes out again if it may |
//!
//! # Invariants
//! - Replies come in the order of entries; an entry leaves with its last reply, whether or not anybody waits still.
//! - `writing` holds the bytes of whole entries; its first byte is at the position `begun` of all that were ever queued.

use std::collections::VecDeque;
use std::rc::Rc;

/// What to do with commands that may have run when the connection died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Nothing: who waits gets the error.
    IfUnsent,
    /// Send them again: running them twice does what running them once does.
    Idempotent,
}

/// What belongs together in a session: one command, or several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// One command.
    Single,
    /// Commands that each run when they are received, so many of them.
    Pipeline(usize),
    /// As many replies, but nothing runs before the last command is received: MULTI … EXEC.
    Transaction(usize),
}

impl Unit {
    /// How many replies there will be.
    #[must_use]
    pub fn replies(self) -> usize {
        match self {
            Self::Single => 1,
            Self::Pipeline(replies) | Self::Transaction(replies) => replies,
        }
    }
}

/// Commands that wait for replies.
#[derive(Debug)]
pub struct Entry<S> {
    /// Who waits.
    pub slot: S,
    /// How many replies are to come.
    pub replies: usize,
    unit: Unit,
    /// The position of its first byte, and of the first after it.
    start: u64,
    end: u64,
    /// The bytes, for another time.
    kept: Option<Box<[u8]>>,
}

/// Commands on their way, and those that wait for replies.
#[derive(Debug)]
pub struct Session<S> {
    queued: Vec<u8>,
    /// Shared with the write that is going on.
    writing: Rc<Vec<u8>>,
    /// How much of `writing` was written.
    written: usize,
    begun: u64,
    waiting: VecDeque<Entry<S>>,
    /// Whether an entry is with the reader.
    is_one_taken: bool,
}

/// A buffer that grew beyond this is given back once it is empty, bytes.
const KEPT_CAPACITY: usize = 256 * 1024;

impl<S> Default for Session<S> {
    fn default() -> Self {
        Self {
            queued: Vec::new(),
            writing: Rc::default(),
            written: 0,
            begun: 0,
            waiting: VecDeque::new(),
            is_one_taken: false,
        }
    }
}

impl<S> Session<S> {
    /// Queues encoded commands.
    pub fn send(&mut self, encoded: &[u8], unit: Unit, retry: Retry, slot: S) {
        let start = self.begun + (self.writing.len() + self.queued.len()) as u64;
        self.queued.extend_from_slice(encoded);
        let kept = (retry == Retry::Idempotent).then(|| encoded.into());
        let end = start + encoded.len() as u64;
        self.waiting.push_back(Entry { slot, replies: unit.replies(), unit, start, end, kept });
    }

    /// What is to be written next, from the given place on; nothing if there is nothing there.
    pub fn to_write(&mut self) -> (Rc<Vec<u8>>, usize) {
        if self.written == self.writing.len() {
            self.begun += self.writing.len() as u64;
            self.written = 0;
            let next = std::mem::take(&mut self.queued);
            // The memory of what was written is that of what is queued next.
            if let Ok(mut done) = Rc::try_unwrap(std::mem::replace(&mut self.writing, Rc::new(next)))
                && done.capacity() <= KEPT_CAPACITY
            {
                done.clear();
                self.queued = done;
            }
        }
        (Rc::clone(&self.writing), self.written)
    }

    /// What is left of the write that was begun, as [`Session::to_write`]; nothing of what is queued behind it.
    pub fn to_finish(&self) -> (Rc<Vec<u8>>, usize) {
        (Rc::clone(&self.writing), self.written)
    }

    /// Whether what was begun to be written is written, and answered.
    pub fn is_drained(&self) -> bool {
        let queued = self.begun + self.writing.len() as u64;
        self.written == self.writing.len()
            && !self.is_one_taken
            && self.waiting.front().is_none_or(|entry| entry.start >= queued)
    }

    /// So much of it was written.
    pub fn handle_written(&mut self, count: usize) {
        self.written += count;
        debug_assert!(self.written <= self.writing.len(), "more was written than there was");
    }

    /// Takes who gets the next reply, until [`Session::handle_answered`] or [`Session::put_back`].
    pub fn take_next(&mut self) -> Option<Entry<S>> {
        let next = self.waiting.pop_front();
        self.is_one_taken = next.is_some();
        next
    }

    /// The entry that was taken got its last reply.
    pub fn handle_answered(&mut self) {
        self.is_one_taken = false;
    }

    /// The entry that was taken is the next again.
    pub fn put_back(&mut self, entry: Entry<S>) {
        self.is_one_taken = false;
        self.waiting.push_front(entry);
    }

    /// Bytes that are not written yet.
    pub fn unwritten(&self) -> usize {
        self.writing.len() - self.written + self.queued.len()
    }

    /// Entries that wait for replies, or to be written.
    pub fn waiting(&self) -> usize {
        self.waiting.len() + usize::from(self.is_one_taken)
    }

    /// The connection is dead: returns those who cannot be helped. The others are queued for the next one.
    #[must_use]
    pub fn handle_lost(&mut self) -> Vec<Entry<S>> {
        let written = self.begun + self.written as u64;
        let mut bytes = Rc::unwrap_or_clone(std::mem::take(&mut self.writing));
        bytes.append(&mut self.queued);
        let (mut failed, mut queued) = (Vec::new(), Vec::new());
        let base = self.begun;
        for mut entry in std::mem::take(&mut self.waiting) {
            let is_begun = entry.start < written && entry.start < entry.end;
            let cannot_have_run = match entry.unit {
                _ if !is_begun => true,
                Unit::Single | Unit::Transaction(_) => entry.end > written,
                Unit::Pipeline(_) => false,
            };
            // Some replies came already: the rest alone cannot be asked for.
            let is_answered_in_part = entry.replies < entry.unit.replies();
            let again = match &entry.kept {
                Some(kept) if !is_answered_in_part => Some(&kept[..]),
                _ if cannot_have_run => {
                    Some(&bytes[(entry.start - base) as usize..(entry.end - base) as usize])
                }
                _ => None,
            };
            let Some(again) = again else {
                failed.push(entry);
                continue;
            };
            let start = queued.len() as u64;
            queued.extend_from_slice(again);
            entry.start = start;
            entry.end = queued.len() as u64;
            self.waiting.push_back(entry);
        }
        (self.queued, self.written, self.begun) = (queued, 0, 0);
        failed
    }

    /// There will be no connection: returns everybody, and whether their commands may have run.
    #[must_use]
    pub fn handle_end(&mut self) -> Vec<(Entry<S>, bool)> {
        let written = self.begun + self.written as u64;
        let everybody = std::mem::take(&mut self.waiting);
        *self = Self::default();
        let may_have_run = |entry: &Entry<S>| match entry.unit {
            Unit::Single | Unit::Transaction(_) => entry.end <= written,
            Unit::Pipeline(_) => entry.start < written,
        };
        everybody
            .into_iter()
            .map(|entry| {
                let ran = may_have_run(&entry);
                (entry, ran)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Retry, Session, Unit};

    /// Writes so many bytes of what is there, and returns them.
    fn write<S>(session: &mut Session<S>, count: usize) -> Vec<u8> {
        let (bytes, from) = session.to_write();
        let bytes = bytes[from..].iter().copied().take(count).collect::<Vec<_>>();
        session.handle_written(bytes.len());
        bytes
    }

    fn write_all<S>(session: &mut Session<S>) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let bytes = write(session, usize::MAX);
            if bytes.is_empty() {
                return all;
            }
            all.extend(bytes);
        }
    }

    fn slots<S: Copy>(entries: &[super::Entry<S>]) -> Vec<S> {
        entries.iter().map(|entry| entry.slot).collect()
    }

    #[test]
    fn what_was_written_in_full_may_have_run_and_the_rest_goes_out_again() {
        let mut session = Session::default();
        for (slot, bytes) in [b"aaaa", b"bbbb", b"cccc", b"dddd"].iter().enumerate() {
            session.send(*bytes, Unit::Single, Retry::IfUnsent, slot);
        }
        assert_eq!(write(&mut session, 10), b"aaaabbbbcc");
        assert_eq!(session.take_next().map(|entry| entry.slot), Some(0));
        session.handle_answered();
        session.send(b"eeee", Unit::Single, Retry::IfUnsent, 4);
        assert_eq!(slots(&session.handle_lost()), [1]);
        assert_eq!(write_all(&mut session), b"ccccddddeeee");
        assert_eq!(slots(&session.handle_lost()), [2, 3, 4]);
        assert_eq!((session.waiting(), session.unwritten()), (0, 0));
    }

    #[test]
    fn idempotent_commands_go_out_again_in_order() {
        let mut session = Session::default();
        session.send(b"a", Unit::Single, Retry::Idempotent, 'a');
        session.send(b"b", Unit::Single, Retry::IfUnsent, 'b');
        session.send(b"c", Unit::Single, Retry::Idempotent, 'c');
        assert_eq!(write_all(&mut session), b"abc");
        session.send(b"d", Unit::Single, Retry::IfUnsent, 'd');
        assert_eq!(slots(&session.handle_lost()), ['b']);
        assert_eq!(write_all(&mut session), b"acd");
        let order: Vec<_> = std::iter::from_fn(|| session.take_next()).map(|entry| entry.slot).collect();
        assert_eq!(order, ['a', 'c', 'd']);
    }

    #[test]
    fn a_transaction_runs_with_its_last_byte_and_a_pipeline_with_its_first_command() {
        let mut session = Session::default();
        session.send(b"mm", Unit::Transaction(4), Retry::IfUnsent, 'm');
        write(&mut session, 1);
        assert!(session.handle_lost().is_empty());
        assert_eq!(write(&mut session, 1), b"m");
        assert!(session.handle_lost().is_empty());
        assert_eq!(write_all(&mut session), b"mm");
        assert_eq!(slots(&session.handle_lost()), ['m']);
        session.send(b"pp", Unit::Pipeline(2), Retry::IfUnsent, 'p');
        write(&mut session, 1);
        assert_eq!(slots(&session.handle_lost()), ['p']);
    }

    #[test]
    fn a_unit_that_was_answered_in_part_is_not_asked_again() {
        let mut session = Session::default();
        session.send(b"xy", Unit::Pipeline(2), Retry::Idempotent, 'x');
        write_all(&mut session);
        let mut entry = session.take_next().expect("it was sent");
        entry.replies -= 1;
        session.put_back(entry);
        assert_eq!(slots(&session.handle_lost()), ['x']);
        assert_eq!(session.unwritten(), 0);
    }

    #[test]
    fn what_is_queued_behind_a_write_does_not_belong_to_its_end() {
        let mut session = Session::default();
        session.send(b"aaaa", Unit::Single, Retry::IfUnsent, 'a');
        write(&mut session, 2);
        session.send(b"bb", Unit::Single, Retry::IfUnsent, 'b');
        let (bytes, from) = session.to_finish();
        assert_eq!(&bytes[from..], b"aa");
        session.handle_written(2);
        assert!(!session.is_drained());
        assert_eq!(session.take_next().map(|entry| entry.slot), Some('a'));
        assert!(!session.is_drained());
        session.handle_answered();
        assert!(session.is_drained());
        assert!(session.handle_lost().is_empty());
        assert_eq!(write_all(&mut session), b"bb");
    }

    #[test]
    fn at_the_end_everybody_is_told_whether_it_may_have_run() {
        let mut session = Session::default();
        session.send(b"aa", Unit::Single, Retry::Idempotent, 'a');
        session.send(b"bb", Unit::Single, Retry::IfUnsent, 'b');
        session.send(b"cc", Unit::Pipeline(2), Retry::IfUnsent, 'c');
        write(&mut session, 3);
        let told: Vec<_> = session.handle_end().into_iter().map(|(entry, ran)| (entry.slot, ran)).collect();
        assert_eq!(told, [('a', true), ('b', false), ('c', false)]);
        assert_eq!(session.unwritten(), 0);
    }
}
