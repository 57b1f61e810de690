//! The native `Future`: a result to come, and who waits for it.
//!
//! Longer than most files because it is one class with all that asyncio's `Future` promises, method by method; the list of
//! who waits and the iterator of `await` are in files of their own.
//!
//! # Invariants
//! - A future that is not pending has no waiters: they were scheduled, all at once, by what made it done.
//! - What is taken out of the state is dropped after the cell is closed; repr, callbacks and handlers of the program are
//!   called with the cell closed.

use std::ffi::CStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use pyo3::exceptions::{PyBaseException, PyRuntimeError, PyStopIteration, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;
use pyo3::types::{PyDict, PyFrozenSet, PyList, PyType};
use pyo3::{Borrowed, PyTraverseError, PyTypeInfo, ffi, intern};

use super::callbacks::{Callbacks, Waiter};
use super::future_iterator::FutureIterator;
use super::native_loop_or_current;
use crate::error::ThinResult;
use crate::event_loop::{EventLoop, owned};
use crate::ffi::context;
use crate::ffi::free_list::{FreeList, Recycled};
use crate::ffi::gil_cell::GilCell;
use crate::ffi::iteration::{Step, Steps};
use crate::ffi::method::{Arguments, FastMethod};
use crate::ffi::object_slots::Finalized;
use crate::ffi::references::{another, another_of};
use crate::imports::imports;

/// How many futures and tasks are alive in this process; counted as handles are.
static LIVE: AtomicUsize = AtomicUsize::new(0);

/// How many native futures, tasks among them, are alive in this process.
pub fn live_futures() -> usize {
    LIVE.load(Relaxed)
}

/// asyncio's Future.
#[pyclass(module = "aioxide", subclass, frozen, weakref)]
pub struct Future {
    event_loop: Py<EventLoop>,
    state: GilCell<State>,
}

struct State {
    outcome: Outcome,
    callbacks: Callbacks,
    /// The future was awaited and its task has not seen it yet (asyncio `_asyncio_future_blocking`).
    blocking: bool,
    /// An exception was set that nobody has asked for.
    log_traceback: bool,
    cancel_message: Option<Py<PyAny>>,
    /// The exception that ended a cancelled task, for who asks first.
    cancelled_error: Option<Py<PyAny>>,
    /// Where it was made; in debug mode only.
    source_traceback: Option<Py<PyAny>>,
}

enum Outcome {
    Pending,
    Cancelled,
    Result(Py<PyAny>),
    Exception {
        exception: Py<PyAny>,
        /// Its traceback when it was set, which each raising would lengthen.
        traceback: Option<Py<PyAny>>,
    },
}

/// What a future that was asked for its result has to say.
pub enum Answer {
    /// Not done yet.
    Pending,
    /// The result.
    Result(Py<PyAny>),
    /// The exception to raise: the one that was set, or a CancelledError.
    Error(Py<PyAny>),
}

impl Drop for State {
    fn drop(&mut self) {
        LIVE.store(LIVE.load(Relaxed).wrapping_sub(1), Relaxed);
    }
}

impl Future {
    /// A pending future, to be made an object; `source_traceback` is [where it is made](Self::origin).
    #[inline(always)]
    pub fn pending(event_loop: &Bound<'_, EventLoop>, source_traceback: Option<Py<PyAny>>) -> Self {
        LIVE.store(LIVE.load(Relaxed).wrapping_add(1), Relaxed);
        let state = State {
            outcome: Outcome::Pending,
            callbacks: Callbacks::None,
            blocking: false,
            log_traceback: false,
            cancel_message: None,
            cancelled_error: None,
            source_traceback,
        };
        Self { event_loop: another(event_loop).unbind(), state: GilCell::new(state) }
    }

    /// Where the caller is, in debug mode.
    pub fn origin(event_loop: &Bound<'_, EventLoop>) -> ThinResult<Option<Py<PyAny>>> {
        if !event_loop.get().debug() {
            return Ok(None);
        }
        let py = event_loop.py();
        Ok(Some(imports(py)?.extract_stack.call0(py)?))
    }

    /// Make a pending future of the loop.
    pub fn create<'py>(event_loop: &Bound<'py, EventLoop>) -> ThinResult<Bound<'py, Self>> {
        let origin = Self::origin(event_loop)?;
        Ok(Bound::new(event_loop.py(), Self::pending(event_loop, origin))?)
    }

    /// The loop.
    pub fn event_loop(&self) -> &Py<EventLoop> {
        &self.event_loop
    }

    /// Whether it has no outcome yet.
    pub fn is_pending(&self, py: Python<'_>) -> bool {
        self.state.with(py, |state| matches!(state.outcome, Outcome::Pending))
    }

    /// Take back that it was awaited, for its task; whether it was.
    pub fn take_blocking(&self, py: Python<'_>) -> bool {
        self.state.with(py, |state| std::mem::take(&mut state.blocking))
    }

    /// Let a task or callback know when the future is done, in the next turn if it is.
    pub fn add_waiter(slf: &Bound<'_, Self>, waiter: Waiter) -> ThinResult<()> {
        let refused = slf.get().state.with(slf.py(), |state| match state.outcome {
            Outcome::Pending => {
                state.callbacks.push(waiter);
                None
            }
            _ => Some(waiter),
        });
        match refused {
            None => Ok(()),
            Some(waiter) => waiter.schedule(slf.get().event_loop.bind(slf.py()), slf),
        }
    }

    /// Tell all that wait.
    fn schedule_callbacks(slf: &Bound<'_, Self>, callbacks: Callbacks) -> ThinResult<()> {
        let event_loop = slf.get().event_loop.bind(slf.py());
        match callbacks {
            Callbacks::None => Ok(()),
            Callbacks::One(waiter) => waiter.schedule(event_loop, slf),
            Callbacks::Many(waiters) => {
                waiters.into_iter().try_for_each(|waiter| waiter.schedule(event_loop, slf))
            }
        }
    }

    /// Give a pending future the outcome that `make` makes, in its place; `None` where it has one.
    #[inline(always)]
    fn finish(
        &self,
        py: Python<'_>,
        log_traceback: bool,
        make: impl FnOnce() -> Outcome,
    ) -> Option<Callbacks> {
        if !self.is_pending(py) {
            return None;
        }
        Some(self.state.with(py, |state| {
            // Nothing is dropped here: it is pending.
            state.outcome = make();
            state.log_traceback = log_traceback;
            std::mem::take(&mut state.callbacks)
        }))
    }

    /// asyncio's `Future.set_result`.
    pub fn set_result(slf: &Bound<'_, Self>, result: Py<PyAny>) -> ThinResult<()> {
        match slf.get().finish(slf.py(), false, || Outcome::Result(result)) {
            Some(callbacks) => Self::schedule_callbacks(slf, callbacks),
            None => Err(invalid_state(slf.py(), "invalid state")?.into()),
        }
    }

    /// asyncio's `Future.set_exception`.
    pub fn set_exception(slf: &Bound<'_, Self>, exception: &Bound<'_, PyAny>) -> ThinResult<()> {
        let py = slf.py();
        if !slf.get().is_pending(py) {
            return Err(invalid_state(py, "invalid state")?.into());
        }
        let mut exception = exception.clone();
        if let Ok(class) = exception.cast::<PyType>()
            && class.is_subclass_of::<PyBaseException>()?
        {
            exception = class.call0()?;
        }
        if !exception.is_instance_of::<PyBaseException>() {
            return Err(PyTypeError::new_err("invalid exception object").into());
        }
        if exception.is_instance_of::<PyStopIteration>() {
            exception = Self::stand_in_for_stop_iteration(slf, &exception)?;
        }
        let traceback = exception.getattr(intern!(py, "__traceback__"))?;
        let traceback = if traceback.is_none() { None } else { Some(traceback.unbind()) };
        let make = || Outcome::Exception { exception: exception.unbind(), traceback };
        match slf.get().finish(py, true, make) {
            Some(callbacks) => Self::schedule_callbacks(slf, callbacks),
            None => Err(invalid_state(py, "invalid state")?.into()),
        }
    }

    /// Some versions of asyncio refuse StopIteration, others replace it: ask the running one.
    fn stand_in_for_stop_iteration<'py>(
        slf: &Bound<'py, Self>,
        exception: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let future = asyncio_future(slf.get().event_loop.bind(slf.py()))?;
        future.call_method1("set_exception", (exception,))?;
        future.call_method0("exception")
    }

    /// asyncio's `Future.cancel`; whether it was pending.
    pub fn cancel(slf: &Bound<'_, Self>, message: Option<Py<PyAny>>) -> ThinResult<bool> {
        let py = slf.py();
        let cancelled = slf.get().state.with(py, |state| {
            state.log_traceback = false;
            if !matches!(state.outcome, Outcome::Pending) {
                return None;
            }
            state.outcome = Outcome::Cancelled;
            let previous = std::mem::replace(&mut state.cancel_message, message);
            Some((std::mem::take(&mut state.callbacks), previous))
        });
        match cancelled {
            None => Ok(false),
            Some((callbacks, _previous)) => Self::schedule_callbacks(slf, callbacks).map(|()| true),
        }
    }

    /// Forget about an exception that nobody asked for.
    pub fn forget_traceback(&self, py: Python<'_>) {
        self.state.with(py, |state| state.log_traceback = false);
    }

    /// Keep the message of a cancellation to come.
    pub fn set_cancel_message(&self, py: Python<'_>, message: Option<Py<PyAny>>) {
        let previous = self.state.with(py, |state| std::mem::replace(&mut state.cancel_message, message));
        drop(previous);
    }

    /// The message that `cancel` was given.
    pub fn cancel_message(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.state.with(py, |state| state.cancel_message.as_ref().map(|message| message.clone_ref(py)))
    }

    /// Keep the CancelledError that ended the task.
    pub fn set_cancelled_error(&self, py: Python<'_>, error: Py<PyAny>) {
        let previous = self.state.with(py, |state| state.cancelled_error.replace(error));
        drop(previous);
    }

    /// The exception for who asks a cancelled future: the one that ended a task, once; else a new one.
    pub fn cancelled_error(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let (saved, message) = self.state.with(py, |state| {
            (state.cancelled_error.take(), state.cancel_message.as_ref().map(|message| message.clone_ref(py)))
        });
        if let Some(saved) = saved {
            return Ok(saved);
        }
        let class = imports(py)?.cancelled_error.bind(py);
        match message.filter(|message| !message.is_none(py)) {
            None => class.call0(),
            Some(message) => class.call1((message,)),
        }
        .map(Bound::unbind)
    }

    /// Ask for the result, which counts as having heard of an exception.
    pub fn answer(&self, py: Python<'_>) -> PyResult<Answer> {
        enum Seen {
            Answer(Answer),
            Cancelled,
            Exception(Py<PyAny>, Option<Py<PyAny>>),
        }
        let seen = self.state.with(py, |state| match &mut state.outcome {
            Outcome::Pending => Seen::Answer(Answer::Pending),
            Outcome::Cancelled => Seen::Cancelled,
            Outcome::Result(result) => Seen::Answer(Answer::Result(another_of(py, result))),
            Outcome::Exception { exception, traceback } => {
                state.log_traceback = false;
                Seen::Exception(exception.clone_ref(py), traceback.take())
            }
        });
        match seen {
            Seen::Answer(answer) => Ok(answer),
            Seen::Cancelled => self.cancelled_error(py).map(Answer::Error),
            Seen::Exception(exception, traceback) => {
                exception.setattr(py, intern!(py, "__traceback__"), traceback)?;
                Ok(Answer::Error(exception))
            }
        }
    }

    /// Report an exception that was never asked for.
    pub fn report_unretrieved(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        let unretrieved = this.state.with(py, |state| {
            if !std::mem::take(&mut state.log_traceback) {
                return None;
            }
            let Outcome::Exception { exception, .. } = &state.outcome else { return None };
            let source = state.source_traceback.as_ref().map(|traceback| traceback.clone_ref(py));
            Some((exception.clone_ref(py), source))
        });
        let Some((exception, source_traceback)) = unretrieved else { return Ok(()) };
        let report = PyDict::new(py);
        report.set_item("message", format!("{} exception was never retrieved", slf.get_type().name()?))?;
        report.set_item("exception", exception)?;
        report.set_item("future", slf)?;
        if let Some(source_traceback) = source_traceback {
            report.set_item("source_traceback", source_traceback)?;
        }
        EventLoop::report(this.event_loop.bind(py), report)
    }

    /// Whether there is an exception to report.
    pub fn is_unretrieved(&self, py: Python<'_>) -> bool {
        self.state.with(py, |state| state.log_traceback)
    }

    /// Where it was made; in debug mode only.
    pub fn source_traceback(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.state.with(py, |state| state.source_traceback.as_ref().map(|traceback| traceback.clone_ref(py)))
    }
}

/// Make an error into the one that is raised: `raise error`.
pub fn raised(py: Python<'_>, error: Py<PyAny>) -> PyErr {
    PyErr::from_value(error.into_bound(py))
}

fn invalid_state(py: Python<'_>, message: &'static str) -> PyResult<PyErr> {
    Ok(PyErr::from_value(imports(py)?.invalid_state_error.bind(py).call1((message,))?))
}

/// A pending future of asyncio's own, to ask what asyncio does.
pub fn asyncio_future<'py>(event_loop: &Bound<'py, EventLoop>) -> PyResult<Bound<'py, PyAny>> {
    let py = event_loop.py();
    let options = PyDict::new(py);
    options.set_item("loop", event_loop)?;
    imports(py)?.future.bind(py).call((), Some(&options))
}

#[pymethods]
impl Future {
    #[new]
    #[pyo3(signature = (*, r#loop=None))]
    fn new(py: Python<'_>, r#loop: Option<Bound<'_, PyAny>>) -> PyResult<Self> {
        let event_loop = native_loop_or_current(py, r#loop)?;
        let origin = Self::origin(&event_loop)?;
        Ok(Self::pending(&event_loop, origin))
    }

    /// The class that the future is an instance of, for `isinstance`.
    #[getter]
    fn __class__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(imports(py)?.future.bind(py).clone())
    }

    #[classmethod]
    fn __class_getitem__<'py>(
        class: &Bound<'py, PyType>,
        item: Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        class.py().import("types")?.getattr("GenericAlias")?.call1((class, item))
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        imports(slf.py())?.future_repr.call1(slf.py(), (slf,))
    }

    /// Return the event loop the Future is bound to.
    fn get_loop(&self, py: Python<'_>) -> Py<EventLoop> {
        self.event_loop.clone_ref(py)
    }

    /// Return True if the future is done, which a cancelled one is.
    fn done(&self, py: Python<'_>) -> bool {
        !self.is_pending(py)
    }

    /// Return True if the future was cancelled.
    fn cancelled(&self, py: Python<'_>) -> bool {
        self.state.with(py, |state| matches!(state.outcome, Outcome::Cancelled))
    }

    /// Return the result this future represents, or raise what was set.
    fn result(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        match self.answer(py)? {
            Answer::Pending => Err(invalid_state(py, "Result is not set.")?),
            Answer::Result(result) => Ok(result),
            Answer::Error(error) => Err(raised(py, error)),
        }
    }

    /// Return the exception that was set on this future, or None.
    fn exception(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        enum Seen {
            Pending,
            Cancelled,
            Done(Option<Py<PyAny>>),
        }
        let seen = self.state.with(py, |state| match &state.outcome {
            Outcome::Pending => Seen::Pending,
            Outcome::Cancelled => Seen::Cancelled,
            Outcome::Result(_) => Seen::Done(None),
            Outcome::Exception { exception, .. } => {
                state.log_traceback = false;
                Seen::Done(Some(exception.clone_ref(py)))
            }
        });
        match seen {
            Seen::Pending => Err(invalid_state(py, "Exception is not set.")?),
            Seen::Cancelled => Err(raised(py, self.cancelled_error(py)?)),
            Seen::Done(exception) => Ok(exception),
        }
    }

    /// Mark the future done and set an exception.
    #[pyo3(name = "set_exception", signature = (exception, /))]
    fn set_exception_method(slf: &Bound<'_, Self>, exception: &Bound<'_, PyAny>) -> ThinResult<()> {
        Self::set_exception(slf, exception)
    }

    /// Cancel the future and schedule callbacks; return False if it was done.
    #[pyo3(name = "cancel", signature = (msg=None))]
    fn cancel_method(slf: &Bound<'_, Self>, msg: Option<Py<PyAny>>) -> ThinResult<bool> {
        Self::cancel(slf, msg)
    }

    /// Remove all instances of a callback from the "call when done" list; return how many.
    #[pyo3(signature = (r#fn, /))]
    fn remove_done_callback(slf: &Bound<'_, Self>, r#fn: &Bound<'_, PyAny>) -> PyResult<usize> {
        let py = slf.py();
        let state = &slf.get().state;
        let present = state.with(py, |state| {
            state.callbacks.as_slice().iter().map(|waiter| waiter.clone_ref(py)).collect::<Vec<_>>()
        });
        let mut unwanted = Vec::new();
        for waiter in present {
            let callback = waiter.describe(py)?.0;
            if callback.is(r#fn) || callback.eq(r#fn)? {
                unwanted.push(waiter);
            }
        }
        let removed = state.with(py, |state| state.callbacks.remove(&unwanted));
        Ok(removed.len())
    }

    /// Return the exception for a cancelled future, which a task's has been saved for once.
    fn _make_cancelled_error(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.cancelled_error(py)
    }

    #[getter]
    fn _loop(&self, py: Python<'_>) -> Py<EventLoop> {
        self.get_loop(py)
    }

    #[getter]
    fn _state(&self, py: Python<'_>) -> &'static str {
        self.state.with(py, |state| match state.outcome {
            Outcome::Pending => "PENDING",
            Outcome::Cancelled => "CANCELLED",
            Outcome::Result(_) | Outcome::Exception { .. } => "FINISHED",
        })
    }

    #[getter]
    fn _result(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.state.with(py, |state| match &state.outcome {
            Outcome::Result(result) => Some(result.clone_ref(py)),
            _ => None,
        })
    }

    #[getter]
    fn _exception(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.state.with(py, |state| match &state.outcome {
            Outcome::Exception { exception, .. } => Some(exception.clone_ref(py)),
            _ => None,
        })
    }

    #[getter]
    fn _callbacks<'py>(slf: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyList>>> {
        let py = slf.py();
        let waiters = slf.get().state.with(py, |state| {
            state.callbacks.as_slice().iter().map(|waiter| waiter.clone_ref(py)).collect::<Vec<_>>()
        });
        if waiters.is_empty() {
            return Ok(None);
        }
        let described = waiters.iter().map(|waiter| waiter.describe(py)).collect::<PyResult<Vec<_>>>()?;
        PyList::new(py, described).map(Some)
    }

    /// The native tasks that wait for it (Python 3.14), or None.
    #[getter]
    fn _asyncio_awaited_by<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyFrozenSet>>> {
        let tasks = self.state.with(py, |state| {
            let waiters = state.callbacks.as_slice().iter();
            let tasks = waiters.filter_map(|waiter| match waiter {
                Waiter::Task(task) => Some(task.clone_ref(py)),
                Waiter::Callback { .. } => None,
            });
            tasks.collect::<Vec<_>>()
        });
        if tasks.is_empty() { Ok(None) } else { PyFrozenSet::new(py, &tasks).map(Some) }
    }

    #[getter(_source_traceback)]
    fn source_traceback_property(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.source_traceback(py)
    }

    #[getter(_cancel_message)]
    fn cancel_message_property(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.cancel_message(py)
    }

    #[setter(_cancel_message)]
    fn set_cancel_message_property(&self, py: Python<'_>, message: Option<Py<PyAny>>) {
        self.set_cancel_message(py, message);
    }

    #[getter]
    fn _log_traceback(&self, py: Python<'_>) -> bool {
        self.is_unretrieved(py)
    }

    #[setter(_log_traceback)]
    fn set_log_traceback(&self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        if value.is_truthy()? {
            return Err(PyValueError::new_err("_log_traceback can only be set to False"));
        }
        self.forget_traceback(value.py());
        Ok(())
    }

    #[getter]
    fn _asyncio_future_blocking(&self, py: Python<'_>) -> bool {
        self.state.with(py, |state| state.blocking)
    }

    #[setter(_asyncio_future_blocking)]
    fn set_asyncio_future_blocking(&self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let blocking = value.is_truthy()?;
        self.state.with(value.py(), |state| state.blocking = blocking);
        Ok(())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.event_loop)?;
        let Some(state) = self.state.look(&visit) else { return Ok(()) };
        match &state.outcome {
            Outcome::Pending | Outcome::Cancelled => {}
            Outcome::Result(result) => visit.call(result)?,
            Outcome::Exception { exception, traceback } => {
                visit.call(exception)?;
                visit.call(traceback)?;
            }
        }
        visit.call(&state.cancel_message)?;
        visit.call(&state.cancelled_error)?;
        visit.call(&state.source_traceback)?;
        state.callbacks.traverse(&visit)
    }

    fn __clear__(slf: &Bound<'_, Self>) {
        let taken = slf.get().state.with(slf.py(), |state| {
            let outcome = match &state.outcome {
                Outcome::Pending => None,
                _ => Some(std::mem::replace(&mut state.outcome, Outcome::Cancelled)),
            };
            (
                outcome,
                std::mem::take(&mut state.callbacks),
                state.cancel_message.take(),
                state.cancelled_error.take(),
                state.source_traceback.take(),
            )
        });
        drop(taken);
    }
}

/// `set_result(result)`.
pub struct SetResult;

impl FastMethod for SetResult {
    type Class = Future;
    const NAME: &'static CStr = c"set_result";
    const POSITIONAL: &'static [&'static str] = &["result"];
    const DOCUMENTATION: &'static CStr =
        c"set_result($self, result, /)\n--\n\nMark the future done and set its result.";

    fn call(future: &Bound<'_, Future>, arguments: &Arguments<'_, '_>) -> ThinResult<Py<PyAny>> {
        Future::set_result(future, owned(arguments.only("set_result")?))?;
        Ok(future.py().None())
    }
}

/// `add_done_callback(fn, *, context=None)`.
pub struct AddDoneCallback;

impl FastMethod for AddDoneCallback {
    type Class = Future;
    const NAME: &'static CStr = c"add_done_callback";
    const POSITIONAL: &'static [&'static str] = &["fn"];
    const DOCUMENTATION: &'static CStr = c"add_done_callback($self, fn, *, context=None)\n--\n\nAdd a callback to be run when the future becomes done.";

    fn call(future: &Bound<'_, Future>, arguments: &Arguments<'_, '_>) -> ThinResult<Py<PyAny>> {
        let py = future.py();
        let callback = owned(&arguments.exactly("add_done_callback", 1)?[0]);
        let context = match arguments.only_keyword("add_done_callback", intern!(py, "context"))? {
            Some(context) => owned(&context),
            None => context::copy_current(py)?,
        };
        Future::add_waiter(future, Waiter::Callback { callback, context })?;
        Ok(py.None())
    }
}

/// `__iter__()`.
pub struct Iterate;

impl FastMethod for Iterate {
    type Class = Future;
    const NAME: &'static CStr = c"__iter__";
    const POSITIONAL: &'static [&'static str] = &[];
    const DOCUMENTATION: &'static CStr =
        c"__iter__($self, /)\n--\n\nReturn an iterator that waits for the future.";

    fn call(future: &Bound<'_, Future>, arguments: &Arguments<'_, '_>) -> ThinResult<Py<PyAny>> {
        arguments.exactly("__iter__", 0)?;
        Ok(FutureIterator::over(future)?.into_any())
    }
}

/// `__await__()`.
pub struct Await;

impl FastMethod for Await {
    type Class = Future;
    const NAME: &'static CStr = c"__await__";
    const POSITIONAL: &'static [&'static str] = &[];
    const DOCUMENTATION: &'static CStr =
        c"__await__($self, /)\n--\n\nReturn an iterator that waits for the future.";

    fn call(future: &Bound<'_, Future>, arguments: &Arguments<'_, '_>) -> ThinResult<Py<PyAny>> {
        arguments.exactly("__await__", 0)?;
        Ok(FutureIterator::over(future)?.into_any())
    }
}

impl Steps for Future {
    /// What is sent is of no interest.
    fn step(future: &Bound<'_, Self>, _sent: Option<Borrowed<'_, '_, PyAny>>) -> ThinResult<Step> {
        let py = future.py();
        match future.get().answer(py)? {
            Answer::Result(result) => Ok(Step::Done(result)),
            Answer::Error(error) => Err(raised(py, error).into()),
            Answer::Pending => {
                let was_blocking =
                    future.get().state.with(py, |state| std::mem::replace(&mut state.blocking, true));
                if was_blocking {
                    return Err(PyRuntimeError::new_err("await wasn't used with future").into());
                }
                Ok(Step::Yield(another(future.as_any()).unbind()))
            }
        }
    }
}

impl Finalized for Future {
    fn has_last_words(future: &Bound<'_, Self>) -> bool {
        future.get().is_unretrieved(future.py())
    }

    fn finalize(future: &Bound<'_, Self>) {
        if let Err(error) = Self::report_unretrieved(future) {
            error.write_unraisable(future.py(), Some(future.as_any()));
        }
    }

    fn deallocator() -> &'static OnceLock<ffi::destructor> {
        static DEALLOCATOR: OnceLock<ffi::destructor> = OnceLock::new();
        &DEALLOCATOR
    }
}

impl Recycled for Future {
    const TRACKED: bool = true;

    fn free_list() -> &'static FreeList {
        static FREE_LIST: FreeList = FreeList::new();
        &FREE_LIST
    }
}

/// The object as a native future or task, if it is one.
pub fn as_native<'a, 'py>(object: &'a Bound<'py, PyAny>) -> Option<&'a Bound<'py, Future>> {
    let py = object.py();
    let class = object.get_type_ptr();
    if std::ptr::eq(class, Future::type_object_raw(py))
        || std::ptr::eq(class, super::Task::type_object_raw(py))
    {
        object.cast::<Future>().ok()
    } else {
        None
    }
}
