//! What a handle has to call: a callback with its arguments, and the context to call it in.
//!
//! # Invariants
//! - A cancelled handle holds no callback, arguments or context (asyncio keeps them in debug mode, so do we).
//! - Nothing is dropped while a record is borrowed, and nothing called while one is that anybody else can reach.

use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use pyo3::Borrowed;
use pyo3::PyTraverseError;
use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;

use crate::error::ThinResult;
use crate::event_loop::{EventLoop, owned};
use crate::ffi::collector::is_shared;
use crate::ffi::gil_cell::GilCell;
use crate::ffi::{call, context, snapshot};
use crate::imports::imports;

/// How many records are in use. Counted without atomic read-modify-write: on a build with the GIL it is exact, on a
/// free-threaded one it is an estimate.
static LIVE: AtomicUsize = AtomicUsize::new(0);

/// How many handles are alive in this process.
pub fn live_handles() -> usize {
    LIVE.load(Relaxed)
}

/// A callback with its arguments and context; empty before it is [filled](Record::fill) and once it is cancelled.
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
    fn new(arguments: &[Borrowed<'_, '_, PyAny>]) -> Self {
        match arguments {
            [] => Self::None,
            [one] => Self::One(owned(one)),
            many => Self::Many(many.iter().map(owned).collect()),
        }
    }

    /// All of them, in their order.
    pub fn as_slice(&self) -> &[Py<PyAny>] {
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

/// The context of a handle to come, and where it comes from: what is to be had before there is a handle, as it may fail.
pub struct Origins {
    context: Py<PyAny>,
    is_snapshot: bool,
    origin: Option<Box<Origin>>,
}

impl Origins {
    /// Take `context`, or one with the variables of this moment.
    // Inlined, as all on the way into the record: what goes by memory is stored in small parts and loaded in large ones,
    // for which the processor waits.
    #[inline(always)]
    pub fn new(
        event_loop: &Bound<'_, EventLoop>,
        context: Option<Borrowed<'_, '_, PyAny>>,
    ) -> ThinResult<Self> {
        let py = event_loop.py();
        let is_snapshot = context.is_none();
        let context = match context {
            Some(context) => owned(&context),
            None => snapshot::current(py)?,
        };
        let origin = if event_loop.get().debug() { Some(Origin::here(py)?) } else { None };
        Ok(Self { context, is_snapshot, origin })
    }
}

impl Origin {
    #[cold]
    fn here(py: Python<'_>) -> PyResult<Box<Self>> {
        let source_traceback = call::call(imports(py)?.extract_stack.bind_borrowed(py), &[])?.unbind();
        Ok(Box::new(Self { source_traceback: Some(source_traceback), cancelled_repr: None }))
    }
}

impl Record {
    /// One with nothing in it.
    pub fn empty() -> Self {
        Self::count_again();
        Self { callback: None, arguments: Arguments::None, context: None, is_snapshot: false, origin: None }
    }

    /// Put a callback into an empty record: where it lies, as moving one costs more than filling it.
    #[inline(always)]
    pub fn fill(
        &mut self,
        callback: Borrowed<'_, '_, PyAny>,
        arguments: &[Borrowed<'_, '_, PyAny>],
        origins: Origins,
    ) {
        debug_assert!(
            self.callback.is_none() && self.context.is_none(),
            "what was there would be dropped here"
        );
        // Nothing is dropped: an empty record holds no object.
        self.callback = Some(owned(&callback));
        if !arguments.is_empty() {
            self.arguments = Arguments::new(arguments);
        }
        self.context = Some(origins.context);
        self.is_snapshot = origins.is_snapshot;
        self.origin = origins.origin;
    }

    /// Whether the collector would find nothing in it, nor debug mode.
    pub fn is_empty(&self) -> bool {
        self.callback.is_none() && self.context.is_none() && self.origin.is_none()
    }

    /// Count one more, that was [not counted](Record::count_no_more).
    #[inline]
    pub fn count_again() {
        LIVE.store(LIVE.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// Count one less: it is kept for the next handle.
    #[inline]
    pub fn count_no_more() {
        LIVE.store(LIVE.load(Relaxed).wrapping_sub(1), Relaxed);
    }

    /// Make the context one that no other handle has, before it is entered or shown. Fails for want of memory.
    #[inline]
    pub fn leave_snapshot(cell: &GilCell<Self>, py: Python<'_>) -> ThinResult<()> {
        let shared = {
            let mut record = cell.borrow_mut(py);
            match &record.context {
                Some(context) if record.is_snapshot && is_shared(context.bind(py)) => context.clone_ref(py),
                _ => {
                    record.is_snapshot = false;
                    return Ok(());
                }
            }
        };
        let own = context::copy(shared.bind_borrowed(py))?;
        let replaced = {
            let mut record = cell.borrow_mut(py);
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

    /// Call, in the context; nothing where it was cancelled. The context is no snapshot that others have.
    #[inline]
    pub fn call(&self, py: Python<'_>) -> ThinResult<()> {
        match &self.context {
            Some(context) => self.call_in(py, context),
            None => Ok(()),
        }
    }

    fn call_in(&self, py: Python<'_>, context: &Py<PyAny>) -> ThinResult<()> {
        let Some(callback) = &self.callback else { return Ok(()) };
        context::call_in(py, context, callback, self.arguments.as_slice())
    }

    /// Call, where nobody else can reach the record: it stays borrowed meanwhile.
    #[inline]
    pub fn call_alone(cell: &GilCell<Self>, py: Python<'_>) -> ThinResult<()> {
        let record = cell.borrow(py);
        let shared =
            record.context.as_ref().filter(|context| record.is_snapshot && is_shared(context.bind(py)));
        let Some(snapshot) = shared else { return record.call(py) };
        let copy = snapshot::take_copy(py, snapshot)?;
        let ran = record.call_in(py, &copy);
        if ran.is_ok() {
            snapshot::give_back(py, copy, snapshot);
            return Ok(());
        }
        drop(record);
        // It will be asked for the context it ran in.
        let snapshot = {
            let mut record = cell.borrow_mut(py);
            record.is_snapshot = false;
            record.context.replace(copy)
        };
        drop(snapshot);
        ran
    }

    /// References to all that a call needs, of its own, so that a callback that cancels its own handle pulls nothing
    /// from under itself; empty where it was cancelled.
    pub fn to_call(&self, py: Python<'_>) -> Self {
        Self::count_again();
        Self {
            callback: self.callback.as_ref().map(|callback| callback.clone_ref(py)),
            arguments: self.arguments.clone_ref(py),
            context: self.context.as_ref().map(|context| context.clone_ref(py)),
            is_snapshot: self.is_snapshot,
            origin: None,
        }
    }

    /// Let go of the callback, its arguments and its context, which may run finalizers.
    #[inline]
    pub fn let_go(cell: &GilCell<Self>, py: Python<'_>) {
        let (callback, context, arguments) = {
            let mut record = cell.borrow_mut(py);
            let arguments = match record.arguments {
                Arguments::None => None,
                _ => Some(mem::replace(&mut record.arguments, Arguments::None)),
            };
            (record.callback.take(), record.context.take(), arguments)
        };
        for object in callback.into_iter().chain(context) {
            call::release(py, object);
        }
        match arguments {
            None | Some(Arguments::None) => {}
            Some(Arguments::One(one)) => call::release(py, one),
            Some(Arguments::Many(many)) => many.into_iter().for_each(|argument| call::release(py, argument)),
        }
    }

    /// The callback and its arguments; `None` where it was cancelled.
    pub fn content(&self, py: Python<'_>) -> Option<(Py<PyAny>, Arguments)> {
        Some((self.callback.as_ref()?.clone_ref(py), self.arguments.clone_ref(py)))
    }

    /// The context.
    pub fn context(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.context.as_ref().map(|context| context.clone_ref(py))
    }

    /// Where the handle was made.
    pub fn source_traceback(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        let origin = self.origin.as_ref()?;
        origin.source_traceback.as_ref().map(|traceback| traceback.clone_ref(py))
    }

    /// What the handle looked like when it was cancelled.
    pub fn cancelled_repr(&self) -> Option<String> {
        self.origin.as_ref()?.cancelled_repr.clone()
    }

    /// Remember what it looks like.
    pub fn set_cancelled_repr(&mut self, repr: String) {
        self.origin.get_or_insert_default().cancelled_repr = Some(repr);
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
        Self::count_no_more();
    }
}
