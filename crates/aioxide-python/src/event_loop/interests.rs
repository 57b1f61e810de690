//! Who waits for which operation of the driver: the host's side of its tokens.
//!
//! # Invariants
//! - A key is an index and a generation; a removed entry's key is never valid again, so a completion that
//!   arrives after its owner lost interest finds nobody and is dropped with all it carries.
//! - Entries leave by return; the table never drops a Python object.

use aioxide_driver::Token;
use aioxide_runtime::host_token;
use pyo3::prelude::*;

use super::servers::Listener;
use crate::awaitable::waiter::Waiter;
use crate::handle::Handle;
use crate::transports::datagram::DatagramTransport;
use crate::transports::stream::StreamTransport;

/// Who waits.
pub enum Interest {
    /// A callback of `add_reader` or `add_writer`.
    Watcher(Py<Handle>),
    /// The reading side of a transport.
    Reading(Py<StreamTransport>),
    /// The writing side of a transport.
    Writing(Py<StreamTransport>),
    /// The receiving side of a datagram transport.
    DatagramReading(Py<DatagramTransport>),
    /// The sending side of a datagram transport.
    DatagramWriting(Py<DatagramTransport>),
    /// A task that waits for a descriptor.
    Call(Py<Waiter>),
    /// A server's listening socket.
    Listener(Py<Listener>),
}

/// The table of all interests of a loop.
#[derive(Default)]
pub struct Interests {
    slots: Vec<Slot>,
    vacant: Vec<u32>,
}

struct Slot {
    generation: u32,
    interest: Option<Interest>,
}

/// Generations have 31 bits: bit 63 of a token says that it is the host's.
const GENERATION_MASK: u32 = 0x7fff_ffff;

impl Interests {
    /// Enter an interest and return the token to submit its operation with.
    pub fn insert(&mut self, interest: Interest) -> Token {
        let index = self.vacant.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, interest: None });
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[index as usize];
        slot.interest = Some(interest);
        host_token(u64::from(slot.generation) << 32 | u64::from(index))
    }

    /// Whom a token belongs to, if anybody still waits.
    pub fn find(&self, token: Token) -> Option<&Interest> {
        let slot = self.slots.get(index_of(token))?;
        if slot.generation == generation_of(token) { slot.interest.as_ref() } else { None }
    }

    /// Forget a token and return who waited.
    #[must_use]
    pub fn remove(&mut self, token: Token) -> Option<Interest> {
        let index = index_of(token);
        let slot = self.slots.get_mut(index)?;
        if slot.generation != generation_of(token) {
            return None;
        }
        let interest = slot.interest.take()?;
        slot.generation = slot.generation.wrapping_add(1) & GENERATION_MASK;
        self.vacant.push(index as u32);
        Some(interest)
    }

    /// How many interests there are.
    pub fn len(&self) -> usize {
        self.slots.len() - self.vacant.len()
    }

    /// Forget everything and return who waited.
    #[must_use]
    pub fn clear(&mut self) -> Vec<Interest> {
        self.vacant.clear();
        self.slots.drain(..).filter_map(|slot| slot.interest).collect()
    }

    /// Every interest.
    pub fn iter(&self) -> impl Iterator<Item = &Interest> {
        self.slots.iter().filter_map(|slot| slot.interest.as_ref())
    }
}

fn index_of(token: Token) -> usize {
    (token.0 & 0xffff_ffff) as usize
}

fn generation_of(token: Token) -> u32 {
    (token.0 >> 32) as u32 & GENERATION_MASK
}
