//! Who is to hear that a future is done.

use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;
use pyo3::{PyTraverseError, intern};

use super::future::Future;
use super::task::Task;
use crate::callback::Callback;
use crate::error::ThinResult;
use crate::event_loop::EventLoop;
use crate::ffi::call::call_with_keywords;
use crate::ffi::references::another;
use crate::ffi::task_callbacks::wakeup_of;
use crate::imports::imports;

/// One who waits for a future.
pub enum Waiter {
    /// A native task of the same loop, which is woken without any callback.
    Task(Py<Task>),
    /// What `add_done_callback` was given.
    Callback {
        /// Called with the future.
        callback: Py<PyAny>,
        /// In this context.
        context: Py<PyAny>,
    },
}

impl Waiter {
    /// Have it told, in the next turn, that `future` is done.
    pub fn schedule(self, event_loop: &Bound<'_, EventLoop>, future: &Bound<'_, Future>) -> ThinResult<()> {
        let py = future.py();
        match self {
            Self::Task(task) => EventLoop::schedule(event_loop, || Callback::NativeWakeup {
                task,
                future: another(future).unbind(),
            }),
            // asyncio's debug mode looks at callbacks, and remembers where they were scheduled.
            Self::Callback { callback, context } if event_loop.get().debug() => {
                let call_soon = event_loop.getattr(intern!(py, "call_soon"))?;
                let arguments =
                    [callback.bind_borrowed(py), future.as_any().as_borrowed(), context.bind_borrowed(py)];
                let keyword = imports(py)?.context_keyword.bind(py);
                call_with_keywords(call_soon.as_borrowed(), &arguments, keyword)?;
                Ok(())
            }
            Self::Callback { callback, context } => EventLoop::schedule(event_loop, || Callback::Done {
                callback,
                future: another(future).unbind(),
                context,
            }),
        }
    }

    /// What asyncio's `_callbacks` holds for it: the callback and its context.
    pub fn describe<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
        Ok(match self {
            Self::Task(task) => {
                let task = task.bind(py);
                (wakeup_of(task)?, task.get().context(py))
            }
            Self::Callback { callback, context } => (callback.bind(py).clone(), context.bind(py).clone()),
        })
    }

    /// Another reference to the same.
    pub fn clone_ref(&self, py: Python<'_>) -> Self {
        match self {
            Self::Task(task) => Self::Task(task.clone_ref(py)),
            Self::Callback { callback, context } => {
                Self::Callback { callback: callback.clone_ref(py), context: context.clone_ref(py) }
            }
        }
    }

    /// Whether both were added by the same call, or by calls with the same objects.
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Task(ours), Self::Task(theirs)) => ours.is(theirs),
            (
                Self::Callback { callback: ours, context: our_context },
                Self::Callback { callback: theirs, context: their_context },
            ) => ours.is(theirs) && our_context.is(their_context),
            _ => false,
        }
    }
}

/// Waiters in the order in which they came; one, as most futures have, needs no allocation.
#[derive(Default)]
pub enum Callbacks {
    /// Nobody waits.
    #[default]
    None,
    /// One waiter.
    One(Waiter),
    /// Two or more, or what is left of them.
    Many(Vec<Waiter>),
}

impl Callbacks {
    /// Add one at the end.
    pub fn push(&mut self, waiter: Waiter) {
        *self = match std::mem::take(self) {
            Self::None => Self::One(waiter),
            Self::One(first) => Self::Many(vec![first, waiter]),
            Self::Many(mut waiters) => {
                waiters.push(waiter);
                Self::Many(waiters)
            }
        };
    }

    /// All of them.
    pub fn as_slice(&self) -> &[Waiter] {
        match self {
            Self::None => &[],
            Self::One(waiter) => std::slice::from_ref(waiter),
            Self::Many(waiters) => waiters,
        }
    }

    /// Take out those that are among `unwanted`; the caller drops them when nothing is open.
    #[must_use]
    pub fn remove(&mut self, unwanted: &[Waiter]) -> Vec<Waiter> {
        let waiters = match std::mem::take(self) {
            Self::None => Vec::new(),
            Self::One(waiter) => vec![waiter],
            Self::Many(waiters) => waiters,
        };
        let (removed, kept) =
            waiters.into_iter().partition(|waiter| unwanted.iter().any(|other| other.is(waiter)));
        *self = Self::Many(kept);
        removed
    }

    /// Show the garbage collector what waits.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        for waiter in self.as_slice() {
            match waiter {
                Waiter::Task(task) => visit.call(task)?,
                Waiter::Callback { callback, context } => {
                    visit.call(callback)?;
                    visit.call(context)?;
                }
            }
        }
        Ok(())
    }
}
