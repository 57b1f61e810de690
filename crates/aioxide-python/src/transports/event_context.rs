//! The context in which a transport's events are handled.
//!
//! What a protocol sets in one call it finds in the next, as with asyncio, where all of them run in the context of one
//! handle. Nearly no protocol sets anything, and a context for every connection would be as large as a small protocol. So
//! connections share a [snapshot], until an event sets a variable: from then on the context in which it
//! did is the transport's own.

use pyo3::PyTraverseError;
use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;

use crate::error::ThinResult;
use crate::ffi::call;
use crate::ffi::context::run_in;
use crate::ffi::gil_cell::GilCell;
use crate::ffi::snapshot;

/// See the module's docs.
pub struct EventContext(GilCell<Which>);

enum Which {
    /// Others have it, too, and nobody enters it.
    Shared(Py<PyAny>),
    Own(Py<PyAny>),
}

impl EventContext {
    /// One with the variables of a snapshot, which nobody enters from now on.
    pub fn new(snapshot: Py<PyAny>) -> Self {
        Self(GilCell::new(Which::Shared(snapshot)))
    }

    /// Run `body` inside; fails for want of memory, and as `body`.
    #[inline]
    pub fn run(&self, py: Python<'_>, body: impl FnOnce() -> ThinResult<()>) -> ThinResult<()> {
        let (context, is_own) = self.0.with(py, |which| match which {
            Which::Shared(context) => (context.clone_ref(py), false),
            Which::Own(context) => (context.clone_ref(py), true),
        });
        let entered = if is_own { context.clone_ref(py) } else { snapshot::take_copy(py, &context)? };
        let result = run_in(entered.bind_borrowed(py), body);
        if is_own {
            call::release(py, entered);
        } else if let Some(changed) = snapshot::give_back_unchanged(py, entered, &context) {
            self.make_own(py, changed);
        }
        call::release(py, context);
        result
    }

    #[cold]
    fn make_own(&self, py: Python<'_>, context: Py<PyAny>) {
        let previous = self.0.with(py, |which| std::mem::replace(which, Which::Own(context)));
        drop(previous);
    }

    /// Show the garbage collector what this keeps alive.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self.0.look(visit).as_deref() {
            Some(Which::Shared(context) | Which::Own(context)) => visit.call(context),
            None => Ok(()),
        }
    }
}
