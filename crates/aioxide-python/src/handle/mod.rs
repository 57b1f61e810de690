//! `Handle`, `TimerHandle` and [`ThreadsafeHandle`]: what `call_soon`, `call_later`, `call_soon_threadsafe` and the
//! watchers return.
//!
//! They are not subclasses of asyncio's (Python classes cannot be extended without losing the inline
//! layout), but `isinstance` holds: their `__class__` says so, and `repr` is asyncio's own.
//!
//! # Invariants
//! - A cancelled handle holds no callback, arguments or context (asyncio keeps them in debug mode, so do we).
//! - Nothing is dropped or called while a handle is borrowed.

use std::cmp::Ordering;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use aioxide_runtime::TimerKey;
use pyo3::exceptions::{PyKeyboardInterrupt, PySystemExit};
use pyo3::prelude::*;
use pyo3::pyclass::{CompareOp, PyClass, PyVisit};
use pyo3::types::{PyDict, PyInt, PyTuple};
use pyo3::{Borrowed, IntoPyObjectExt, PyTraverseError, intern};

use crate::event_loop::EventLoop;
use crate::ffi::free_list::{FreeList, Recycled};
use crate::ffi::gil_cell::GilCell;
use crate::ffi::{call, collector, context, snapshot};
use crate::imports::imports;

/// How many handles are alive in this process. Counted without atomic read-modify-write: on a build
/// with the GIL it is exact, on a free-threaded one it is an estimate.
static LIVE: AtomicUsize = AtomicUsize::new(0);

/// How many handles are alive in this process.
pub fn live_handles() -> usize {
    LIVE.load(Relaxed)
}

/// A callback with its arguments and context.
pub struct Record {
    callback: Option<Py<PyAny>>,
    arguments: Arguments,
    context: Option<Py<PyAny>>,
    /// Whether the context is one that other handles may have, too (see [`snapshot`]).
    is_snapshot: bool,
    /// In debug mode only.
    origin: Option<Box<Origin>>,
}

/// What debug mode remembers of a handle.
#[derive(Default)]
struct Origin {
    /// Where it was made, if debug mode was on then.
    source_traceback: Option<Py<PyAny>>,
    /// asyncio's repr at the moment of cancellation.
    cancelled_repr: Option<String>,
}

/// Positional arguments; the usual small numbers of them need no allocation.
pub enum Arguments {
    /// No argument.
    None,
    /// One argument.
    One(Py<PyAny>),
    /// Two or more.
    Many(Box<[Py<PyAny>]>),
}

impl Arguments {
    /// Take references to `arguments`.
    pub fn new(arguments: &[Borrowed<'_, '_, PyAny>]) -> Self {
        match arguments {
            [] => Self::None,
            [one] => Self::One(Bound::clone(one).unbind()),
            many => Self::Many(many.iter().map(|argument| Bound::clone(argument).unbind()).collect()),
        }
    }

    fn as_slice(&self) -> &[Py<PyAny>] {
        match self {
            Self::None => &[],
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }

    fn clone_ref(&self, py: Python<'_>) -> Self {
        match self {
            Self::None => Self::None,
            Self::One(one) => Self::One(one.clone_ref(py)),
            Self::Many(many) => Self::Many(many.iter().map(|argument| argument.clone_ref(py)).collect()),
        }
    }
}

impl Record {
    /// Bind a callback to `context`, or to a copy of the current one.
    pub fn new(
        event_loop: &Bound<'_, EventLoop>,
        callback: Borrowed<'_, '_, PyAny>,
        arguments: &[Borrowed<'_, '_, PyAny>],
        context: Option<Borrowed<'_, '_, PyAny>>,
    ) -> PyResult<Self> {
        let py = event_loop.py();
        let is_snapshot = context.is_none();
        let context = match context {
            Some(context) => Bound::clone(&context).unbind(),
            None => snapshot::current(py)?,
        };
        let origin = if event_loop.get().debug() {
            let source_traceback = call::call(imports(py)?.extract_stack.bind_borrowed(py), &[])?.unbind();
            Some(Box::new(Origin { source_traceback: Some(source_traceback), cancelled_repr: None }))
        } else {
            None
        };
        LIVE.store(LIVE.load(Relaxed).wrapping_add(1), Relaxed);
        Ok(Self {
            callback: Some(Bound::clone(&callback).unbind()),
            arguments: Arguments::new(arguments),
            context: Some(context),
            is_snapshot,
            origin,
        })
    }

    /// What a call needs; `None` once the handle was cancelled.
    fn invocation(&self, py: Python<'_>) -> Option<Invocation> {
        Some(Invocation {
            callback: self.callback.as_ref()?.clone_ref(py),
            arguments: self.arguments.clone_ref(py),
            context: self.context.as_ref()?.clone_ref(py),
            is_snapshot: self.is_snapshot,
        })
    }

    /// Take out what a call needs; `None` once the handle was cancelled.
    fn take(&mut self) -> Option<Invocation> {
        let is_snapshot = self.is_snapshot;
        let (callback, arguments, context) = self.clear();
        Some(Invocation { callback: callback?, arguments, context: context?, is_snapshot })
    }

    /// Put back what was taken out.
    fn put_back(&mut self, Invocation { callback, arguments, context, is_snapshot }: Invocation) {
        debug_assert!(self.callback.is_none(), "what was there would be dropped in a borrow");
        self.callback = Some(callback);
        self.arguments = arguments;
        self.context = Some(context);
        self.is_snapshot = is_snapshot;
    }

    fn source_traceback(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        let origin = self.origin.as_ref()?;
        origin.source_traceback.as_ref().map(|traceback| traceback.clone_ref(py))
    }

    /// Take out everything a cancelled handle need not keep; the caller drops it unborrowed.
    #[must_use]
    fn clear(&mut self) -> (Option<Py<PyAny>>, Arguments, Option<Py<PyAny>>) {
        (self.callback.take(), std::mem::replace(&mut self.arguments, Arguments::None), self.context.take())
    }

    /// Show the garbage collector what this record keeps alive.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.callback)?;
        for argument in self.arguments.as_slice() {
            visit.call(argument)?;
        }
        visit.call(&self.context)?;
        match &self.origin {
            Some(origin) => visit.call(&origin.source_traceback),
            None => Ok(()),
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        LIVE.store(LIVE.load(Relaxed).wrapping_sub(1), Relaxed);
    }
}

/// Whether an exception must leave the loop instead of being reported (asyncio `Handle._run`).
pub fn ends_the_loop(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PyKeyboardInterrupt>(py) || error.is_instance_of::<PySystemExit>(py)
}

/// References to all that a call needs, of its own, so that a callback that cancels its own handle pulls nothing from
/// under itself.
struct Invocation {
    callback: Py<PyAny>,
    arguments: Arguments,
    context: Py<PyAny>,
    is_snapshot: bool,
}

impl Invocation {
    /// Call in the context.
    fn call(&mut self, py: Python<'_>) -> PyResult<()> {
        if self.is_snapshot {
            let own = snapshot::own(py, &self.context, 1)?;
            let shared = mem::replace(&mut self.context, own);
            self.is_snapshot = false;
            drop(shared);
        }
        context::run_in(self.context.bind_borrowed(py), || {
            call::call(self.callback.bind_borrowed(py), self.arguments.as_slice()).map(drop)
        })
    }

    #[cold]
    fn clone_ref(&self, py: Python<'_>) -> Self {
        Self {
            callback: self.callback.clone_ref(py),
            arguments: self.arguments.clone_ref(py),
            context: self.context.clone_ref(py),
            is_snapshot: self.is_snapshot,
        }
    }

    /// Let go of it.
    fn release(self, py: Python<'_>) {
        release(py, Some(self.callback), self.arguments, Some(self.context));
    }

    /// Report what the callback raised, as asyncio's `Handle._run`.
    fn report(
        self,
        error: PyErr,
        handle: &Bound<'_, PyAny>,
        source_traceback: Option<Py<PyAny>>,
        event_loop: &Bound<'_, EventLoop>,
    ) -> PyResult<()> {
        let py = handle.py();
        if ends_the_loop(py, &error) {
            return Err(error);
        }
        let arguments = PyTuple::new(py, self.arguments.as_slice())?;
        let module = py.import("asyncio.format_helpers")?;
        let source = call::call_method_of(
            &module,
            intern!(py, "_format_callback_source"),
            (self.callback, arguments),
        )?;
        let report = PyDict::new(py);
        report.set_item("message", format!("Exception in callback {source}"))?;
        report.set_item("exception", error)?;
        report.set_item("handle", handle)?;
        if let Some(source_traceback) = source_traceback {
            report.set_item("source_traceback", source_traceback)?;
        }
        EventLoop::report(event_loop, report)
    }
}

/// Give a handle a context of its own, in which it will run and which others may see.
fn own_context(record: &GilCell<Record>, py: Python<'_>) -> PyResult<()> {
    let snapshot = {
        let record = record.borrow(py);
        if record.is_snapshot { record.context.as_ref().map(|context| context.clone_ref(py)) } else { None }
    };
    let Some(snapshot) = snapshot else { return Ok(()) };
    let own = snapshot::own(py, &snapshot, 2)?;
    let replaced = {
        let mut record = record.borrow_mut(py);
        // Making a copy may have run code that cancelled the handle, or that asked the same.
        if mem::take(&mut record.is_snapshot) && record.context.is_some() {
            record.context.replace(own)
        } else {
            Some(own)
        }
    };
    drop(replaced);
    Ok(())
}

/// Let go of what a handle held.
fn release(py: Python<'_>, callback: Option<Py<PyAny>>, arguments: Arguments, context: Option<Py<PyAny>>) {
    for object in callback.into_iter().chain(context) {
        call::release(py, object);
    }
    match arguments {
        Arguments::None => {}
        Arguments::One(one) => call::release(py, one),
        Arguments::Many(many) => many.into_iter().for_each(|argument| call::release(py, argument)),
    }
}

/// Run a callback that got no handle, because nobody could ask for it; it gets one if it must be reported.
pub fn run_without_handle(
    event_loop: &Bound<'_, EventLoop>,
    callback: &Py<PyAny>,
    argument: &Py<PyAny>,
    context: &Py<PyAny>,
) -> PyResult<()> {
    let py = event_loop.py();
    let result = context::run_in(context.bind_borrowed(py), || {
        call::call(callback.bind_borrowed(py), std::slice::from_ref(argument)).map(drop)
    });
    let Err(error) = result else { return Ok(()) };
    let arguments = [argument.bind_borrowed(py)];
    let record =
        Record::new(event_loop, callback.bind_borrowed(py), &arguments, Some(context.bind_borrowed(py)))?;
    let handle = Bound::new(py, Handle::new(event_loop, record))?;
    collector::show(&handle);
    let invocation = handle.get().record.borrow(py).invocation(py);
    match invocation {
        Some(invocation) => invocation.report(error, handle.as_any(), None, event_loop),
        None => Err(error),
    }
}

/// Run the callback of a handle that left its queue, unless it was cancelled.
fn run<T: PyClass>(
    handle: &Bound<'_, T>,
    record: &GilCell<Record>,
    event_loop: &Bound<'_, EventLoop>,
) -> PyResult<()> {
    let py = handle.py();
    // Where nobody else holds the handle, nobody can cancel it meanwhile or ask what is in it.
    let is_ours = !collector::is_shared(handle);
    let invocation = if is_ours {
        record.borrow_mut(py).take()
    } else {
        // Where it cannot be had the call tries again, and tells.
        let _ = own_context(record, py);
        record.borrow(py).invocation(py)
    };
    let ran = match invocation {
        None => Ok(()),
        Some(mut invocation) => match invocation.call(py) {
            Ok(()) => {
                invocation.release(py);
                Ok(())
            }
            Err(error) => {
                if is_ours {
                    record.borrow_mut(py).put_back(invocation.clone_ref(py));
                }
                let source_traceback = record.borrow(py).source_traceback(py);
                invocation.report(error, handle.as_any(), source_traceback, event_loop)
            }
        },
    };
    if collector::show_if_shared(handle) {
        return ran;
    }
    // It goes with the caller's reference: what it holds alone is finalized here, where that may take its time.
    let (callback, arguments, context) = record.borrow_mut(py).clear();
    release(py, callback, arguments, context);
    ran
}

/// What both kinds of handle have in common, in methods that PyO3 cannot inherit.
macro_rules! handle_methods {
    ($class:ident, $asyncio_class:ident, [$($extra:tt)*]) => {
        #[pymethods]
        impl $class {
            /// The class that the handle is an instance of, for `isinstance`.
            #[getter]
            fn __class__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
                Ok(imports(py)?.$asyncio_class.bind(py).clone())
            }

            #[getter]
            fn _callback(&self, py: Python<'_>) -> Option<Py<PyAny>> {
                self.record.borrow(py).callback.as_ref().map(|callback| callback.clone_ref(py))
            }

            #[getter]
            fn _args<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
                let arguments = {
                    let record = self.record.borrow(py);
                    if record.callback.is_none() {
                        return Ok(None);
                    }
                    record.arguments.clone_ref(py)
                };
                PyTuple::new(py, arguments.as_slice()).map(Some)
            }

            #[getter]
            fn _context(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
                own_context(&self.record, py)?;
                Ok(self.record.borrow(py).context.as_ref().map(|context| context.clone_ref(py)))
            }

            #[getter]
            fn _loop(&self, py: Python<'_>) -> Py<EventLoop> {
                self.event_loop.clone_ref(py)
            }

            #[getter]
            fn _cancelled(&self) -> bool {
                self.cancelled.load(Relaxed)
            }

            #[getter]
            fn _source_traceback(&self, py: Python<'_>) -> Option<Py<PyAny>> {
                self.record.borrow(py).source_traceback(py)
            }

            #[getter]
            fn _repr(&self, py: Python<'_>) -> Option<String> {
                self.record.borrow(py).origin.as_ref()?.cancelled_repr.clone()
            }

            fn _repr_info<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
                let class = imports(slf.py())?.$asyncio_class.bind(slf.py());
                call::call_method_of(class, intern!(slf.py(), "_repr_info"), (slf,))
            }

            /// Return the context the callback runs in (Python 3.12).
            fn get_context(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
                self._context(py)
            }

            fn __repr__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
                let class = imports(slf.py())?.$asyncio_class.bind(slf.py());
                call::call_method_of(class, intern!(slf.py(), "__repr__"), (slf,))
            }

            fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
                self.traverse(&visit)
            }

            fn __clear__(&self) {
                let taken = Python::attach(|py| self.record.borrow_mut(py).clear());
                drop(taken);
            }

            $($extra)*
        }

        impl $class {
            /// Show the garbage collector what the handle keeps alive.
            pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
                visit.call(&self.event_loop)?;
                self.record.look(visit).map_or(Ok(()), |record| record.traverse(visit))
            }

            /// Mark the handle as cancelled, and keep its repr in debug mode; `false` where it was before.
            fn mark_cancelled(slf: &Bound<'_, Self>) -> PyResult<bool> {
                let this = slf.get();
                if this.cancelled.load(Relaxed) {
                    return Ok(false);
                }
                this.cancelled.store(true, Relaxed);
                if this.event_loop.get().debug() {
                    let repr = slf.repr()?.to_string();
                    this.record.borrow_mut(slf.py()).origin.get_or_insert_default().cancelled_repr = Some(repr);
                }
                Ok(true)
            }
        }
    };
}

mod threadsafe;

pub use threadsafe::ThreadsafeHandle;

/// A callback that waits in the ready queue, or a watcher's.
#[pyclass(module = "aioxide", weakref, frozen)]
pub struct Handle {
    event_loop: Py<EventLoop>,
    record: GilCell<Record>,
    cancelled: AtomicBool,
}

impl Handle {
    /// Wrap a record.
    pub fn new(event_loop: &Bound<'_, EventLoop>, record: Record) -> Self {
        let event_loop = event_loop.clone().unbind();
        Self { event_loop, record: GilCell::new(record), cancelled: AtomicBool::new(false) }
    }

    /// Run the callback unless it was cancelled.
    pub fn run(slf: &Bound<'_, Self>, event_loop: &Bound<'_, EventLoop>) -> PyResult<()> {
        run(slf, &slf.get().record, event_loop)
    }
}

impl Recycled for Handle {
    fn free_list() -> &'static FreeList {
        static LIST: FreeList = FreeList::new();
        &LIST
    }
}

handle_methods!(Handle, handle, [
    /// Return whether the callback was cancelled.
    fn cancelled(&self) -> bool {
        self.cancelled.load(Relaxed)
    }

    /// Cancel the callback. Cancelling twice, or after it ran, does nothing.
    fn cancel(slf: &Bound<'_, Self>) -> PyResult<()> {
        if !Self::mark_cancelled(slf)? {
            return Ok(());
        }
        let taken = slf.get().record.borrow_mut(slf.py()).clear();
        drop(taken);
        Ok(())
    }
]);

/// A callback that waits for its time.
#[pyclass(module = "aioxide", weakref, frozen)]
pub struct TimerHandle {
    event_loop: Py<EventLoop>,
    record: GilCell<Record>,
    cancelled: AtomicBool,
    when: f64,
    /// The same as the program gave it, where that was an `int`.
    given: Option<Py<PyInt>>,
    /// Its place in the loop's heap while it waits there.
    key: GilCell<Option<TimerKey>>,
}

impl TimerHandle {
    /// Wrap a record that is due at `when`, in seconds of the loop's clock; `given` is the number that was given for it,
    /// if it was an `int`.
    pub fn new(
        event_loop: &Bound<'_, EventLoop>,
        record: Record,
        when: f64,
        given: Option<Py<PyInt>>,
    ) -> Self {
        let event_loop = event_loop.clone().unbind();
        let record = GilCell::new(record);
        Self { event_loop, record, cancelled: AtomicBool::new(false), when, given, key: GilCell::new(None) }
    }

    /// Remember the place in the heap.
    pub fn set_key(&self, py: Python<'_>, key: TimerKey) {
        *self.key.borrow_mut(py) = Some(key);
    }

    /// The time at which it is due, in seconds of the loop's clock.
    pub fn due(&self) -> f64 {
        self.when
    }

    /// Run the callback unless it was cancelled.
    pub fn run(slf: &Bound<'_, Self>, event_loop: &Bound<'_, EventLoop>) -> PyResult<()> {
        *slf.get().key.borrow_mut(slf.py()) = None;
        run(slf, &slf.get().record, event_loop)
    }
}

impl Recycled for TimerHandle {
    fn free_list() -> &'static FreeList {
        static LIST: FreeList = FreeList::new();
        &LIST
    }
}

handle_methods!(TimerHandle, timer_handle, [
    /// Return whether the callback was cancelled.
    fn cancelled(&self) -> bool {
        self.cancelled.load(Relaxed)
    }

    /// Return the time at which the callback is due, in seconds of the loop's clock.
    fn when(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        match &self.given {
            Some(given) => Ok(given.clone_ref(py).into_any()),
            None => self.when.into_py_any(py),
        }
    }

    /// Order by deadline; equal are those with the same deadline and callback (asyncio `TimerHandle`).
    fn __richcmp__(slf: &Bound<'_, Self>, other: &Bound<'_, PyAny>, operator: CompareOp) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        let Ok(other) = other.cast::<Self>() else { return Ok(py.NotImplemented()) };
        let order = slf.get().when.partial_cmp(&other.get().when);
        let answer = match order {
            Some(Ordering::Equal) => {
                let content = |handle: &Bound<'_, Self>| {
                    let handle = handle.get();
                    let arguments = handle._args(py)?.map(Bound::unbind);
                    PyResult::Ok((handle._callback(py), arguments, handle._cancelled()))
                };
                let ours = content(slf)?.into_pyobject(py)?;
                let is_equal = ours.eq(content(other)?)?;
                match operator {
                    CompareOp::Eq | CompareOp::Le | CompareOp::Ge => is_equal,
                    CompareOp::Ne => !is_equal,
                    CompareOp::Lt | CompareOp::Gt => false,
                }
            }
            Some(order) => operator.matches(order),
            None => matches!(operator, CompareOp::Ne),
        };
        Ok(answer.into_pyobject(py)?.to_owned().into_any().unbind())
    }

    fn __hash__(&self) -> u64 {
        self.when.to_bits()
    }

    #[getter]
    fn _when(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.when(py)
    }

    #[getter]
    fn _scheduled(&self, py: Python<'_>) -> bool {
        self.key.borrow(py).is_some()
    }

    /// Cancel the callback and leave the loop's heap.
    fn cancel(slf: &Bound<'_, Self>) -> PyResult<()> {
        if !Self::mark_cancelled(slf)? {
            return Ok(());
        }
        let this = slf.get();
        let key = this.key.borrow_mut(slf.py()).take();
        let taken = this.record.borrow_mut(slf.py()).clear();
        // From another thread the entry stays in the heap until it is due, and is skipped then.
        if let Some(key) = key {
            drop(this.event_loop.get().with_core(|core| core.timers.cancel(key)));
        }
        drop(taken);
        Ok(())
    }
]);
