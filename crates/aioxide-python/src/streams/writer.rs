//! `StreamWriter`: a transport, and `drain`.

use std::mem;

use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;
use pyo3::types::{PyDict, PyTuple, PyType};
use pyo3::{PyTraverseError, intern};

use super::methods;
use super::operation::{Drain, Operation, not_initialised};
use super::reader::StreamReader;
use crate::awaitable::{Awaitable, Work};
use crate::ffi::gil_cell::GilCell;
use crate::transports::stream::StreamTransport;

/// The native half of `aioxide.StreamWriter`.
#[pyclass(module = "aioxide._rust", subclass, frozen)]
#[derive(Default)]
pub struct StreamWriter {
    state: GilCell<State>,
}

#[derive(Default)]
struct State {
    transport: Option<Py<PyAny>>,
    protocol: Option<Py<PyAny>>,
    reader: Option<Py<PyAny>>,
    event_loop: Option<Py<PyAny>>,
}

impl StreamWriter {
    fn transport_of<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let this = slf.get().state.borrow(slf.py());
        let transport = this.transport.as_ref().ok_or_else(|| not_initialised("StreamWriter"))?;
        Ok(transport.bind(slf.py()).clone())
    }

    /// The protocol, which knows whether writing is paused.
    pub fn protocol_of<'py>(slf: &Bound<'py, Self>, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let this = slf.get().state.borrow(slf.py());
        let protocol = this.protocol.as_ref().ok_or_else(|| not_initialised("StreamWriter"))?;
        Ok(protocol.bind(py).clone())
    }

    /// Raise what the reader would raise.
    pub fn check_reader(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let reader = slf.get().state.borrow(slf.py()).reader.as_ref().map(|reader| reader.clone_ref(py));
        let Some(reader) = reader.map(|reader| reader.into_bound(py)) else { return Ok(()) };
        if super::is_our_reader(&reader)
            && let Ok(reader) = reader.cast::<StreamReader>()
        {
            return StreamReader::failure(reader).map_or(Ok(()), Err);
        }
        let exception = reader.call_method0(intern!(py, "exception"))?;
        if exception.is_none() { Ok(()) } else { Err(PyErr::from_value(exception)) }
    }

    /// `transport.is_closing()`.
    pub fn is_closing_transport(slf: &Bound<'_, Self>) -> PyResult<bool> {
        let transport = Self::transport_of(slf)?;
        match transport.cast_exact::<StreamTransport>() {
            Ok(transport) => Ok(StreamTransport::is_closing(transport)),
            Err(_) => transport.call_method0(intern!(slf.py(), "is_closing"))?.is_truthy(),
        }
    }

    /// `write(data)`.
    pub(super) fn write(slf: &Bound<'_, Self>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let transport = Self::transport_of(slf)?;
        match transport.cast_exact::<StreamTransport>() {
            Ok(transport) => StreamTransport::write_data(transport, data),
            Err(_) => transport.call_method1(intern!(slf.py(), "write"), (data,)).map(drop),
        }
    }

    /// `drain()`.
    pub(super) fn drain(slf: &Bound<'_, Self>) -> PyResult<Py<Awaitable>> {
        let drain = Operation::Drain(Drain::new(slf.clone().unbind()));
        Awaitable::new(slf.py(), "StreamWriter.drain", Work::Stream(drain))
    }
}

#[pymethods]
impl StreamWriter {
    /// Give a class that is derived from this one the methods of `methods.rs` as its own, as that of the loop does.
    #[classmethod]
    fn _adopt_fast_methods(class: &Bound<'_, PyType>) -> PyResult<()> {
        methods::add_to_writers(class)
    }

    #[new]
    #[pyo3(signature = (*_arguments, **_keywords))]
    fn new(_arguments: &Bound<'_, PyTuple>, _keywords: Option<&Bound<'_, PyDict>>) -> Self {
        Self::default()
    }

    fn __init__(
        slf: &Bound<'_, Self>,
        transport: Py<PyAny>,
        protocol: Py<PyAny>,
        reader: Option<Py<PyAny>>,
        r#loop: Py<PyAny>,
    ) {
        let made =
            State { transport: Some(transport), protocol: Some(protocol), reader, event_loop: Some(r#loop) };
        let previous = mem::replace(&mut *slf.get().state.borrow_mut(slf.py()), made);
        drop(previous);
    }

    /// Return whether the transport is closing or closed.
    fn is_closing(slf: &Bound<'_, Self>) -> PyResult<bool> {
        Self::is_closing_transport(slf)
    }

    /// The transport.
    #[getter]
    fn transport(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self._transport(py)
    }

    // What asyncio's class keeps under these names, for its own methods.

    #[getter]
    fn _transport(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.state.borrow(py).transport.as_ref().map(|transport| transport.clone_ref(py))
    }

    #[setter(_transport)]
    fn replace_transport(slf: &Bound<'_, Self>, transport: Option<Py<PyAny>>) {
        let previous = mem::replace(&mut slf.get().state.borrow_mut(slf.py()).transport, transport);
        drop(previous);
    }

    #[getter]
    fn _protocol(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.state.borrow(py).protocol.as_ref().map(|protocol| protocol.clone_ref(py))
    }

    #[getter]
    fn _reader(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.state.borrow(py).reader.as_ref().map(|reader| reader.clone_ref(py))
    }

    #[setter(_reader)]
    fn replace_reader(slf: &Bound<'_, Self>, reader: Option<Py<PyAny>>) {
        let previous = mem::replace(&mut slf.get().state.borrow_mut(slf.py()).reader, reader);
        drop(previous);
    }

    #[getter]
    fn _loop(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.state.borrow(py).event_loop.as_ref().map(|event_loop| event_loop.clone_ref(py))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Some(state) = self.state.look(&visit) else { return Ok(()) };
        visit.call(&state.transport)?;
        visit.call(&state.protocol)?;
        visit.call(&state.reader)?;
        visit.call(&state.event_loop)
    }

    fn __clear__(&self, py: Python<'_>) {
        let taken = mem::take(&mut *self.state.borrow_mut(py));
        drop(taken);
    }
}
