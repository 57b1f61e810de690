//! `get_extra_info`: what is known of a transport, converted to Python when asked for.
//!
//! asyncio's own transports inherit the method from its abstract classes, where a test may put a mock in its place. So
//! the class that a transport claims to be is looked at first.

use std::net::{SocketAddr, SocketAddrV4};

use aioxide_driver::address::internet_address;
use aioxide_driver::{SocketAddrAny, sys};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::descriptor::Descriptor;
use super::stream::{Borrow, Kind, StreamTransport};
use crate::convert::address;
use crate::ffi::call;
use crate::imports::imports;

/// Addresses as the kernel gave them, and the dictionary for everything else.
#[derive(Default)]
pub struct Extra {
    addresses: Addresses,
    /// What was handed in, and what was converted already.
    pub dictionary: Option<Py<PyDict>>,
}

/// Our own address and the peer's, which the kernel forgets once the connection is reset; in little memory, as every
/// connection keeps them.
#[derive(Default)]
enum Addresses {
    /// Of what is no socket.
    #[default]
    None,
    Internet4 {
        local: SocketAddrV4,
        peer: SocketAddrV4,
    },
    Other(Box<[Option<SocketAddrAny>; 2]>),
}

impl Addresses {
    fn new(local: Option<SocketAddrAny>, peer: Option<SocketAddrAny>) -> Self {
        match (local.as_ref().and_then(internet_address), peer.as_ref().and_then(internet_address)) {
            (Some(SocketAddr::V4(local)), Some(SocketAddr::V4(peer))) => Self::Internet4 { local, peer },
            _ => Self::Other(Box::new([local, peer])),
        }
    }

    fn local(&self) -> Option<SocketAddrAny> {
        match self {
            Self::None => None,
            Self::Internet4 { local, .. } => Some(SocketAddr::V4(*local).into()),
            Self::Other(addresses) => addresses[0].clone(),
        }
    }

    fn peer(&self) -> Option<SocketAddrAny> {
        match self {
            Self::None => None,
            Self::Internet4 { peer, .. } => Some(SocketAddr::V4(*peer).into()),
            Self::Other(addresses) => addresses[1].clone(),
        }
    }
}

impl Extra {
    /// Of what is no socket.
    pub fn of_file(dictionary: Bound<'_, PyDict>) -> Self {
        Self { dictionary: Some(dictionary.unbind()), ..Self::default() }
    }

    /// Ask the kernel for the addresses of a socket.
    pub fn of_socket(descriptor: &Descriptor, dictionary: Option<Bound<'_, PyDict>>) -> Self {
        Self {
            addresses: Addresses::new(
                sys::local_name(descriptor.number()).ok(),
                sys::peer_name(descriptor.number()).ok().flatten(),
            ),
            dictionary: dictionary.map(Bound::unbind),
        }
    }
}

/// The answer of what a program has put in place of the `get_extra_info` of the class that a transport claims to be;
/// `None` if it did not.
pub fn ask_replacement<'py>(
    transport: &Bound<'py, PyAny>,
    class: &Bound<'py, PyAny>,
    name: &Bound<'py, PyAny>,
    default: Option<&Bound<'py, PyAny>>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = transport.py();
    let method = intern!(py, "get_extra_info");
    if class.getattr(method)?.is(&imports(py)?.get_extra_info) {
        return Ok(None);
    }
    // Bound as attributes of a class are: a function to the transport, a mock to nothing.
    let mut replacement = py.import("inspect")?.call_method1("getattr_static", (class, method))?;
    if let Some(bind) = replacement.get_type().getattr_opt("__get__")? {
        replacement = call::call_object(&bind, (&replacement, transport, class), None)?;
    }
    match default {
        Some(default) => call::call_object(&replacement, (name, default), None),
        None => call::call_object(&replacement, (name,), None),
    }
    .map(Some)
}

impl StreamTransport {
    /// `get_extra_info(name, default)`.
    pub fn extra_info(slf: &Bound<'_, Self>, name: &str, default: Option<Py<PyAny>>) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        let dictionary = Self::extra_dictionary(slf)?;
        if let Some(known) = dictionary.get_item(name)? {
            return Ok(known.unbind());
        }
        let is_socket = slf.get().kind == Kind::Socket;
        let found = match name {
            "socket" if is_socket => Self::socket_info(slf)?,
            "sockname" if is_socket => {
                let local = slf.state().extra.addresses.local();
                Self::address_info(slf, local, "getsockname")?
            }
            "peername" if is_socket => {
                let peer = slf.state().extra.addresses.peer();
                Self::address_info(slf, peer, "getpeername")?
            }
            _ => return Ok(default.unwrap_or_else(|| py.None())),
        };
        dictionary.set_item(name, &found)?;
        Ok(found)
    }

    fn extra_dictionary<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyDict>> {
        let py = slf.py();
        if let Some(dictionary) = &slf.state().extra.dictionary {
            return Ok(dictionary.bind(py).clone());
        }
        let dictionary = PyDict::new(py);
        slf.state_mut().extra.dictionary = Some(dictionary.clone().unbind());
        Ok(dictionary)
    }

    /// The socket behind asyncio's read-only face; made for an accepted connection when first asked for.
    fn socket_info(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        let descriptor = {
            let mut transport = slf.state_mut();
            match &transport.descriptor {
                Descriptor::Native(_) => Some(transport.descriptor.take()),
                _ => None,
            }
        };
        if let Some(Descriptor::Native(descriptor)) = descriptor {
            let descriptor = Descriptor::into_socket(py, descriptor)?;
            slf.state_mut().descriptor = descriptor;
        }
        let socket = match &slf.state().descriptor {
            Descriptor::Object(socket, _) => socket.clone_ref(py),
            _ => return Ok(py.None()),
        };
        call::call(imports(py)?.transport_socket.bind_borrowed(py), &[socket]).map(Bound::unbind)
    }

    fn address_info(slf: &Bound<'_, Self>, name: Option<SocketAddrAny>, method: &str) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        let Some(name) = name else { return Ok(py.None()) };
        if let Some(converted) = address::to_python(py, &name)? {
            return Ok(converted);
        }
        // A family that only Python's socket module knows how to write.
        let socket = Self::extra_info(slf, "socket", None)?;
        if socket.is_none(py) {
            return Ok(socket);
        }
        socket.call_method0(py, method).or_else(|_| Ok(py.None()))
    }
}
