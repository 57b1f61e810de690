//! Datagrams that were given to `sendto` and have not left, in order.
//!
//! # Invariant
//! Python objects leave by return; the queue drops none.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::RawFd;

use aioxide_driver::{SocketAddrAny, sys};
use pyo3::PyTraverseError;
use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;
use pyo3::types::PyBytes;

use crate::transports::write_queue::Data;

/// One datagram.
pub struct Datagram {
    pub data: Payload,
    pub destination: Destination,
}

/// What is sent.
pub enum Payload {
    /// The user's object, which never changes.
    Bytes(Py<PyBytes>),
    /// A copy: who changes a bytearray after `sendto` changes nothing that is sent.
    Copy(Vec<u8>),
}

/// To whom it is sent.
pub enum Destination {
    /// To the socket's peer.
    Peer,
    /// To an address in the kernel's form.
    Address(SocketAddrAny),
    /// To an address that only the `socket` module understands, or refuses.
    Object(Py<PyAny>),
}

impl Datagram {
    /// Keep what `sendto` was given.
    pub fn new(data: &Data<'_, '_>, destination: Destination) -> Self {
        let data = match data {
            Data::Bytes(bytes) => Payload::Bytes((*bytes).clone().unbind()),
            Data::Buffer(_) | Data::Slice(_) => Payload::Copy(data.read(<[u8]>::to_vec)),
        };
        Self { data, destination }
    }

    /// How many bytes it has.
    pub fn len(&self, py: Python<'_>) -> usize {
        self.data.bytes(py).len()
    }
}

impl Payload {
    fn bytes<'a>(&'a self, py: Python<'a>) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes.as_bytes(py),
            Self::Copy(bytes) => bytes,
        }
    }

    /// As a `bytes` object.
    pub fn into_python(self, py: Python<'_>) -> Bound<'_, PyBytes> {
        match self {
            Self::Bytes(bytes) => bytes.into_bound(py),
            Self::Copy(bytes) => PyBytes::new(py, &bytes),
        }
    }
}

/// Send the first datagrams of a queue, at most `limit` and only such as the kernel understands, with one system call.
/// How many left; an error is the first one's.
pub fn send_first(
    py: Python<'_>,
    queue: &VecDeque<Datagram>,
    socket: RawFd,
    limit: usize,
) -> io::Result<usize> {
    let mut datagrams: Vec<(IoSlice<'_>, &SocketAddrAny)> = Vec::with_capacity(limit);
    for datagram in queue.iter().take(limit) {
        let bytes = datagram.data.bytes(py);
        match &datagram.destination {
            Destination::Address(address) => datagrams.push((IoSlice::new(bytes), address)),
            // One by one: of an error in the middle of a batch the kernel tells nothing, and an error of a peer
            // that is not there does not come again.
            Destination::Peer if datagrams.is_empty() => {
                return sys::send_message(socket, bytes, None).map(|_| 1);
            }
            Destination::Peer | Destination::Object(_) => break,
        }
    }
    match datagrams.as_slice() {
        [] => Ok(0),
        [(bytes, address)] => sys::send_message(socket, bytes, Some(address)).map(|_| 1),
        several => sys::send_messages(socket, several),
    }
}

/// Show the garbage collector what a queue keeps alive.
pub fn traverse(queue: &VecDeque<Datagram>, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
    for datagram in queue {
        if let Destination::Object(object) = &datagram.destination {
            visit.call(object)?;
        }
    }
    Ok(())
}
