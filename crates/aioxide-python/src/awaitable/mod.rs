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

use std::panic::{AssertUnwindSafe, catch_unwind};
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
use crate::ffi::gil_cell::GilCell;
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

/// What can be asked of an awaitable at any time.
#[derive(Clone, Copy)]
struct Head {
    phase: Phase,
    /// What a coroutine of the same purpose is called.
    name: &'static str,
}

/// Native work that Python can await.
#[pyclass(module = "aioxide", frozen)]
pub struct Awaitable {
    head: GilCell<Head>,
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
                let head = Head { phase: Phase::Finished, name };
                Bound::new(py, Self { head: GilCell::new(head), work: GilCell::new(None) })?
            }
        };
        let mut work = awaitable.get().work.borrow_mut(py);
        // It is none already; said once more, what is made next is made here and not moved here.
        *work = None;
        *work = Some(make());
        drop(work);
        *awaitable.get().head.borrow_mut(py) = Head { phase: Phase::Created, name };
        Ok(awaitable.unbind())
    }

    fn head(&self, py: Python<'_>) -> Head {
        *self.head.borrow(py)
    }

    fn set_phase(&self, py: Python<'_>, phase: Phase) {
        self.head.borrow_mut(py).phase = phase;
    }

    /// Drop the work of one that is not over, in its place: what runs by that finds the awaitable over.
    fn finish(&self, py: Python<'_>) {
        self.set_phase(py, Phase::Finished);
        let mut work = self.work.borrow_mut(py);
        if let Some(Work::Future(future)) = &mut *work {
            future.finish(py);
        }
        *work = None;
    }

    fn is_waiting(&self, py: Python<'_>) -> bool {
        self.work.borrow(py).as_ref().is_some_and(|work| work.is_waiting(py))
    }

    /// Let the work go on, with an exception or without.
    fn advance(slf: &Bound<'_, Self>, thrown: Option<ThinErr>) -> ThinResult<Step> {
        let py = slf.py();
        let this = slf.get();
        let Head { phase, name } = this.head(py);
        match (phase, &thrown) {
            (Phase::Running, _) => return Err(PyValueError::new_err("coroutine already executing").into()),
            (Phase::Finished, _) => return Err(reused(name).into()),
            (Phase::Suspended, None) if this.is_waiting(py) => {
                return Err(PyRuntimeError::new_err(format!("{name}() is being awaited already")).into());
            }
            (Phase::Created, Some(_)) => {
                // Nothing of it has begun.
                this.finish(py);
                return Err(thrown.unwrap_or_else(|| reused(name).into()));
            }
            _ => {}
        }
        this.set_phase(py, Phase::Running);
        let advanced = {
            let mut work = this.work.borrow_mut(py);
            let Some(work) = &mut *work else {
                this.set_phase(py, Phase::Finished);
                return Err(reused(name).into());
            };
            catch_unwind(AssertUnwindSafe(|| work.advance(py, thrown)))
        };
        // Taken apart word by word, as it was written.
        match advanced {
            Ok(Ok(Step::Yield(yielded))) => {
                this.set_phase(py, Phase::Suspended);
                // From now on it may be in a cycle that nothing else knows of.
                collector::show(slf);
                Ok(Step::Yield(yielded))
            }
            Ok(Ok(Step::Done(value))) => {
                this.finish(py);
                Ok(Step::Done(value))
            }
            Ok(Err(error)) => {
                this.finish(py);
                Err(without_stop_iteration(py, error.into()).into())
            }
            Err(_panic) => {
                this.finish(py);
                let text = format!("{name}() panicked; please report this as a bug");
                Err(PySystemError::new_err(text).into())
            }
        }
    }

    /// A step as the methods answer it: a value is the argument of a StopIteration.
    fn answer(py: Python<'_>, step: ThinResult<Step>) -> PyResult<Py<PyAny>> {
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
        self.head(py).phase == Phase::Finished
    }
}

impl Steps for Awaitable {
    fn step(slf: &Bound<'_, Self>, sent: Option<Borrowed<'_, '_, PyAny>>) -> ThinResult<Step> {
        if let Some(sent) = sent
            && !sent.is_none()
            && slf.get().head(slf.py()).phase == Phase::Created
        {
            return Err(PyTypeError::new_err("can't send non-None value to a just-started coroutine").into());
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
        Self::answer(slf.py(), Self::advance(slf, Some(error.into())))
    }

    /// End the work.
    fn close(slf: &Bound<'_, Self>) -> PyResult<()> {
        match slf.get().head(slf.py()).phase {
            Phase::Running => return Err(PyValueError::new_err("coroutine already executing")),
            Phase::Finished => {}
            Phase::Created | Phase::Suspended => slf.get().finish(slf.py()),
        }
        Ok(())
    }

    #[getter]
    fn __name__(&self, py: Python<'_>) -> &'static str {
        let name = self.head(py).name;
        name.rsplit('.').next().unwrap_or(name)
    }

    #[getter]
    fn __qualname__(&self, py: Python<'_>) -> &'static str {
        self.head(py).name
    }

    /// Whether it is at work at this moment, as a coroutine's.
    #[getter]
    fn cr_running(&self, py: Python<'_>) -> bool {
        self.head(py).phase == Phase::Running
    }

    fn __repr__(slf: &Bound<'_, Self>) -> String {
        format!("<awaitable {} at {:p}>", slf.get().head(slf.py()).name, slf.as_ptr())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // While it is at work it cannot be looked at; whoever runs it holds what it holds.
        match self.work.look(&visit).as_deref() {
            Some(Some(work)) => work.traverse(&visit),
            Some(None) | None => Ok(()),
        }
    }

    fn __clear__(&self, py: Python<'_>) {
        if matches!(self.head(py).phase, Phase::Created | Phase::Suspended) {
            self.finish(py);
        }
    }
}

impl Drop for Awaitable {
    /// Forgetting `await` is a mistake that coroutines warn of.
    fn drop(&mut self) {
        let Head { phase, name } = *self.head.get_mut();
        if phase != Phase::Created {
            return;
        }
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
