//! The loop's clock: the kernel's, unless a program puts its own in place of `loop.time`, as a subclass or as an
//! attribute of one loop. Tests do, so that hours pass in no time, and asyncio's timers go by what it says.
//!
//! Nobody asks in every turn whether it was replaced: the class is looked at when a loop is made, and setting an
//! attribute of a loop, which is rare, tells.

use std::sync::atomic::Ordering;
use std::time::Duration;

use aioxide_driver::sys;
use aioxide_runtime::Deadline;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyType};

use super::EventLoop;
use crate::callback::Callback;
use crate::ffi::{attribute, call};

/// How long at least a loop sleeps between two looks at a program's own clock, which may stand still. asyncio
/// rounds up to milliseconds, too.
pub const OWN_CLOCK_PAUSE: Duration = Duration::from_millis(1);

/// The kernel's clock, in seconds: that of `time.monotonic()`.
pub fn now() -> f64 {
    sys::monotonic_now() as f64 * 1e-9
}

/// Seconds of the loop's clock as the runtime's nanoseconds, rounded up so that no timer is early. What
/// lies outside its range waits for ever, or not at all.
pub fn deadline_of(when: f64) -> Deadline {
    Deadline((when * 1e9).ceil() as u64)
}

/// Whether a class of loops has a clock of its own. The loop's is a method of `EventLoop`, or of a class that adopted it.
pub fn is_replaced_in(class: &Bound<'_, PyType>) -> PyResult<bool> {
    let py = class.py();
    let time = intern!(py, "time");
    let (found, ours) = (class.getattr(time)?, py.get_type::<EventLoop>().getattr(time)?);
    if !found.get_type().is(ours.get_type()) {
        return Ok(true);
    }
    let Some(defined_by) = found.getattr_opt(intern!(py, "__objclass__"))? else { return Ok(true) };
    let is_ours = defined_by.cast::<PyType>()?.is_subclass_of::<EventLoop>()?;
    Ok(!is_ours || !found.getattr(intern!(py, "__name__"))?.eq(time)?)
}

/// Set or delete an attribute of a loop.
pub fn set_attribute(
    event_loop: &Bound<'_, EventLoop>,
    name: &Bound<'_, PyString>,
    value: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    attribute::set(event_loop, name, value)?;
    if name == "time" {
        let is_replaced = value.is_some() || is_replaced_in(&event_loop.get_type())?;
        event_loop.get().has_own_clock.store(is_replaced, Ordering::Relaxed);
    }
    Ok(())
}

impl EventLoop {
    /// Whether the program put a clock of its own in place of the loop's.
    pub fn has_own_clock(&self) -> bool {
        self.has_own_clock.load(Ordering::Relaxed)
    }

    /// What the loop's clock says, in seconds.
    pub fn clock(event_loop: &Bound<'_, Self>) -> PyResult<f64> {
        if !event_loop.get().has_own_clock() {
            return Ok(now());
        }
        let name = intern!(event_loop.py(), "time");
        call::call_method(event_loop.as_any().as_borrowed(), name, &[])?.extract()
    }

    /// The time of the program's own clock, if it has one.
    pub fn own_time(event_loop: &Bound<'_, Self>) -> PyResult<Option<Deadline>> {
        if !event_loop.get().has_own_clock() {
            return Ok(None);
        }
        // Rounded as the timers are: one that is due now is due now.
        Self::clock(event_loop).map(|seconds| Some(deadline_of(seconds)))
    }

    /// Move the timers that are due by the program's own clock, if it has one, to the ready queue.
    pub fn expire_by_own_clock(event_loop: &Bound<'_, Self>) -> PyResult<()> {
        let Some(now) = Self::own_time(event_loop)? else { return Ok(()) };
        event_loop.get().with_core(|core| {
            core.timers.expire(now, |handle| core.ready.push(Callback::Timer(handle)));
        })
    }
}
