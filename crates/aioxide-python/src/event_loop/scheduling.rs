//! Scheduling callbacks, creating futures and tasks (asyncio docs, "Scheduling callbacks", "Creating
//! Futures and Tasks").
//!
//! A task's own callbacks enter the queue without a handle: the C task drops what `call_soon` returns.

use std::ffi::CStr;
use std::sync::atomic::Ordering;

use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyInt, PyTuple};
use pyo3::{Borrowed, intern};

use super::clock::deadline_of;
use super::{EventLoop, owned};
use crate::callback::Callback;
use crate::error::ThinResult;
use crate::ffi::call::{call, call_method, call_method_of, call_object, call_with_keywords};
use crate::ffi::method::{Arguments, FastMethod, PlainMethod, TupleMethod};
use crate::ffi::references::another_of;
use crate::ffi::task_callbacks::{self, Kind};
use crate::handle::{self, Handle, ThreadsafeHandle, TimerHandle};
use crate::imports::imports;
use crate::loop_cell::Refused;
use crate::tasks::{self, Future, Task};

/// `call_soon(callback, *args, context=None)`.
pub struct CallSoon;

impl FastMethod for CallSoon {
    type Class = EventLoop;
    const NAME: &'static CStr = c"call_soon";
    const POSITIONAL: &'static [&'static str] = &["callback"];
    const DOCUMENTATION: &'static CStr = c"call_soon($self, callback, *args, context=None)\n--\n\nArrange for a callback to be called as soon as possible, in FIFO order; return its Handle.";

    fn call(event_loop: &Bound<'_, EventLoop>, arguments: &Arguments<'_, '_>) -> ThinResult<Py<PyAny>> {
        let context = arguments.only_keyword("call_soon", intern!(event_loop.py(), "context"))?;
        let positional = arguments.at_least("call_soon", 1)?;
        let (callback, rest) = (positional[0], &positional[1..]);
        let this = event_loop.get();
        this._check_closed()?;
        if this.debug() {
            check_thread(event_loop)?;
            check_callback(event_loop, callback, "call_soon")?;
            return schedule_handle(event_loop, callback, rest, context);
        }
        if let Some(context) = context {
            match (task_callbacks::kind_of(callback), rest) {
                (Kind::TaskStep, []) => {
                    EventLoop::enqueue_made(event_loop, || Callback::TaskStep {
                        step: owned(&callback),
                        context: owned(&context),
                    })?;
                    return Ok(event_loop.py().None());
                }
                (Kind::TaskWakeup, [future]) => {
                    EventLoop::enqueue_made(event_loop, || Callback::TaskWakeup {
                        wakeup: owned(&callback),
                        future: owned(future),
                        context: owned(&context),
                    })?;
                    return Ok(event_loop.py().None());
                }
                _ => {}
            }
        }
        schedule_handle(event_loop, callback, rest, context)
    }
}

/// `call_soon_threadsafe(callback, *args, context=None)`.
pub struct CallSoonThreadsafe;

impl FastMethod for CallSoonThreadsafe {
    type Class = EventLoop;
    const NAME: &'static CStr = c"call_soon_threadsafe";
    const POSITIONAL: &'static [&'static str] = &["callback"];
    const DOCUMENTATION: &'static CStr = c"call_soon_threadsafe($self, callback, *args, context=None)\n--\n\nLike call_soon(), from any thread.";

    fn call(event_loop: &Bound<'_, EventLoop>, arguments: &Arguments<'_, '_>) -> ThinResult<Py<PyAny>> {
        let context = arguments.only_keyword("call_soon_threadsafe", intern!(event_loop.py(), "context"))?;
        let positional = arguments.at_least("call_soon_threadsafe", 1)?;
        let (callback, rest) = (positional[0], &positional[1..]);
        let this = event_loop.get();
        this._check_closed()?;
        if this.debug() {
            check_callback(event_loop, callback, "call_soon_threadsafe")?;
        }
        if !cfg!(Py_3_14) {
            return schedule_handle(event_loop, callback, rest, context);
        }
        let handle = handle::make::<ThreadsafeHandle>(event_loop, callback, rest, context)?;
        EventLoop::enqueue_made(event_loop, || {
            Callback::ThreadsafeHandle(another_of(event_loop.py(), &handle))
        })?;
        Ok(handle.into_any())
    }
}

/// `call_later(delay, callback, *args, context=None)`.
pub struct CallLater;

impl FastMethod for CallLater {
    type Class = EventLoop;
    const NAME: &'static CStr = c"call_later";
    const POSITIONAL: &'static [&'static str] = &["delay", "callback"];
    const DOCUMENTATION: &'static CStr = c"call_later($self, delay, callback, *args, context=None)\n--\n\nArrange for a callback to be called after a delay in seconds; return its TimerHandle.";

    fn call(event_loop: &Bound<'_, EventLoop>, arguments: &Arguments<'_, '_>) -> ThinResult<Py<PyAny>> {
        let context = arguments.only_keyword("call_later", intern!(event_loop.py(), "context"))?;
        let positional = arguments.at_least("call_later", 2)?;
        if positional[0].is_none() {
            return Err(PyTypeError::new_err("delay must not be None").into());
        }
        let when = EventLoop::clock(event_loop)? + positional[0].extract::<f64>()?;
        set_timer(event_loop, (when, None), positional[1], &positional[2..], context)
    }
}

/// `call_at(when, callback, *args, context=None)`.
pub struct CallAt;

impl FastMethod for CallAt {
    type Class = EventLoop;
    const NAME: &'static CStr = c"call_at";
    const POSITIONAL: &'static [&'static str] = &["when", "callback"];
    const DOCUMENTATION: &'static CStr = c"call_at($self, when, callback, *args, context=None)\n--\n\nLike call_later(), at a time of the clock of the loop, see time().";

    fn call(event_loop: &Bound<'_, EventLoop>, arguments: &Arguments<'_, '_>) -> ThinResult<Py<PyAny>> {
        let context = arguments.only_keyword("call_at", intern!(event_loop.py(), "context"))?;
        let positional = arguments.at_least("call_at", 2)?;
        if positional[0].is_none() {
            return Err(PyTypeError::new_err("when cannot be None").into());
        }
        let when = positional[0].extract::<f64>()?;
        let given = positional[0].cast_exact::<PyInt>().ok().map(|given| given.to_owned().unbind());
        set_timer(event_loop, (when, given), positional[1], &positional[2..], context)
    }
}

/// `create_future()`.
pub struct CreateFuture;

impl PlainMethod for CreateFuture {
    type Class = EventLoop;
    const NAME: &'static CStr = c"create_future";
    const DOCUMENTATION: &'static CStr =
        c"create_future($self, /)\n--\n\nCreate an asyncio.Future attached to the loop, or a native one.";

    fn call(event_loop: &Bound<'_, EventLoop>) -> ThinResult<Py<PyAny>> {
        if event_loop.get().has_native_tasks() {
            return Ok(Future::create(event_loop)?.into_any().unbind());
        }
        let imports = imports(event_loop.py())?;
        let future = imports.future.bind_borrowed(event_loop.py());
        let made = if is_asyncios_running_loop(event_loop)? {
            call(future, &[])
        } else {
            let keyword = imports.loop_keyword.bind(event_loop.py());
            call_with_keywords(future, &[event_loop.as_any().as_borrowed()], keyword)
        };
        Ok(made?.unbind())
    }
}

/// `create_task(coro, **kwargs)`, the keywords being those of the running Python's `asyncio.Task`.
pub struct CreateTask;

impl TupleMethod for CreateTask {
    type Class = EventLoop;
    const NAME: &'static CStr = c"create_task";
    const DOCUMENTATION: &'static CStr =
        c"create_task($self, coro, **kwargs)\n--\n\nSchedule a coroutine; return its asyncio.Task.";

    fn call(
        event_loop: &Bound<'_, EventLoop>,
        arguments: Borrowed<'_, '_, PyTuple>,
        keywords: Option<Borrowed<'_, '_, PyDict>>,
    ) -> ThinResult<Py<PyAny>> {
        let this = event_loop.get();
        this._check_closed()?;
        let keywords = keywords.filter(|keywords| !keywords.is_empty());
        if arguments.len() != 1 {
            return create_task_by_name(event_loop, arguments, keywords);
        }
        let coroutine = arguments.get_borrowed_item(0)?;
        if this.has_native_tasks() {
            let mut options = tasks::task::Options::default();
            for (name, value) in keywords.iter().flat_map(|keywords| keywords.iter()) {
                options.set(name.cast().map_err(PyErr::from)?, value)?;
            }
            return Ok(Task::spawn(event_loop, coroutine, options)?.into_any().unbind());
        }
        let py = event_loop.py();
        if this.has_task_factory.load(Ordering::Relaxed) {
            let keywords = keywords.map_or_else(|| PyDict::new(py), |keywords| keywords.to_owned());
            let method = intern!(py, "_create_task_with_factory");
            let made = call_method(
                event_loop.as_any().as_borrowed(),
                method,
                &[coroutine, keywords.as_any().as_borrowed()],
            )?;
            return Ok(made.unbind());
        }
        if let Some(keywords) = keywords
            && keywords.contains(intern!(py, "loop"))?
        {
            let text = "create_task() got multiple values for keyword argument 'loop'";
            return Err(PyTypeError::new_err(text).into());
        }
        let task = imports(py)?.task.bind_borrowed(py);
        if is_asyncios_running_loop(event_loop)? {
            return Ok(call_object(&task, arguments.to_owned(), keywords.as_deref())?.unbind());
        }
        let keywords = keywords.map_or_else(|| Ok(PyDict::new(py)), |keywords| keywords.copy())?;
        keywords.set_item(intern!(py, "loop"), event_loop)?;
        Ok(call_object(&task, arguments.to_owned(), Some(&keywords))?.unbind())
    }
}

/// `create_task(coro=…)`, or TypeError.
#[cold]
fn create_task_by_name(
    event_loop: &Bound<'_, EventLoop>,
    arguments: Borrowed<'_, '_, PyTuple>,
    keywords: Option<Borrowed<'_, '_, PyDict>>,
) -> ThinResult<Py<PyAny>> {
    let py = event_loop.py();
    if arguments.is_empty()
        && let Some(keywords) = keywords
        && let Some(coroutine) = keywords.get_item(intern!(py, "coro"))?
    {
        let keywords = keywords.copy()?;
        keywords.del_item(intern!(py, "coro"))?;
        let arguments = PyTuple::new(py, [coroutine])?;
        return CreateTask::call(event_loop, arguments.as_borrowed(), Some(keywords.as_borrowed()));
    }
    Err(PyTypeError::new_err(match arguments.len() {
        0 => "create_task() missing 1 required positional argument: 'coro'".to_owned(),
        given => format!("create_task() takes 1 positional argument but {given} were given"),
    })
    .into())
}

/// Whether asyncio takes the loop for the one that runs here. What is made without a loop gets that one, and for a keyword
/// the interpreter makes a dictionary.
fn is_asyncios_running_loop(event_loop: &Bound<'_, EventLoop>) -> PyResult<bool> {
    let running = imports(event_loop.py())?.get_running_loop.call(event_loop.py())?;
    Ok(running.is(event_loop))
}

/// `set_task_factory(factory)`.
pub fn set_task_factory(event_loop: &EventLoop, factory: Option<Bound<'_, PyAny>>) -> PyResult<()> {
    if let Some(factory) = &factory
        && !factory.is_callable()
    {
        return Err(PyTypeError::new_err("task factory must be a callable or None"));
    }
    let mut current = event_loop
        .task_factory
        .lock()
        .map_err(|_| PyRuntimeError::new_err("the task factory was left half set by a panic"))?;
    event_loop.has_task_factory.store(factory.is_some(), Ordering::Relaxed);
    let is_native = factory.as_ref().is_some_and(tasks::is_native_factory);
    event_loop.has_native_tasks.store(is_native, Ordering::Relaxed);
    let previous = std::mem::replace(&mut *current, factory.map(Bound::unbind));
    drop(current);
    drop(previous);
    Ok(())
}

/// `get_task_factory()`.
pub fn task_factory(event_loop: &EventLoop, py: Python<'_>) -> Option<Py<PyAny>> {
    event_loop.task_factory.lock().ok()?.as_ref().map(|factory| factory.clone_ref(py))
}

impl EventLoop {
    /// Whether tasks and futures of this loop are native.
    pub fn has_native_tasks(&self) -> bool {
        self.has_native_tasks.load(Ordering::Relaxed)
    }

    /// Put what `make` makes, a callback of a native task or future, into the ready queue, with the checks of
    /// `call_soon`; it calls no Python.
    #[inline(always)]
    pub fn schedule(event_loop: &Bound<'_, Self>, make: impl FnOnce() -> Callback) -> ThinResult<()> {
        if event_loop.get().debug() {
            check_thread(event_loop)?;
        }
        Self::enqueue_made(event_loop, make)
    }

    /// Put a callback into the ready queue; from a foreign thread into the inbox.
    ///
    /// asyncio lets a foreign thread append to the queue of a running loop without waking it, and programs
    /// exist that do so by mistake; here they work.
    pub fn enqueue(event_loop: &Bound<'_, Self>, callback: Callback) -> ThinResult<()> {
        Self::enqueue_made(event_loop, || callback)
    }

    /// As [`EventLoop::enqueue`], for what comes often (see [`Ready::push_made`]); `make` calls no Python.
    ///
    /// [`Ready::push_made`]: super::ready::Ready::push_made
    #[inline(always)]
    pub fn enqueue_made(event_loop: &Bound<'_, Self>, make: impl FnOnce() -> Callback) -> ThinResult<()> {
        let this = event_loop.get();
        match this.core.open() {
            Ok(mut core) => match &mut *core {
                Some(core) => {
                    core.ready.push_made(make);
                    Ok(())
                }
                None => Ok(this.opened(Ok(None))?),
            },
            Err(refused) => Self::refused(event_loop, refused, make),
        }
    }

    /// What else than to push can be done.
    #[cold]
    fn refused(
        event_loop: &Bound<'_, Self>,
        refused: Refused,
        make: impl FnOnce() -> Callback,
    ) -> ThinResult<()> {
        if refused == Refused::OtherThread {
            return post(event_loop, make());
        }
        Ok(event_loop.get().opened(Err(refused))?)
    }

    /// Enter a timer into the heap. It is forgotten silently where the loop was closed meanwhile.
    pub fn schedule_timer(event_loop: &Bound<'_, Self>, handle: &Py<TimerHandle>) {
        let py = event_loop.py();
        let deadline = deadline_of(handle.get().due(py));
        if let Ok(mut core) = event_loop.get().core.open()
            && let Some(core) = &mut *core
        {
            let key = core.timers.insert(deadline, another_of(py, handle));
            handle.get().set_key(py, key);
        }
    }
}

#[inline]
fn schedule_handle(
    event_loop: &Bound<'_, EventLoop>,
    callback: Borrowed<'_, '_, PyAny>,
    arguments: &[Borrowed<'_, '_, PyAny>],
    context: Option<Borrowed<'_, '_, PyAny>>,
) -> ThinResult<Py<PyAny>> {
    let handle = handle::make::<Handle>(event_loop, callback, arguments, context)?;
    EventLoop::enqueue_made(event_loop, || Callback::Handle(another_of(event_loop.py(), &handle)))?;
    Ok(handle.into_any())
}

/// Leave a callback in the inbox and wake the loop if it may sleep.
fn post(event_loop: &Bound<'_, EventLoop>, callback: Callback) -> ThinResult<()> {
    let this = event_loop.get();
    match this.inbox.push(callback) {
        Ok(true) => {
            this.wake();
            Ok(())
        }
        Ok(false) => Ok(()),
        Err(_callback) => Err(PyRuntimeError::new_err("Event loop is closed").into()),
    }
}

/// Set a timer for a time of the loop's clock, with the number given for it if that was an `int`.
fn set_timer(
    event_loop: &Bound<'_, EventLoop>,
    (when, given): (f64, Option<Py<PyInt>>),
    callback: Borrowed<'_, '_, PyAny>,
    arguments: &[Borrowed<'_, '_, PyAny>],
    context: Option<Borrowed<'_, '_, PyAny>>,
) -> ThinResult<Py<PyAny>> {
    let py = event_loop.py();
    let this = event_loop.get();
    this._check_closed()?;
    if this.debug() {
        check_thread(event_loop)?;
        // asyncio names call_at() for both.
        check_callback(event_loop, callback, "call_at")?;
    }
    let handle = TimerHandle::make(event_loop, (when, given), callback, arguments, context)?;
    if this.core.is_foreign() {
        post(event_loop, Callback::SetTimer(handle.clone_ref(py)))?;
    } else {
        EventLoop::schedule_timer(event_loop, &handle);
    }
    Ok(handle.into_any())
}

fn check_thread(event_loop: &Bound<'_, EventLoop>) -> ThinResult<()> {
    call_method(event_loop.as_any().as_borrowed(), intern!(event_loop.py(), "_check_thread"), &[])?;
    Ok(())
}

fn check_callback(
    event_loop: &Bound<'_, EventLoop>,
    callback: Borrowed<'_, '_, PyAny>,
    method: &str,
) -> ThinResult<()> {
    call_method_of(event_loop, intern!(event_loop.py(), "_check_callback"), (callback, method))?;
    Ok(())
}
