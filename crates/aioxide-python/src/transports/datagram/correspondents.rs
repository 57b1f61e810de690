//! Those a socket talks to: their addresses in the kernel's form and in Python's, converted once.
//!
//! A server hears from the same few peers again and again, and mostly answers with the very tuple it was given.

use aioxide_driver::SocketAddrAny;
use aioxide_driver::address::digest;
use pyo3::prelude::*;

/// How many peers are remembered at the most: a power of two.
const LARGEST: usize = 128;

/// One place for each digest, so the later of two peers with the same one displaces the earlier.
#[derive(Default)]
pub struct Correspondents {
    places: Vec<Option<(SocketAddrAny, Py<PyAny>)>>,
    /// The place of the one whose datagram was delivered last.
    last: usize,
}

impl Correspondents {
    /// The Python form of an address that was converted before.
    pub fn find(&mut self, py: Python<'_>, address: &SocketAddrAny) -> Option<Py<PyAny>> {
        let place = self.place_of(address)?;
        match &self.places[place] {
            Some((known, converted)) if known == address => {
                self.last = place;
                Some(converted.clone_ref(py))
            }
            _ => None,
        }
    }

    /// Remember a conversion. Returns what was displaced, to be dropped unborrowed.
    #[must_use]
    pub fn remember(
        &mut self,
        address: &SocketAddrAny,
        converted: Py<PyAny>,
    ) -> Vec<Option<(SocketAddrAny, Py<PyAny>)>> {
        let is_taken = self.place_of(address).is_none_or(|place| self.places[place].is_some());
        let mut displaced = Vec::new();
        if is_taken && self.places.len() < LARGEST {
            let larger = (self.places.len() * 4).clamp(1, LARGEST);
            displaced = std::mem::take(&mut self.places);
            self.places.resize_with(larger, || None);
        }
        if let Some(place) = self.place_of(address) {
            displaced.push(self.places[place].replace((address.clone(), converted)));
            self.last = place;
        }
        displaced
    }

    /// The address behind a Python object, if it is the one that was delivered last.
    pub fn address_of(&self, converted: &Bound<'_, PyAny>) -> Option<&SocketAddrAny> {
        match self.places.get(self.last) {
            Some(Some((address, known))) if known.is(converted) => Some(address),
            _ => None,
        }
    }

    fn place_of(&self, address: &SocketAddrAny) -> Option<usize> {
        let bits = self.places.len().checked_sub(1)?;
        Some((digest(address) >> 20) as usize & bits)
    }
}
