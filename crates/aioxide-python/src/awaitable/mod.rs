//! Native work as a Python awaitable, in the place of a coroutine.
//!
//! An [`Awaitable`] is a `collections.abc.Coroutine`: `await` it, or give it to whatever takes a coroutine. Nothing
//! happens before that. It runs inside the task that awaits it, on the loop's thread and in the task's context. What can
//! be answered at once is answered without a future, a queue or a wake; what must wait yields a
//! [`Waiter`](waiter::Waiter), an object of its own, because what is coroutine-like and future-like at once is taken for
//! the wrong one by `gather` and `wait_for`.
//!
//! # Invariants
//! - Work is borrowed while it is at work or dropped; who comes to the awaitable meanwhile sees its phase first, and
//!   leaves the work alone.
//! - An exception thrown into it (cancellation) finds the work dropped by the time it goes on.
//! - A future that is done is dropped by the step that it ended in, in which the awaitable still runs; all other work when
//!   the awaitable is over.
//! - Work that panicked is dropped, and its task alone gets an exception.

pub mod extension;
pub mod future;
pub mod trial;
pub mod waiter;

use std::mem;
use std::sync::OnceLock;

use pyo3::exceptions::{
    PyRuntimeError, PyRuntimeWarning, PyStopIteration, PySystemError, PyTypeError, PyValueError,
};
use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;
use pyo3::types::{PyTraceback, PyType};
use pyo3::{Borrowed, PyTraverseError, ffi};

use self::future::RustFuture;
use crate::clients::redis::call::Call;
use crate::error::{ThinErr, ThinResult, warn};
use crate::event_loop::connecting::Connecting;
use crate::event_loop::socket_calls::SocketCall;
use crate::ffi::collector;
use crate::ffi::gil_cell::{GilCell, GilValue};
pub use crate::ffi::iteration::Step;
use crate::ffi::iteration::{self, Steps, returned};
use crate::ffi::reuse::{Kept, Reused};
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
    fn advance(&mut self, py: Python<'_>, thrown: Option<ThinErr>) -> ThinResult<Step> {
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
    fn is_waiting(&mut self, py: Python<'_>) -> bool {
        match self {
            Self::Stream(operation) => operation.is_waiting(py),
            Self::Socket(call) => call.is_waiting(py),
            Self::Connect(connecting) => connecting.is_waiting(py),
            Self::Future(future) => future.is_waiting(),
            Self::Redis(call) => call.is_waiting(py),
        }
    }

    fn traverse(&mut self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
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
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nobody awaited it yet.
    Created,
    /// It waits.
    Suspended,
    /// It is at work at this moment.
    Running,
    /// It is over.
    Finished,
}

/// Native work that Python can await.
#[pyclass(module = "aioxide", frozen)]
pub struct Awaitable {
    phase: GilValue<Phase>,
    /// What a coroutine of the same purpose is called.
    name: GilValue<&'static str>,
    /// What it does; `None` once it is over. Touched by who has seen that it neither runs nor is over.
    work: GilCell<Option<Work>>,
}

impl Awaitable {
    /// Wrap work; `name` is the qualified name of the method that returns it.
    pub fn new(py: Python<'_>, name: &'static str, work: Work) -> PyResult<Py<Self>> {
        Self::of_made(py, name, || work)
    }

    /// As [`Awaitable::new`], for work that is made in the place that it will have; `make` calls no Python.
    #[inline(always)]
    pub fn of_made(py: Python<'_>, name: &'static str, make: impl FnOnce() -> Work) -> PyResult<Py<Self>> {
        let awaitable = match KEPT.take(py) {
            Some(kept) => kept.into_bound(py),
            None => {
                let phase = GilValue::new(Phase::Finished);
                Bound::new(py, Self { phase, name: GilValue::new(name), work: GilCell::new(None) })?
            }
        };
        let this = awaitable.get();
        let mut work = this.work.borrow_mut(py);
        // It is none already; said once more, what is made next is made here and not moved here.
        *work = None;
        *work = Some(make());
        drop(work);
        this.name.set(py, name);
        this.phase.set(py, Phase::Created);
        Ok(awaitable.unbind())
    }

    /// Drop the work of one that is not over, in its place: what runs by that finds the awaitable over.
    fn finish(&self, py: Python<'_>) {
        self.phase.set(py, Phase::Finished);
        let mut work = self.work.borrow_mut(py);
        if let Some(Work::Future(future)) = &mut *work {
            future.finish(py);
            // It holds nothing any more, which its drop would have to find out.
            mem::forget(work.take());
        } else {
            *work = None;
        }
    }

    fn is_waiting(&self, py: Python<'_>) -> bool {
        self.work.borrow_mut(py).as_mut().is_some_and(|work| work.is_waiting(py))
    }

    /// Let the work go on, with an exception or without.
    #[inline]
    fn advance(slf: &Bound<'_, Self>, thrown: Option<ThinErr>) -> ThinResult<Step> {
        let py = slf.py();
        let this = slf.get();
        match (this.phase.get(py), &thrown) {
            (Phase::Running, _) => return Err(PyValueError::new_err("coroutine already executing").into()),
            (Phase::Finished, _) => return Err(this.reused(py)),
            (Phase::Suspended, None) if this.is_waiting(py) => {
                let text = format!("{}() is being awaited already", this.name.get(py));
                return Err(PyRuntimeError::new_err(text).into());
            }
            (Phase::Created, Some(_)) => {
                // Nothing of it has begun.
                this.finish(py);
                return Err(thrown.unwrap_or_else(|| this.reused(py)));
            }
            _ => {}
        }
        this.phase.set(py, Phase::Running);
        let advanced = {
            let mut work = this.work.borrow_mut(py);
            let Some(work) = &mut *work else {
                this.phase.set(py, Phase::Finished);
                return Err(this.reused(py));
            };
            work.advance(py, thrown)
        };
        // Taken apart word by word, as it was written.
        match advanced {
            Ok(Step::Yield(yielded)) => {
                this.phase.set(py, Phase::Suspended);
                // From now on it may be in a cycle that nothing else knows of.
                collector::show(slf);
                Ok(Step::Yield(yielded))
            }
            Ok(Step::Done(value)) => {
                this.finish(py);
                Ok(Step::Done(value))
            }
            Err(error) => {
                this.finish(py);
                Err(without_stop_iteration(py, error.into()).into())
            }
        }
    }

    /// What awaiting it fails with once it is over.
    #[cold]
    fn reused(&self, py: Python<'_>) -> ThinErr {
        PyRuntimeError::new_err(format!("cannot reuse already awaited {}()", self.name.get(py))).into()
    }

    /// Make a step, and answer as the methods do: a value is the argument of a StopIteration.
    fn answer(slf: &Bound<'_, Self>, step: impl FnOnce() -> ThinResult<Step>) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        match iteration::caught(slf, step)? {
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

/// Who awaits would take a StopIteration for the end (PEP 479).
#[cold]
fn without_stop_iteration(py: Python<'_>, error: PyErr) -> PyErr {
    if !error.is_instance_of::<PyStopIteration>(py) {
        return error;
    }
    let wrapped = PyRuntimeError::new_err("coroutine raised StopIteration");
    wrapped.set_cause(py, Some(error));
    wrapped
}

/// Those that are over.
static KEPT: Kept<Awaitable> = Kept::new();

impl Reused for Awaitable {
    fn kept(&self) -> Option<&Kept<Self>> {
        Some(&KEPT)
    }

    fn deallocator() -> &'static OnceLock<ffi::destructor> {
        static DEALLOCATOR: OnceLock<ffi::destructor> = OnceLock::new();
        &DEALLOCATOR
    }

    fn is_over(&self, py: Python<'_>) -> bool {
        self.phase.get(py) == Phase::Finished
    }
}

impl Steps for Awaitable {
    fn step(slf: &Bound<'_, Self>, sent: Option<Borrowed<'_, '_, PyAny>>) -> ThinResult<Step> {
        if let Some(sent) = sent
            && !sent.is_none()
            && slf.get().phase.get(slf.py()) == Phase::Created
        {
            return Err(PyTypeError::new_err("can't send non-None value to a just-started coroutine").into());
        }
        Self::advance(slf, None)
    }

    fn panicked(slf: &Bound<'_, Self>) -> PyErr {
        let this = slf.get();
        this.finish(slf.py());
        let name = this.name.get(slf.py());
        PySystemError::new_err(format!("{name}() panicked; please report this as a bug"))
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
        Self::answer(slf, || Self::advance(slf, None))
    }

    /// Go on until it waits or is done; the value must be None while it has not begun.
    fn send(slf: &Bound<'_, Self>, value: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        Self::answer(slf, || Self::step(slf, Some(value.as_borrowed())))
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
        Self::answer(slf, || Self::advance(slf, Some(error.into())))
    }

    /// End the work.
    fn close(slf: &Bound<'_, Self>) -> PyResult<()> {
        match slf.get().phase.get(slf.py()) {
            Phase::Running => return Err(PyValueError::new_err("coroutine already executing")),
            Phase::Finished => {}
            Phase::Created | Phase::Suspended => slf.get().finish(slf.py()),
        }
        Ok(())
    }

    #[getter]
    fn __name__(&self, py: Python<'_>) -> &'static str {
        let name = self.name.get(py);
        name.rsplit('.').next().unwrap_or(name)
    }

    #[getter]
    fn __qualname__(&self, py: Python<'_>) -> &'static str {
        self.name.get(py)
    }

    /// Whether it is at work at this moment, as a coroutine's.
    #[getter]
    fn cr_running(&self, py: Python<'_>) -> bool {
        self.phase.get(py) == Phase::Running
    }

    fn __repr__(slf: &Bound<'_, Self>) -> String {
        format!("<awaitable {} at {:p}>", slf.get().name.get(slf.py()), slf.as_ptr())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // While it is at work it cannot be looked at; whoever runs it holds what it holds.
        match self.work.look_alone(&visit).as_deref_mut() {
            Some(Some(work)) => work.traverse(&visit),
            Some(None) | None => Ok(()),
        }
    }

    fn __clear__(&self, py: Python<'_>) {
        if matches!(self.phase.get(py), Phase::Created | Phase::Suspended) {
            self.finish(py);
        }
    }
}

impl Drop for Awaitable {
    /// Forgetting `await` is a mistake that coroutines warn of.
    fn drop(&mut self) {
        if *self.phase.get_mut() != Phase::Created {
            return;
        }
        let name = *self.name.get_mut();
        // Where the interpreter is gone there is nobody to warn.
        let _ = Python::try_attach(|py| {
            warn::<PyRuntimeWarning>(py, &format!("coroutine '{name}' was never awaited"));
        });
    }
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
