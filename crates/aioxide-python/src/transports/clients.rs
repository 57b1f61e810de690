//! The connections of a server, which it does not keep alive (CPython `asyncio/base_events.py`, `Server._clients`, from
//! Python 3.13 on).
//!
//! It has the place of a `weakref.WeakSet`, which costs a hundred bytes and a microsecond for each connection.
//!
//! # Invariants
//! - An object in the map is whole: a transport that is in it keeps the map, and takes itself out when it is destroyed,
//!   before anything of it is gone. Whoever comes between its last reference and that finds it without references.
//! - A transport is in one map at most.
#![expect(unsafe_code, reason = "holds objects without keeping them alive")]

use std::collections::HashMap;
use std::ptr::NonNull;

use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;
use pyo3::types::{PyIterator, PySet};
use pyo3::{PyTraverseError, ffi, intern};

use super::stream::StreamTransport;
use crate::ffi::gil_cell::GilCell;
use crate::imports::imports;

/// What of a `WeakSet` a server uses.
#[pyclass(module = "aioxide._rust", frozen)]
#[derive(Default)]
pub struct Clients {
    ours: GilCell<HashMap<Inside, Whole>>,
    /// The `WeakSet` of transports of other classes, where there are any.
    others: GilCell<Option<Py<PyAny>>>,
}

/// Where a transport's Rust half is: what it knows of itself when it is destroyed.
type Inside = usize;

/// An object that is whole as long as it is in the map.
struct Whole(NonNull<ffi::PyObject>);

// SAFETY: it is only looked at with the GIL held; without a GIL there are no such maps (`serve`).
unsafe impl Send for Whole {}

impl Whole {
    /// A reference, unless the last one is gone.
    fn upgrade<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        // SAFETY: whole, by the module's invariant.
        if unsafe { ffi::Py_REFCNT(self.0.as_ptr()) } == 0 {
            return None;
        }
        // SAFETY: as above, and it is alive.
        Some(unsafe { Bound::from_borrowed_ptr(py, self.0.as_ptr()) })
    }
}

impl Clients {
    /// Give a server that has no connections yet such a map, where its Python and its class know them.
    pub fn serve(server: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = server.py();
        if cfg!(Py_GIL_DISABLED) || !imports(py)?.server_knows_transports {
            return Ok(());
        }
        let name = intern!(py, "_clients");
        let Some(known) = server.getattr_opt(name)? else { return Ok(()) };
        if known.get_type().is(&weak_set(py)?) && known.len()? == 0 {
            server.setattr(name, Bound::new(py, Self::default())?)?;
        }
        Ok(())
    }

    /// Forget a transport, as it is about to be destroyed.
    pub fn forget(&self, py: Python<'_>, transport: &StreamTransport) {
        self.ours.with(py, |clients| clients.remove(&inside(transport)));
    }

    fn others<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.others.borrow(py).as_ref().map(|others| others.bind(py).clone())
    }
}

fn inside(transport: &StreamTransport) -> Inside {
    std::ptr::from_ref(transport).addr()
}

fn weak_set(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    py.import(intern!(py, "weakref"))?.getattr(intern!(py, "WeakSet"))
}

#[pymethods]
impl Clients {
    fn add(slf: &Bound<'_, Self>, transport: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = slf.py();
        let Ok(transport) = transport.cast::<StreamTransport>() else {
            let others = match slf.get().others(py) {
                Some(others) => others,
                None => weak_set(py)?.call0()?,
            };
            others.call_method1(intern!(py, "add"), (transport,))?;
            let previous = slf.get().others.with(py, |kept| kept.replace(others.unbind()));
            drop(previous);
            return Ok(());
        };
        if let Some(pointer) = NonNull::new(transport.as_ptr()) {
            StreamTransport::enter_clients(transport, slf.clone().unbind());
            slf.get().ours.with(py, |clients| clients.insert(inside(transport.get()), Whole(pointer)));
        }
        Ok(())
    }

    fn discard(slf: &Bound<'_, Self>, transport: &Bound<'_, PyAny>) -> PyResult<()> {
        match transport.cast::<StreamTransport>() {
            Ok(transport) => StreamTransport::leave_clients_of(transport, slf),
            Err(_) => {
                if let Some(others) = slf.get().others(slf.py()) {
                    others.call_method1(intern!(slf.py(), "discard"), (transport,))?;
                }
            }
        }
        Ok(())
    }

    /// Return those that are there now.
    fn copy<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PySet>> {
        let alive: Vec<_> =
            self.ours.with(py, |clients| clients.values().filter_map(|client| client.upgrade(py)).collect());
        let copy = PySet::new(py, alive)?;
        if let Some(others) = self.others(py) {
            for other in others.try_iter()? {
                copy.add(other?)?;
            }
        }
        Ok(copy)
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        let others = self.others(py).map_or(Ok(0), |others| others.len())?;
        Ok(self.ours.with(py, |clients| clients.len()) + others)
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        self.copy(py)?.try_iter()
    }

    fn __contains__(&self, transport: &Bound<'_, PyAny>) -> PyResult<bool> {
        let py = transport.py();
        match transport.cast::<StreamTransport>() {
            Ok(transport) => Ok(self.ours.with(py, |ours| ours.contains_key(&inside(transport.get())))),
            Err(_) => self.others(py).map_or(Ok(false), |others| others.contains(transport)),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.others.look(&visit).map_or(Ok(()), |others| visit.call(&*others))
    }
}
