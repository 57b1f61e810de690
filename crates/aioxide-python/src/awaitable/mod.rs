//! Native work as a Python awaitable, in the place of a coroutine.
//!
//! An [`Awaitable`] is a `collections.abc.Coroutine`: `await` it, or give it to whatever takes a coroutine. Nothing
//! happens before that. It runs inside the task that awaits it, on the loop's thread and in the task's context. What can
//! be answered at once is answered without a future, a queue or a wake; what must wait yields a
//! [`Waiter`](waiter::Waiter), an object of its own, because what is coroutine-like and future-like at once is taken for
//! the wrong one by `gather` and `wait_for`.
//!
//! # Invariants
//! - Nothing is polled, called or dropped while an awaitable is borrowed: its work is taken out meanwhile.
//! - An exception thrown into it (cancellation) finds the work dropped by the time it goes on.
//! - Work that panicked is dropped, and its task alone gets an exception.

pub mod extension;
pub mod future;
pub mod trial;
pub mod waiter;

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::exceptions::{
    PyRuntimeError, PyRuntimeWarning, PyStopIteration, PySystemError, PyTypeError, PyValueError,
};
use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;
use pyo3::types::{PyTraceback, PyType};
use pyo3::{Borrowed, PyTraverseError};

use self::future::RustFuture;
use crate::clients::redis::call::Call;
use crate::error::warn;
use crate::event_loop::connecting::Connecting;
use crate::event_loop::socket_calls::SocketCall;
use crate::ffi::collector;
use crate::ffi::free_list::{FreeList, Recycled};
use crate::ffi::gil_cell::GilCell;
pub use crate::ffi::iteration::Step;
use crate::ffi::iteration::{self, Steps, returned};
use crate::streams::operation::Operation;

/// The closed list of what can be awaited.
pub enum Work {
    /// A method of a stream.
    Stream(Operation),
    /// A call on a plain socket.
    Socket(SocketCall),
    /// A connection to be made.
    Connect(Box<Connecting>),
    /// Any Rust future.
    Future(RustFuture),
    /// A call of the Redis client.
    Redis(Box<Call>),
}

impl Work {
    /// Go on, or fail with what was thrown in.
    fn advance(&mut self, py: Python<'_>, thrown: Option<PyErr>) -> PyResult<Step> {
        match (self, thrown) {
            (Self::Stream(operation), None) => operation.advance(py),
            (Self::Stream(operation), Some(error)) => operation.throw(py, error),
            (Self::Socket(call), None) => call.advance(py),
            (Self::Connect(connecting), None) => connecting.advance(py),
            (Self::Connect(connecting), Some(error)) => connecting.throw(py, error),
            (Self::Future(future), None) => future.advance(py),
            (Self::Redis(call), None) => call.advance(py),
            (Self::Socket(_) | Self::Future(_) | Self::Redis(_), Some(error)) => Err(error),
        }
    }

    /// Whether nothing has happened yet that it waits for.
    fn is_waiting(&self, py: Python<'_>) -> bool {
        match self {
            Self::Stream(operation) => operation.is_waiting(py),
            Self::Socket(call) => call.is_waiting(py),
            Self::Connect(connecting) => connecting.is_waiting(py),
            Self::Future(future) => future.is_waiting(),
            Self::Redis(call) => call.is_waiting(py),
        }
    }

    fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Self::Stream(operation) => operation.traverse(visit),
            Self::Socket(call) => call.traverse(visit),
            Self::Connect(connecting) => connecting.traverse(visit),
            Self::Future(future) => future.traverse(visit),
            Self::Redis(call) => call.traverse(visit),
        }
    }
}

/// Where an awaitable is in its life.
enum State {
    /// Nobody awaited it yet.
    Created(Work),
    /// It waits.
    Suspended(Work),
    /// It is at work at this moment.
    Running,
    /// It is over.
    Finished,
}

/// Native work that Python can await.
#[pyclass(module = "aioxide", frozen)]
pub struct Awaitable {
    state: GilCell<State>,
    /// What a coroutine of the same purpose is called.
    name: &'static str,
}

impl Awaitable {
    /// Wrap work; `name` is the qualified name of the method that returns it.
    pub fn new(py: Python<'_>, name: &'static str, work: Work) -> PyResult<Py<Self>> {
        Py::new(py, Self { state: GilCell::new(State::Created(work)), name })
    }

    fn replace(&self, py: Python<'_>, state: State) -> State {
        mem::replace(&mut *self.state.borrow_mut(py), state)
    }

    /// Let the work go on, with an exception or without.
    fn advance(slf: &Bound<'_, Self>, thrown: Option<PyErr>) -> PyResult<Step> {
        let py = slf.py();
        let name = slf.get().name;
        let state = slf.get().replace(py, State::Running);
        // What was there meanwhile is `Running`, which drops nothing.
        let put_back = |state: State| drop(slf.get().replace(py, state));
        let mut work = match state {
            State::Suspended(work) if thrown.is_none() && work.is_waiting(py) => {
                put_back(State::Suspended(work));
                return Err(PyRuntimeError::new_err(format!("{name}() is being awaited already")));
            }
            State::Created(work) => match thrown {
                // Nothing of it has begun.
                Some(error) => {
                    put_back(State::Finished);
                    drop(work);
                    return Err(error);
                }
                None => work,
            },
            State::Suspended(work) => work,
            State::Running => return Err(PyValueError::new_err("coroutine already executing")),
            State::Finished => {
                put_back(State::Finished);
                return Err(reused(name));
            }
        };
        let advanced = catch_unwind(AssertUnwindSafe(|| work.advance(py, thrown))).unwrap_or_else(|_| {
            Err(PySystemError::new_err(format!("{name}() panicked; please report this as a bug")))
        });
        if matches!(advanced, Ok(Step::Yield(_))) {
            put_back(State::Suspended(work));
            // From now on it may be in a cycle that nothing else knows of.
            collector::show(slf);
            return advanced;
        }
        put_back(State::Finished);
        drop(work);
        match advanced {
            // Who awaits would take it for the end (PEP 479).
            Err(error) if error.is_instance_of::<PyStopIteration>(py) => {
                let wrapped = PyRuntimeError::new_err("coroutine raised StopIteration");
                wrapped.set_cause(py, Some(error));
                Err(wrapped)
            }
            advanced => advanced,
        }
    }

    /// A step as the methods answer it: a value is the argument of a StopIteration.
    fn answer(py: Python<'_>, step: PyResult<Step>) -> PyResult<Py<PyAny>> {
        match step? {
            Step::Yield(yielded) => Ok(yielded),
            Step::Done(value) if value.is_none(py) => Err(PyStopIteration::new_err(())),
            Step::Done(value) => Err(returned(py, value)),
        }
    }

    /// Add the slots that PyO3 would fill more slowly, or not at all.
    pub fn add_slots(class: &Bound<'_, PyType>) -> PyResult<()> {
        iteration::install::<Self>(class)
    }
}

impl Recycled for Awaitable {
    fn free_list() -> &'static FreeList {
        static LIST: FreeList = FreeList::new();
        &LIST
    }
}

impl Steps for Awaitable {
    fn step(slf: &Bound<'_, Self>, sent: Option<Borrowed<'_, '_, PyAny>>) -> PyResult<Step> {
        if let Some(sent) = sent
            && !sent.is_none()
            && matches!(*slf.get().state.borrow(slf.py()), State::Created(_))
        {
            return Err(PyTypeError::new_err("can't send non-None value to a just-started coroutine"));
        }
        Self::advance(slf, None)
    }
}

#[pymethods]
impl Awaitable {
    fn __await__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        Self::answer(slf.py(), Self::advance(slf, None))
    }

    /// Go on until it waits or is done; the value must be None while it has not begun.
    fn send(slf: &Bound<'_, Self>, value: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        Self::answer(slf.py(), Self::step(slf, Some(value.as_borrowed())))
    }

    /// End the work, and raise the exception.
    #[pyo3(signature = (kind, value=None, traceback=None, /))]
    fn throw(
        slf: &Bound<'_, Self>,
        kind: &Bound<'_, PyAny>,
        value: Option<Bound<'_, PyAny>>,
        traceback: Option<Bound<'_, PyTraceback>>,
    ) -> PyResult<Py<PyAny>> {
        let error = exception_of(kind, value)?;
        if traceback.is_some() {
            error.set_traceback(slf.py(), traceback);
        }
        Self::answer(slf.py(), Self::advance(slf, Some(error)))
    }

    /// End the work.
    fn close(slf: &Bound<'_, Self>) -> PyResult<()> {
        let state = slf.get().replace(slf.py(), State::Running);
        if matches!(state, State::Running) {
            return Err(PyValueError::new_err("coroutine already executing"));
        }
        slf.get().replace(slf.py(), State::Finished);
        drop(state);
        Ok(())
    }

    #[getter]
    fn __name__(&self) -> &'static str {
        self.name.rsplit('.').next().unwrap_or(self.name)
    }

    #[getter]
    fn __qualname__(&self) -> &'static str {
        self.name
    }

    /// Whether it is at work at this moment, as a coroutine's.
    #[getter]
    fn cr_running(&self, py: Python<'_>) -> bool {
        matches!(*self.state.borrow(py), State::Running)
    }

    fn __repr__(slf: &Bound<'_, Self>) -> String {
        format!("<awaitable {} at {:p}>", slf.get().name, slf.as_ptr())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self.state.look(&visit).as_deref() {
            Some(State::Created(work) | State::Suspended(work)) => work.traverse(&visit),
            Some(State::Running | State::Finished) | None => Ok(()),
        }
    }

    fn __clear__(&self, py: Python<'_>) {
        drop(self.replace(py, State::Finished));
    }
}

impl Drop for Awaitable {
    /// Forgetting `await` is a mistake that coroutines warn of.
    fn drop(&mut self) {
        if !matches!(self.state.get_mut(), State::Created(_)) {
            return;
        }
        let name = self.name;
        // Where the interpreter is gone there is nobody to warn.
        let _ = Python::try_attach(|py| {
            warn::<PyRuntimeWarning>(py, &format!("coroutine '{name}' was never awaited"));
        });
    }
}

fn reused(name: &str) -> PyErr {
    PyRuntimeError::new_err(format!("cannot reuse already awaited {name}()"))
}

/// The exception that the arguments of `throw` mean.
fn exception_of(kind: &Bound<'_, PyAny>, value: Option<Bound<'_, PyAny>>) -> PyResult<PyErr> {
    let Ok(class) = kind.cast::<PyType>() else { return Ok(PyErr::from_value(kind.clone())) };
    let exception = match value {
        Some(value) if value.is_instance(class)? => value,
        Some(value) if !value.is_none() => class.call1((value,))?,
        _ => class.call0()?,
    };
    Ok(PyErr::from_value(exception))
}
