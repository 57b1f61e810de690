//! What Python code gets that asks a future for `__await__()` or `iter()` instead of awaiting it.

use pyo3::PyTraverseError;
use pyo3::exceptions::PyStopIteration;
use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;
use pyo3::types::PyTuple;

use super::future::{Future, asyncio_future};
use crate::event_loop::EventLoop;
use crate::ffi::gil_cell::GilCell;
use crate::ffi::iteration::{Step, Steps};

/// An iterator that yields its future once and ends with its result.
#[pyclass(module = "aioxide", frozen, name = "FutureIter")]
pub struct FutureIterator {
    event_loop: Py<EventLoop>,
    /// None once the iteration has ended.
    future: GilCell<Option<Py<Future>>>,
}

impl FutureIterator {
    /// Iterate over `future`.
    pub fn over(future: &Bound<'_, Future>) -> PyResult<Py<Self>> {
        let py = future.py();
        let event_loop = future.get().event_loop().clone_ref(py);
        Py::new(py, Self { event_loop, future: GilCell::new(Some(future.clone().unbind())) })
    }

    fn future<'py>(&self, py: Python<'py>) -> Option<Bound<'py, Future>> {
        self.future.with(py, |future| future.as_ref().map(|future| future.bind(py).clone()))
    }

    fn take(&self, py: Python<'_>) -> Option<Py<Future>> {
        self.future.with(py, Option::take)
    }
}

#[pymethods]
impl FutureIterator {
    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let Some(future) = self.future(py) else { return Ok(None) };
        let polled = Future::step(&future, None);
        if !matches!(polled, Ok(Step::Yield(_))) && !future.get().is_pending(py) {
            drop(self.take(py));
        }
        match polled? {
            Step::Yield(future) => Ok(Some(future)),
            Step::Done(value) => Err(PyStopIteration::new_err((value,))),
        }
    }

    /// Go on waiting; the value is not used.
    #[pyo3(signature = (value, /))]
    fn send(&self, value: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        match self.__next__(value.py())? {
            Some(future) => Ok(future),
            None => Err(PyStopIteration::new_err(())),
        }
    }

    /// Raise an exception, and end.
    #[pyo3(signature = (*arguments))]
    fn throw(&self, arguments: &Bound<'_, PyTuple>) -> PyResult<Py<PyAny>> {
        let py = arguments.py();
        // Which arguments go together is a matter of Python's version: asyncio's own iterator knows.
        let iterator = asyncio_future(self.event_loop.bind(py))?.call_method0("__await__")?;
        let thrown = iterator.call_method1("throw", arguments.clone());
        drop(self.take(py));
        thrown.map(Bound::unbind)
    }

    /// End.
    fn close(&self, py: Python<'_>) {
        drop(self.take(py));
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.event_loop)?;
        self.future.look(&visit).map_or(Ok(()), |future| visit.call(&*future))
    }

    fn __clear__(slf: &Bound<'_, Self>) {
        drop(slf.get().take(slf.py()));
    }
}
