//! The native `Task`: a future that runs a coroutine. How it runs is in [`step`].

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;
use pyo3::types::{PyDict, PyString, PyType};
use pyo3::{Borrowed, PyTraverseError, ffi, intern};

use super::future::{Future, as_native};
use super::{native_loop_or_current, registry, step};
use crate::awaitable::waiter::Waiter as NativeWaiter;
use crate::callback::Callback;
use crate::error::ThinResult;
use crate::event_loop::{EventLoop, owned};
use crate::ffi::call::call_with_keywords;
use crate::ffi::context;
use crate::ffi::free_list::{FreeList, Recycled};
use crate::ffi::gil_cell::GilCell;
use crate::ffi::object_slots::Finalized;
use crate::ffi::references::another;
use crate::ffi::task_callbacks::Woken;
use crate::imports::imports;

/// How many tasks are alive in this process; counted as handles are.
static LIVE: AtomicUsize = AtomicUsize::new(0);

/// The number of the next task that is given no name. asyncio's own tasks are counted by themselves.
static COUNTER: AtomicU64 = AtomicU64::new(1);

/// How many native tasks are alive in this process.
pub fn live_tasks() -> usize {
    LIVE.load(Relaxed)
}

/// asyncio's Task.
#[pyclass(module = "aioxide", extends = Future, frozen)]
pub struct Task {
    pub(super) state: GilCell<State>,
}

/// What a task knows beyond a future.
pub(super) struct State {
    /// `None` once an eager task has ended without ever waiting.
    pub(super) coroutine: Option<Py<PyAny>>,
    pub(super) context: Py<PyAny>,
    /// The future it waits for.
    pub(super) waiter: Option<Py<PyAny>>,
    name: Name,
    /// A cancellation that the coroutine has not heard of.
    pub(super) must_cancel: bool,
    log_destroy_pending: bool,
    cancellations: usize,
    /// Its entry in asyncio's set of tasks.
    pub(super) registration: Option<Py<PyAny>>,
}

enum Name {
    /// Of a task that was given none.
    Number(u64),
    Given(Py<PyString>),
}

impl Drop for State {
    fn drop(&mut self) {
        LIVE.store(LIVE.load(Relaxed).wrapping_sub(1), Relaxed);
    }
}

/// What a task may be told besides its coroutine.
#[derive(Default)]
pub struct Options<'py> {
    name: Option<Bound<'py, PyAny>>,
    context: Option<Bound<'py, PyAny>>,
    eager_start: bool,
}

impl<'py> Options<'py> {
    /// Take a keyword argument of this Python's `asyncio.Task`.
    pub fn set(&mut self, keyword: &Bound<'py, PyString>, value: Bound<'py, PyAny>) -> PyResult<()> {
        let py = keyword.py();
        let given = if value.is_none() { None } else { Some(value) };
        // Keywords in code are interned, and seldom anything else.
        let is = |name: &Bound<'py, PyString>| keyword.is(name) || keyword.as_any().eq(name).unwrap_or(false);
        if is(intern!(py, "name")) {
            self.name = given;
        } else if is(intern!(py, "context")) {
            self.context = given;
        } else if is(intern!(py, "eager_start")) && py.version_info() >= (3, 12) {
            self.eager_start = given.map_or(Ok(false), |given| given.is_truthy())?;
        } else {
            return Err(PyTypeError::new_err(format!(
                "Task() got an unexpected keyword argument '{keyword}'"
            )));
        }
        Ok(())
    }
}

impl Task {
    /// Make a task, and begin it or schedule its first step.
    pub fn spawn<'py>(
        event_loop: &Bound<'py, EventLoop>,
        coroutine: Borrowed<'_, 'py, PyAny>,
        options: Options<'py>,
    ) -> ThinResult<Bound<'py, Self>> {
        let py = event_loop.py();
        event_loop.get()._check_closed()?;
        let eager_start = options.eager_start;
        let origin = Future::origin(event_loop)?;
        if !is_coroutine(coroutine)? {
            let text = format!("a coroutine was expected, got {}", coroutine.repr()?);
            return Err(PyTypeError::new_err(text).into());
        }
        let name = match options.name {
            None => Name::Number(COUNTER.fetch_add(1, Relaxed)),
            Some(name) => Name::Given(name.str()?.unbind()),
        };
        let context = Self::context_to_run_in(py, options.context)?;
        let state = State {
            coroutine: Some(owned(&coroutine)),
            context,
            waiter: None,
            name,
            must_cancel: false,
            log_destroy_pending: true,
            cancellations: 0,
            registration: None,
        };
        LIVE.store(LIVE.load(Relaxed).wrapping_add(1), Relaxed);
        let task = Self { state: GilCell::new(state) };
        let initializer = PyClassInitializer::from(Future::pending(event_loop, origin)).add_subclass(task);
        let task = Bound::new(py, initializer)?;
        let begun = Self::begin(&task, event_loop, eager_start);
        if begun.is_err() {
            // The error is all that its maker needs to hear.
            task.get().state.with(py, |state| state.log_destroy_pending = false);
        }
        begun.map(|()| task)
    }

    fn begin(task: &Bound<'_, Self>, event_loop: &Bound<'_, EventLoop>, eager_start: bool) -> ThinResult<()> {
        if eager_start && event_loop.get().is_running() {
            return step::run_eagerly(task, event_loop);
        }
        EventLoop::schedule(event_loop, || Callback::NativeStep {
            task: another(task).unbind(),
            exception: None,
        })?;
        registry::register(task)
    }

    /// The context given, or a copy of the current one.
    fn context_to_run_in(py: Python<'_>, given: Option<Bound<'_, PyAny>>) -> ThinResult<Py<PyAny>> {
        match given {
            None => Ok(context::copy_current(py)?),
            Some(given) if context::is_context(given.as_borrowed()) => Ok(given.unbind()),
            Some(other) => {
                let text = format!("a contextvars.Context was expected, got {}", other.get_type().name()?);
                Err(PyTypeError::new_err(text).into())
            }
        }
    }

    /// The context of its coroutine.
    pub fn context<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.state.with(py, |state| another(state.context.bind(py)))
    }

    /// asyncio's `Task.cancel`: ask the coroutine to end; whether it was pending.
    ///
    /// A task that waits for a task passes it on. Such chains can be long, so this goes along them without recursion.
    pub fn cancel(slf: &Bound<'_, Self>, message: Option<Py<PyAny>>) -> ThinResult<bool> {
        let py = slf.py();
        if !slf.get().request_cancellation(slf.as_super()) {
            return Ok(false);
        }
        let mut task = slf.clone();
        loop {
            let waiter =
                task.get().state.with(py, |state| state.waiter.as_ref().map(|waiter| waiter.clone_ref(py)));
            let Some(waiter) = waiter.map(|waiter| waiter.into_bound(py)) else { break };
            match waiter.cast_exact::<Self>() {
                Ok(next) if next.get().request_cancellation(next.as_super()) => task = next.clone(),
                Ok(_) => break,
                // It stays the waiter: if it ignores this, it is cancelled again.
                Err(_) if cancel_any(&waiter, message.as_ref())? => return Ok(true),
                Err(_) => break,
            }
        }
        task.get().state.with(py, |state| state.must_cancel = true);
        task.as_super().get().set_cancel_message(py, message);
        Ok(true)
    }

    /// Count a request; false where the task is done.
    fn request_cancellation(&self, future: &Bound<'_, Future>) -> bool {
        let py = future.py();
        future.get().forget_traceback(py);
        let is_pending = future.get().is_pending(py);
        if is_pending {
            self.state.with(py, |state| state.cancellations += 1);
        }
        is_pending
    }

    fn report_destroyed(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        if !Self::is_destroyed_early(slf) {
            return Ok(());
        }
        let future = slf.as_super().get();
        let report = PyDict::new(py);
        report.set_item("task", slf)?;
        report.set_item("message", "Task was destroyed but it is pending!")?;
        if let Some(source_traceback) = future.source_traceback(py) {
            report.set_item("source_traceback", source_traceback)?;
        }
        EventLoop::report(future.event_loop().bind(py), report)
    }

    fn is_destroyed_early(slf: &Bound<'_, Self>) -> bool {
        let py = slf.py();
        slf.as_super().get().is_pending(py) && slf.get().state.with(py, |state| state.log_destroy_pending)
    }
}

/// Cancel what a task waits for; whether that was pending.
pub fn cancel_any(waiter: &Bound<'_, PyAny>, message: Option<&Py<PyAny>>) -> ThinResult<bool> {
    let py = waiter.py();
    if let Ok(task) = waiter.cast_exact::<Task>() {
        return Task::cancel(task, message.map(|message| message.clone_ref(py)));
    }
    if let Some(future) = as_native(waiter) {
        return Future::cancel(future, message.map(|message| message.clone_ref(py)));
    }
    if let Ok(waiter) = waiter.cast_exact::<NativeWaiter>() {
        return NativeWaiter::cancel(waiter, message.map(|message| message.clone_ref(py)));
    }
    let cancel = waiter.getattr(intern!(py, "cancel"))?;
    let message = message.map_or_else(|| py.None(), |message| message.clone_ref(py));
    let keyword = imports(py)?.message_keyword.bind(py);
    Ok(call_with_keywords(cancel.as_borrowed(), &[message.bind_borrowed(py)], keyword)?.is_truthy()?)
}

/// asyncio's `iscoroutine`, at once for what `async def` makes.
fn is_coroutine(object: Borrowed<'_, '_, PyAny>) -> PyResult<bool> {
    if is_native_coroutine(object) {
        return Ok(true);
    }
    imports(object.py())?.iscoroutine.bind(object.py()).call1((object,))?.is_truthy()
}

fn is_native_coroutine(object: Borrowed<'_, '_, PyAny>) -> bool {
    std::ptr::eq(object.get_type_ptr(), &raw const ffi::PyCoro_Type)
}

#[pymethods]
impl Task {
    #[new]
    #[pyo3(signature = (coro, *, r#loop=None, **options))]
    fn new<'py>(
        coro: &Bound<'py, PyAny>,
        r#loop: Option<Bound<'py, PyAny>>,
        options: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Py<Self>> {
        let event_loop = native_loop_or_current(coro.py(), r#loop)?;
        let mut taken = Options::default();
        for (name, value) in options.into_iter().flatten() {
            taken.set(name.cast::<PyString>()?, value)?;
        }
        Ok(Self::spawn(&event_loop, coro.as_borrowed(), taken)?.unbind())
    }

    /// The class that the task is an instance of, for `isinstance`.
    #[getter]
    fn __class__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(imports(py)?.task.bind(py).clone())
    }

    #[classmethod]
    fn __class_getitem__<'py>(
        class: &Bound<'py, PyType>,
        item: Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        class.py().import("types")?.getattr("GenericAlias")?.call1((class, item))
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        imports(slf.py())?.task_repr.call1(slf.py(), (slf,))
    }

    /// Return the coroutine.
    fn get_coro(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.state.with(py, |state| state.coroutine.as_ref().map(|coroutine| coroutine.clone_ref(py)))
    }

    /// Return the context of the coroutine.
    fn get_context<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.context(py)
    }

    /// Return the name.
    fn get_name(&self, py: Python<'_>) -> PyResult<Py<PyString>> {
        let number = self.state.with(py, |state| match &state.name {
            Name::Given(name) => Err(name.clone_ref(py)),
            Name::Number(number) => Ok(*number),
        });
        match number {
            Err(name) => Ok(name),
            Ok(number) => {
                let name = PyString::new(py, &format!("Task-{number}"));
                let previous = self
                    .state
                    .with(py, |state| std::mem::replace(&mut state.name, Name::Given(name.clone().unbind())));
                drop(previous);
                Ok(name.unbind())
            }
        }
    }

    /// Give it another name.
    #[pyo3(signature = (value, /))]
    fn set_name(&self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let name = Name::Given(value.str()?.unbind());
        let previous = self.state.with(value.py(), |state| std::mem::replace(&mut state.name, name));
        drop(previous);
        Ok(())
    }

    /// Request that the coroutine be cancelled; return False if the task was done.
    #[pyo3(name = "cancel", signature = (msg=None))]
    fn cancel_method(slf: &Bound<'_, Self>, msg: Option<Py<PyAny>>) -> ThinResult<bool> {
        Self::cancel(slf, msg)
    }

    /// Return the count of the task's cancellation requests.
    fn cancelling(&self, py: Python<'_>) -> usize {
        self.state.with(py, |state| state.cancellations)
    }

    /// Decrement the task's count of cancellation requests, and return what remains.
    fn uncancel(&self, py: Python<'_>) -> PyResult<usize> {
        let takes_back = imports(py)?.uncancel_takes_back;
        Ok(self.state.with(py, |state| {
            if state.cancellations > 0 {
                state.cancellations -= 1;
                if state.cancellations == 0 && takes_back {
                    state.must_cancel = false;
                }
            }
            state.cancellations
        }))
    }

    #[pyo3(signature = (result, /))]
    fn set_result(
        &self,
        #[expect(unused_variables, reason = "refused")] result: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        Err(PyRuntimeError::new_err("Task does not support set_result operation"))
    }

    #[pyo3(signature = (exception, /))]
    fn set_exception(
        &self,
        #[expect(unused_variables, reason = "refused")] exception: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        Err(PyRuntimeError::new_err("Task does not support set_exception operation"))
    }

    /// Return the list of stack frames for this task's coroutine.
    #[pyo3(signature = (*, limit=None))]
    fn get_stack(slf: &Bound<'_, Self>, limit: Option<Bound<'_, PyAny>>) -> PyResult<Py<PyAny>> {
        imports(slf.py())?.task_get_stack.call1(slf.py(), (slf, limit))
    }

    /// Print the stack or traceback for this task's coroutine.
    #[pyo3(signature = (*, limit=None, file=None))]
    fn print_stack(
        slf: &Bound<'_, Self>,
        limit: Option<Bound<'_, PyAny>>,
        file: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        imports(slf.py())?.task_print_stack.call1(slf.py(), (slf, limit, file))
    }

    #[getter]
    fn _coro(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.get_coro(py)
    }

    #[getter]
    fn _fut_waiter(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.state.with(py, |state| state.waiter.as_ref().map(|waiter| waiter.clone_ref(py)))
    }

    #[getter]
    fn _must_cancel(&self, py: Python<'_>) -> bool {
        self.state.with(py, |state| state.must_cancel)
    }

    #[getter]
    fn _log_destroy_pending(&self, py: Python<'_>) -> bool {
        self.state.with(py, |state| state.log_destroy_pending)
    }

    #[setter(_log_destroy_pending)]
    fn set_log_destroy_pending(&self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let log = value.is_truthy()?;
        self.state.with(value.py(), |state| state.log_destroy_pending = log);
        Ok(())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Some(state) = self.state.look(&visit) else { return Ok(()) };
        visit.call(&state.coroutine)?;
        visit.call(&state.context)?;
        visit.call(&state.waiter)
    }

    fn __clear__(slf: &Bound<'_, Self>) {
        let taken = slf.get().state.with(slf.py(), |state| (state.coroutine.take(), state.waiter.take()));
        drop(taken);
    }
}

impl Woken for Task {
    fn wake_up(task: &Bound<'_, Self>, future: &Bound<'_, PyAny>) -> ThinResult<()> {
        step::wake_up(task, future)
    }
}

impl Finalized for Task {
    fn has_last_words(task: &Bound<'_, Self>) -> bool {
        Self::is_destroyed_early(task) || task.as_super().get().is_unretrieved(task.py())
    }

    fn finalize(task: &Bound<'_, Self>) {
        let reported =
            Self::report_destroyed(task).and_then(|()| Future::report_unretrieved(task.as_super()));
        if let Err(error) = reported {
            error.write_unraisable(task.py(), Some(task.as_any()));
        }
    }

    fn deallocator() -> &'static OnceLock<ffi::destructor> {
        static DEALLOCATOR: OnceLock<ffi::destructor> = OnceLock::new();
        &DEALLOCATOR
    }
}

impl Recycled for Task {
    const TRACKED: bool = true;

    fn free_list() -> &'static FreeList {
        static FREE_LIST: FreeList = FreeList::new();
        &FREE_LIST
    }
}
