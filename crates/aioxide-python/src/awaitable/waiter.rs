//! What a pending awaitable yields: as much of a future as a task needs to be woken.
//!
//! A task finds `_asyncio_future_blocking` true, checks that the waiter is of its loop, and adds its wake-up as a
//! callback. Waking, failing and cancelling all put that on the ready queue; the task then asks for the result.
//!
//! # Invariant
//! A waiter is done once: what comes second is ignored.

use std::ffi::CStr;
use std::mem;

use pyo3::exceptions::asyncio::{CancelledError, InvalidStateError};
use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;
use pyo3::types::{PyDict, PyType};
use pyo3::{PyTraverseError, intern};

use crate::callback::Callback;
use crate::error::ThinResult;
use crate::event_loop::{EventLoop, owned};
use crate::ffi::collector;
use crate::ffi::free_list::{FreeList, Recycled};
use crate::ffi::gil_cell::GilCell;
use crate::ffi::method::{Arguments, FastMethod, add_method};
use crate::ffi::references::{another, another_of};
use crate::ffi::task_callbacks::{Kind, kind_of};
use crate::imports::imports;

/// How far it is.
enum State {
    Pending,
    Woken,
    Failed(Py<PyAny>),
    /// With the message, if there is one.
    Cancelled(Option<Py<PyAny>>),
}

/// Somebody to be told.
struct Registered {
    callback: Py<PyAny>,
    context: Option<Py<PyAny>>,
}

/// What a task waits for while native work is pending.
#[pyclass(module = "aioxide", frozen)]
pub struct Waiter {
    event_loop: Py<PyAny>,
    record: GilCell<Record>,
}

struct Record {
    state: State,
    blocking: bool,
    /// The task, nearly always.
    first: Option<Registered>,
    others: Vec<Registered>,
}

impl Record {
    fn is_pending(&self) -> bool {
        matches!(self.state, State::Pending)
    }
}

impl Waiter {
    /// Make one for a task of `event_loop`.
    pub fn new(py: Python<'_>, event_loop: Py<PyAny>) -> PyResult<Py<Self>> {
        let record = Record { state: State::Pending, blocking: true, first: None, others: Vec::new() };
        let waiter = Py::new(py, Self { event_loop, record: GilCell::new(record) })?;
        collector::show(waiter.bind(py));
        Ok(waiter)
    }

    /// Whether nothing has happened yet.
    pub fn is_pending(&self, py: Python<'_>) -> bool {
        self.record.borrow(py).is_pending()
    }

    /// Let the task go on.
    pub fn wake(slf: &Bound<'_, Self>) -> ThinResult<()> {
        Self::finish(slf, State::Woken).map(drop)
    }

    /// Let the task go on at once: returns its wake-up, to be run, if nothing else waits.
    pub fn wake_now(slf: &Bound<'_, Self>) -> PyResult<Option<Callback>> {
        let py = slf.py();
        let first = {
            let mut this = slf.get().record.borrow_mut(slf.py());
            if !this.is_pending() {
                return Ok(None);
            }
            let runs_now = this.others.is_empty()
                && this.first.as_ref().is_some_and(|first| {
                    first.context.is_some() && kind_of(first.callback.bind_borrowed(py)) == Kind::TaskWakeup
                });
            if runs_now {
                this.state = State::Woken;
                this.first.take()
            } else {
                None
            }
        };
        let Some(Registered { callback: wakeup, context: Some(context) }) = first else {
            Self::wake(slf)?;
            return Ok(None);
        };
        Ok(Some(Callback::TaskWakeup { wakeup, future: slf.clone().into_any().unbind(), context }))
    }

    /// Raise an exception in the task.
    pub fn fail(slf: &Bound<'_, Self>, exception: Py<PyAny>) -> ThinResult<()> {
        Self::finish(slf, State::Failed(exception)).map(drop)
    }

    /// Be done, unless it is done; tells whether it was not.
    fn finish(slf: &Bound<'_, Self>, state: State) -> ThinResult<bool> {
        let (first, others) = {
            let mut this = slf.get().record.borrow_mut(slf.py());
            if !this.is_pending() {
                return Ok(false);
            }
            this.state = state;
            (this.first.take(), mem::take(&mut this.others))
        };
        let mut told = Ok(());
        for registered in first.into_iter().chain(others) {
            told = told.and(Self::schedule(slf, registered));
        }
        told.map(|()| true)
    }

    /// Have a callback called in the next turn.
    fn schedule(slf: &Bound<'_, Self>, registered: Registered) -> ThinResult<()> {
        let py = slf.py();
        let event_loop = slf.get().event_loop.bind(py);
        let Registered { callback, context } = registered;
        if let Ok(event_loop) = event_loop.cast::<EventLoop>()
            && let Some(context) = &context
            && kind_of(callback.bind_borrowed(py)) == Kind::TaskWakeup
            && !event_loop.get().debug()
        {
            return EventLoop::enqueue_made(event_loop, || Callback::TaskWakeup {
                wakeup: callback,
                future: another(slf.as_any()).unbind(),
                context: another_of(py, context),
            });
        }
        let keywords = PyDict::new(py);
        keywords.set_item(intern!(py, "context"), context)?;
        event_loop.call_method(intern!(py, "call_soon"), (callback, slf), Some(&keywords))?;
        Ok(())
    }

    /// Whether it is for tasks of this loop.
    pub fn belongs_to(&self, event_loop: &Py<EventLoop>) -> bool {
        self.event_loop.is(event_loop)
    }

    /// Take back that it has just been yielded, for the task that takes note of it; whether it was.
    pub fn take_blocking(&self, py: Python<'_>) -> bool {
        mem::take(&mut self.record.borrow_mut(py).blocking)
    }

    /// Have a callback called in the loop's next turn after it is done.
    pub fn register(
        waiter: &Bound<'_, Self>,
        callback: Py<PyAny>,
        context: Option<Py<PyAny>>,
    ) -> ThinResult<()> {
        let registered = Registered { callback, context };
        {
            let mut this = waiter.get().record.borrow_mut(waiter.py());
            if this.is_pending() {
                if this.first.is_none() {
                    this.first = Some(registered);
                } else {
                    this.others.push(registered);
                }
                return Ok(());
            }
        }
        Self::schedule(waiter, registered)
    }

    /// Add the method that every waiting task calls.
    pub fn add_fast_methods(class: &Bound<'_, PyType>) -> PyResult<()> {
        add_method::<AddDoneCallback>(class)
    }
}

impl Recycled for Waiter {
    fn free_list() -> &'static FreeList {
        static LIST: FreeList = FreeList::new();
        &LIST
    }
}

/// `add_done_callback(fn, *, context=None)`.
struct AddDoneCallback;

impl FastMethod for AddDoneCallback {
    type Class = Waiter;
    const NAME: &'static CStr = c"add_done_callback";
    const POSITIONAL: &'static [&'static str] = &["fn"];
    const DOCUMENTATION: &'static CStr = c"add_done_callback($self, fn, /, *, context=None)\n--\n\nCall fn(waiter) in the loop's next turn after it is done.";

    fn call(waiter: &Bound<'_, Waiter>, arguments: &Arguments<'_, '_>) -> ThinResult<Py<PyAny>> {
        let py = waiter.py();
        let context = arguments.only_keyword("add_done_callback", intern!(py, "context"))?;
        let callback = arguments.exactly("add_done_callback", 1)?[0];
        Waiter::register(waiter, owned(&callback), context.map(|context| owned(&context)))?;
        Ok(py.None())
    }
}

#[pymethods]
impl Waiter {
    /// The class that it is an instance of, for those who look at what a task waits for.
    #[getter]
    fn __class__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(imports(py)?.future.bind(py).clone())
    }

    /// Whether the task has yet to take note of it (asyncio's protocol between futures and tasks).
    #[getter]
    fn _asyncio_future_blocking(&self, py: Python<'_>) -> bool {
        self.record.borrow(py).blocking
    }

    #[setter(_asyncio_future_blocking)]
    fn set_blocking(&self, py: Python<'_>, blocking: bool) {
        self.record.borrow_mut(py).blocking = blocking;
    }

    /// Return the loop of the task that may wait for it.
    fn get_loop(&self, py: Python<'_>) -> Py<PyAny> {
        self.event_loop.clone_ref(py)
    }

    #[getter]
    fn _loop(&self, py: Python<'_>) -> Py<PyAny> {
        self.event_loop.clone_ref(py)
    }

    /// Forget a callback; return how often it was there.
    fn remove_done_callback(slf: &Bound<'_, Self>, callback: &Bound<'_, PyAny>) -> PyResult<usize> {
        let registered = {
            let mut this = slf.get().record.borrow_mut(slf.py());
            this.first.take().into_iter().chain(mem::take(&mut this.others)).collect::<Vec<_>>()
        };
        let (mut kept, mut removed) = (Vec::new(), Vec::new());
        for registered in registered {
            let is_it = registered.callback.bind(slf.py()).eq(callback)?;
            if is_it { removed.push(registered) } else { kept.push(registered) }
        }
        let count = removed.len();
        drop(removed);
        slf.get().record.borrow_mut(slf.py()).others.splice(0..0, kept);
        Ok(count)
    }

    /// Let the task find itself cancelled; False where it was done before.
    #[pyo3(signature = (msg=None))]
    pub fn cancel(slf: &Bound<'_, Self>, msg: Option<Py<PyAny>>) -> ThinResult<bool> {
        Self::finish(slf, State::Cancelled(msg))
    }

    /// Return whether it was cancelled.
    fn cancelled(&self, py: Python<'_>) -> bool {
        matches!(self.record.borrow(py).state, State::Cancelled(_))
    }

    /// Return whether it was woken, failed or was cancelled.
    fn done(&self, py: Python<'_>) -> bool {
        !self.is_pending(py)
    }

    /// Return None once it was woken, or raise what it ended with.
    pub fn result(&self, py: Python<'_>) -> PyResult<()> {
        match &self.record.borrow(py).state {
            State::Pending => Err(InvalidStateError::new_err("Result is not set.")),
            State::Woken => Ok(()),
            State::Failed(exception) => Err(PyErr::from_value(exception.bind(py).clone())),
            State::Cancelled(Some(message)) => Err(CancelledError::new_err((message.clone_ref(py),))),
            State::Cancelled(None) => Err(CancelledError::new_err(())),
        }
    }

    /// Return what it failed with, or None.
    fn exception(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        match &self.record.borrow(py).state {
            State::Failed(exception) => return Ok(Some(exception.clone_ref(py))),
            State::Pending => return Err(InvalidStateError::new_err("Exception is not set.")),
            State::Woken | State::Cancelled(_) => {}
        }
        self.result(py).map(|()| None)
    }

    fn __repr__(&self, py: Python<'_>) -> &'static str {
        match self.record.borrow(py).state {
            State::Pending => "<Waiter pending>",
            State::Woken => "<Waiter finished result=None>",
            State::Failed(_) => "<Waiter finished exception>",
            State::Cancelled(_) => "<Waiter cancelled>",
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.event_loop)?;
        let Some(record) = self.record.look(&visit) else { return Ok(()) };
        match &record.state {
            State::Failed(exception) => visit.call(exception)?,
            State::Cancelled(message) => visit.call(message)?,
            State::Pending | State::Woken => {}
        }
        for registered in record.first.iter().chain(&record.others) {
            visit.call(&registered.callback)?;
            visit.call(&registered.context)?;
        }
        Ok(())
    }

    fn __clear__(&self, py: Python<'_>) {
        let taken = {
            let mut this = self.record.borrow_mut(py);
            (this.first.take(), mem::take(&mut this.others))
        };
        drop(taken);
    }
}
