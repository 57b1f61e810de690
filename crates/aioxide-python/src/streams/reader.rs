//! `StreamReader`: what came, and who waits for it.
//!
//! # Invariants
//! - At most one read waits; a second is refused, as by asyncio.
//! - No Python is called and no Python object dropped while a reader is borrowed.
//! - The transport is paused while more than twice the limit is there, and not while somebody waits.

use std::mem;

use pyo3::exceptions::{PyAssertionError, PyNotImplementedError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyTuple, PyType};
use pyo3::{PyTraverseError, intern};

use super::buffer::Buffer;
use super::methods;
use super::operation::{Operation, Read, not_initialised};
use super::reading::{Attempt, Request, Separators, incomplete, no_more_lines, overrun};
use crate::awaitable::waiter::Waiter;
use crate::awaitable::{Awaitable, Work};
use crate::ffi::buffer::Contiguous;
use crate::ffi::gil_cell::GilCell;

/// The native half of `aioxide.StreamReader`.
#[pyclass(module = "aioxide._rust", subclass, frozen)]
#[derive(Default)]
pub struct StreamReader {
    state: GilCell<State>,
}

#[derive(Default)]
struct State {
    event_loop: Option<Py<PyAny>>,
    buffer: Buffer,
    limit: usize,
    eof: bool,
    exception: Option<Py<PyAny>>,
    transport: Option<Py<PyAny>>,
    paused: bool,
    waiter: Option<Py<Waiter>>,
}

impl StreamReader {
    /// `feed_data(data)`.
    pub fn feed(slf: &Bound<'_, Self>, data: &[u8]) -> PyResult<()> {
        let (waiter, overfull) = {
            let mut this = slf.get().state.borrow_mut(slf.py());
            if this.eof {
                return Err(PyAssertionError::new_err("feed_data after feed_eof"));
            }
            if data.is_empty() {
                return Ok(());
            }
            this.buffer.append(data);
            let is_overfull = !this.paused && this.buffer.len() > this.limit.saturating_mul(2);
            (this.waiter.take(), is_overfull)
        };
        if let Some(waiter) = waiter {
            Waiter::wake(waiter.bind(slf.py()))?;
        }
        if overfull { Self::pause_transport(slf) } else { Ok(()) }
    }

    fn pause_transport(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let Some(transport) = Self::transport_of(slf) else { return Ok(()) };
        match transport.call_method0(py, intern!(py, "pause_reading")) {
            Ok(_) => {
                slf.get().state.borrow_mut(slf.py()).paused = true;
                Ok(())
            }
            // It cannot be paused, so everything is kept; asyncio tries no more either.
            Err(error) if error.is_instance_of::<PyNotImplementedError>(py) => {
                let forgotten = slf.get().state.borrow_mut(slf.py()).transport.take();
                drop(forgotten);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn transport_of(slf: &Bound<'_, Self>) -> Option<Py<PyAny>> {
        slf.get().state.borrow(slf.py()).transport.as_ref().map(|transport| transport.clone_ref(slf.py()))
    }

    /// Let the transport read on where it was paused, and there is room or `urgently` somebody waits.
    fn resume_transport(slf: &Bound<'_, Self>, urgently: bool) -> PyResult<()> {
        {
            let mut this = slf.get().state.borrow_mut(slf.py());
            if !this.paused || !urgently && this.buffer.len() > this.limit {
                return Ok(());
            }
            this.paused = false;
        }
        let py = slf.py();
        match Self::transport_of(slf) {
            Some(transport) => transport.call_method0(py, intern!(py, "resume_reading")).map(drop),
            None => Ok(()),
        }
    }

    /// What set_exception() was given.
    pub fn failure(slf: &Bound<'_, Self>) -> Option<PyErr> {
        let this = slf.get().state.borrow(slf.py());
        this.exception.as_ref().map(|exception| PyErr::from_value(exception.bind(slf.py()).clone()))
    }

    /// Answer a request; `None` where it must wait.
    pub fn answer(slf: &Bound<'_, Self>, request: &mut Request) -> PyResult<Option<Py<PyAny>>> {
        let py = slf.py();
        loop {
            let attempt = {
                let mut this = slf.get().state.borrow_mut(slf.py());
                let (limit, eof) = (this.limit, this.eof);
                request.attempt(py, &mut this.buffer, limit, eof)
            };
            match attempt {
                Attempt::Wait => return Ok(None),
                Attempt::Take(length) => {
                    let taken = Self::take(slf, length);
                    Self::resume_transport(slf, false)?;
                    return Ok(Some(taken.into_any().unbind()));
                }
                Attempt::Collected(collected) => {
                    Self::resume_transport(slf, false)?;
                    return Ok(Some(PyBytes::new(py, &collected).into_any().unbind()));
                }
                Attempt::Again => {
                    Self::resume_transport(slf, false)?;
                    if let Some(failure) = Self::failure(slf) {
                        return Err(failure);
                    }
                }
                Attempt::Incomplete(expected) => {
                    let partial = Self::take_all(slf);
                    return Err(incomplete(py, partial, expected)?);
                }
                Attempt::TooLong(text, consumed) => return Err(overrun(py, text, consumed)?),
                Attempt::LineTooLong(text, dropped) => {
                    slf.get().state.borrow_mut(slf.py()).buffer.consume(dropped);
                    Self::resume_transport(slf, false)?;
                    return Err(PyValueError::new_err(text));
                }
                Attempt::NoMoreLines => return Err(no_more_lines()),
                Attempt::Nothing => return Ok(Some(py.None())),
            }
        }
    }

    fn take<'py>(slf: &Bound<'py, Self>, length: usize) -> Bound<'py, PyBytes> {
        let mut this = slf.get().state.borrow_mut(slf.py());
        let taken = PyBytes::new(slf.py(), &this.buffer.bytes()[..length]);
        this.buffer.consume(length);
        taken
    }

    fn take_all<'py>(slf: &Bound<'py, Self>) -> Bound<'py, PyBytes> {
        let length = slf.get().state.borrow(slf.py()).buffer.len();
        Self::take(slf, length)
    }

    /// Begin to wait for more.
    pub fn wait(slf: &Bound<'_, Self>, method: &str) -> PyResult<Py<Waiter>> {
        let py = slf.py();
        let event_loop = {
            let this = slf.get().state.borrow(slf.py());
            if this.waiter.is_some() {
                return Err(PyRuntimeError::new_err(format!(
                    "{method}() called while another coroutine is already waiting for incoming data"
                )));
            }
            this.event_loop.as_ref().map(|event_loop| event_loop.clone_ref(py))
        };
        let event_loop = event_loop.ok_or_else(|| not_initialised("StreamReader"))?;
        // Waiting for what a paused transport does not read would be for ever.
        Self::resume_transport(slf, true)?;
        let waiter = Waiter::new(py, event_loop)?;
        slf.get().state.borrow_mut(slf.py()).waiter = Some(waiter.clone_ref(py));
        Ok(waiter)
    }

    /// Wait no longer.
    pub fn forget(slf: &Bound<'_, Self>, waiter: &Py<Waiter>) {
        let forgotten = {
            let mut this = slf.get().state.borrow_mut(slf.py());
            let is_it = this.waiter.as_ref().is_some_and(|present| present.is(waiter));
            if is_it { this.waiter.take() } else { None }
        };
        drop(forgotten);
    }

    /// What awaits an answer to a request; `name` is that of the method that made it.
    pub(super) fn request(
        slf: &Bound<'_, Self>,
        name: &'static str,
        request: Request,
    ) -> PyResult<Py<Awaitable>> {
        let read = Operation::Read(Read::new(slf.clone().unbind(), request));
        Awaitable::new(slf.py(), name, Work::Stream(read))
    }
}

#[pymethods]
impl StreamReader {
    /// Give a class that is derived from this one the methods of `methods.rs` as its own, as that of the loop does.
    #[classmethod]
    fn _adopt_fast_methods(class: &Bound<'_, PyType>) -> PyResult<()> {
        methods::add_to_readers(class)
    }

    #[new]
    #[pyo3(signature = (*_arguments, **_keywords))]
    fn new(_arguments: &Bound<'_, PyTuple>, _keywords: Option<&Bound<'_, PyDict>>) -> Self {
        Self::default()
    }

    #[pyo3(signature = (limit, r#loop))]
    fn __init__(slf: &Bound<'_, Self>, limit: &Bound<'_, PyAny>, r#loop: Py<PyAny>) -> PyResult<()> {
        if limit.le(0)? {
            return Err(PyValueError::new_err("Limit cannot be <= 0"));
        }
        let limit = limit.extract::<usize>()?;
        let previous = {
            let mut this = slf.get().state.borrow_mut(slf.py());
            this.limit = limit;
            this.event_loop.replace(r#loop)
        };
        drop(previous);
        Ok(())
    }

    // Feeding.

    /// Add bytes that came.
    fn feed_data(slf: &Bound<'_, Self>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        if let Ok(data) = data.cast::<PyBytes>() {
            return Self::feed(slf, data.as_bytes());
        }
        let data = Contiguous::of(data)?.read(<[u8]>::to_vec);
        Self::feed(slf, &data)
    }

    /// Say that nothing more will come.
    fn feed_eof(slf: &Bound<'_, Self>) -> PyResult<()> {
        let waiter = {
            let mut this = slf.get().state.borrow_mut(slf.py());
            this.eof = true;
            this.waiter.take()
        };
        Ok(waiter.map_or(Ok(()), |waiter| Waiter::wake(waiter.bind(slf.py())))?)
    }

    /// Return whether everything that will ever come was read.
    fn at_eof(&self, py: Python<'_>) -> bool {
        let state = self.state.borrow(py);
        state.eof && state.buffer.is_empty()
    }

    /// Return the exception that reading raises, or None.
    fn exception(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.state.borrow(py).exception.as_ref().map(|exception| exception.clone_ref(py))
    }

    /// Let reading raise an exception from now on.
    fn set_exception(slf: &Bound<'_, Self>, exc: Py<PyAny>) -> PyResult<()> {
        let py = slf.py();
        let (previous, waiter) = {
            let mut this = slf.get().state.borrow_mut(slf.py());
            (this.exception.replace(exc.clone_ref(py)), this.waiter.take())
        };
        drop(previous);
        Ok(waiter.map_or(Ok(()), |waiter| Waiter::fail(waiter.bind(py), exc))?)
    }

    /// Name the transport that is paused while too much is there.
    fn set_transport(slf: &Bound<'_, Self>, transport: Py<PyAny>) -> PyResult<()> {
        let mut this = slf.get().state.borrow_mut(slf.py());
        if this.transport.is_some() {
            return Err(PyAssertionError::new_err("Transport already set"));
        }
        this.transport = Some(transport);
        Ok(())
    }

    // Reading. `read`, `readexactly` and `readline` are in `methods.rs`.

    /// Read up to and with a separator, or the first of a tuple of them.
    #[pyo3(signature = (separator=None), text_signature = "($self, separator=b'\\n')")]
    fn readuntil(slf: &Bound<'_, Self>, separator: Option<&Bound<'_, PyAny>>) -> PyResult<Py<Awaitable>> {
        let separators = match separator {
            Some(separator) => Separators::of(separator)?,
            None => Separators::One(PyBytes::new(slf.py(), b"\n").unbind()),
        };
        Self::request(slf, "StreamReader.readuntil", Request::ReadUntil(separators, 0))
    }

    fn __aiter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    /// Read the next line of `async for`.
    fn __anext__(slf: &Bound<'_, Self>) -> PyResult<Py<Awaitable>> {
        Self::request(slf, "StreamReader.__anext__", Request::Next(0))
    }

    // What asyncio's class has under these names, for its subclasses and those who look at them.

    /// Wait until more comes, or the end.
    fn _wait_for_data(slf: &Bound<'_, Self>, _func_name: &Bound<'_, PyAny>) -> PyResult<Py<Awaitable>> {
        Self::request(slf, "StreamReader._wait_for_data", Request::More(false))
    }

    /// A copy of what has come.
    #[getter]
    fn _buffer<'py>(&self, py: Python<'py>) -> Bound<'py, PyByteArray> {
        PyByteArray::new(py, self.state.borrow(py).buffer.bytes())
    }

    /// Take out what has come: it belongs to TLS.
    fn _take_received<'py>(slf: &Bound<'py, Self>) -> Bound<'py, PyBytes> {
        Self::take_all(slf)
    }

    #[getter]
    fn _eof(&self, py: Python<'_>) -> bool {
        self.state.borrow(py).eof
    }

    #[getter]
    fn _exception(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.exception(py)
    }

    #[getter]
    fn _limit(&self, py: Python<'_>) -> usize {
        self.state.borrow(py).limit
    }

    #[getter]
    fn _loop(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.state.borrow(py).event_loop.as_ref().map(|event_loop| event_loop.clone_ref(py))
    }

    #[getter]
    fn _paused(&self, py: Python<'_>) -> bool {
        self.state.borrow(py).paused
    }

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
    fn _waiter(&self, py: Python<'_>) -> Option<Py<Waiter>> {
        self.state.borrow(py).waiter.as_ref().map(|waiter| waiter.clone_ref(py))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Some(state) = self.state.look(&visit) else { return Ok(()) };
        visit.call(&state.event_loop)?;
        visit.call(&state.exception)?;
        visit.call(&state.transport)?;
        visit.call(&state.waiter)
    }

    fn __clear__(&self, py: Python<'_>) {
        let taken = mem::take(&mut *self.state.borrow_mut(py));
        drop(taken);
    }
}
