//! The connections of a server, which it does not keep alive (CPython `asyncio/base_events.py`, `Server._clients`, from
//! Python 3.13 on).
//!
//! It has the place of a `weakref.WeakSet`, which costs a hundred bytes and a microsecond for each connection.
//!
//! # Invariant
//! An object in the map is alive: a transport that is in it keeps the map, and takes itself out before it dies.
#![expect(unsafe_code, reason = "holds objects without keeping them alive")]

use std::collections::HashMap;
use std::ptr::NonNull;

use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyIterator, PySet};

use super::stream::StreamTransport;
use crate::ffi::gil_cell::GilCell;
use crate::imports::imports;

/// What of a `WeakSet` a server uses.
#[pyclass(module = "aioxide._rust", frozen)]
#[derive(Default)]
pub struct Clients(GilCell<HashMap<Inside, Alive>>);

/// Where a transport's Rust half is: what it knows of itself when it dies.
type Inside = usize;

/// An object that is alive as long as it is in the map.
struct Alive(NonNull<ffi::PyObject>);

// SAFETY: it is only looked at with the GIL held; without a GIL there are no such maps (`serve`).
unsafe impl Send for Alive {}

impl Clients {
    /// Give a server that has no connections yet such a map, where its Python and its class know them.
    pub fn serve(server: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = server.py();
        if cfg!(Py_GIL_DISABLED) || !imports(py)?.server_knows_transports {
            return Ok(());
        }
        let name = intern!(py, "_clients");
        let Some(known) = server.getattr_opt(name)? else { return Ok(()) };
        let weak_set = py.import(intern!(py, "weakref"))?.getattr(intern!(py, "WeakSet"))?;
        if known.get_type().is(&weak_set) && known.len()? == 0 {
            server.setattr(name, Bound::new(py, Self::default())?)?;
        }
        Ok(())
    }

    /// Forget a transport, as it is about to die.
    pub fn forget(&self, py: Python<'_>, transport: &StreamTransport) {
        self.0.with(py, |clients| clients.remove(&inside(transport)));
    }
}

fn inside(transport: &StreamTransport) -> Inside {
    std::ptr::from_ref(transport).addr()
}

#[pymethods]
impl Clients {
    fn add(slf: &Bound<'_, Self>, transport: &Bound<'_, StreamTransport>) {
        StreamTransport::enter_clients(transport, Some(slf.clone().unbind()));
        // Never null.
        if let Some(pointer) = NonNull::new(transport.as_ptr()) {
            slf.get().0.with(slf.py(), |clients| clients.insert(inside(transport.get()), Alive(pointer)));
        }
    }

    fn discard(&self, transport: &Bound<'_, StreamTransport>) {
        self.forget(transport.py(), transport.get());
        StreamTransport::enter_clients(transport, None);
    }

    /// Return those that are there now.
    fn copy<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PySet>> {
        let alive: Vec<_> = self.0.with(py, |clients| {
            // SAFETY: alive, by the module's invariant; nothing dies meanwhile, as no Python code runs.
            clients
                .values()
                .map(|client| unsafe { Bound::from_borrowed_ptr(py, client.0.as_ptr()) })
                .collect()
        });
        PySet::new(py, alive)
    }

    fn __len__(&self, py: Python<'_>) -> usize {
        self.0.with(py, |clients| clients.len())
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        self.copy(py)?.try_iter()
    }

    fn __contains__(&self, py: Python<'_>, transport: &Bound<'_, PyAny>) -> bool {
        let Ok(transport) = transport.cast::<StreamTransport>() else { return false };
        self.0.with(py, |clients| clients.contains_key(&inside(transport.get())))
    }
}
