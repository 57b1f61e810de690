//! Which of our loops runs on this thread: what `asyncio.get_running_loop` tells, without calling Python.

use std::cell::RefCell;

use pyo3::prelude::*;

use super::EventLoop;
use crate::ffi::gil_cell::GilCell;

thread_local! {
    static RUNNING: RefCell<Option<Py<EventLoop>>> = const { RefCell::new(None) };
}

/// The loop that began to run last, on whichever thread, while it runs. Mostly it is the only one, and one's own; to see that
/// is cheaper than a thread-local variable of a shared library.
static LATEST: GilCell<Option<Py<EventLoop>>> = GilCell::new(None);

/// The loop that runs on this thread.
pub fn running_here(py: Python<'_>) -> Option<Bound<'_, EventLoop>> {
    if let Some(latest) = &*LATEST.borrow(py)
        && latest.get().is_running_here()
    {
        return Some(latest.bind(py).clone());
    }
    RUNNING.with_borrow(|running| running.as_ref().map(|event_loop| event_loop.bind(py).clone()))
}

/// Whether it is this one. Needs no Python.
pub fn runs_here(event_loop: &Py<EventLoop>) -> bool {
    // A waker may be called while its thread ends.
    RUNNING
        .try_with(|running| running.borrow().as_ref().is_some_and(|running| running.is(event_loop)))
        .unwrap_or(false)
}

/// Says which loop runs here, until it is dropped.
#[must_use]
pub struct RunsHere {
    previous: Option<Py<EventLoop>>,
}

impl RunsHere {
    /// `event_loop` runs on this thread from now on.
    pub fn begin(event_loop: &Bound<'_, EventLoop>) -> Self {
        let py = event_loop.py();
        let previous = RUNNING.replace(Some(event_loop.clone().unbind()));
        let latest = LATEST.borrow_mut(py).replace(event_loop.clone().unbind());
        drop(latest);
        Self { previous }
    }
}

impl Drop for RunsHere {
    fn drop(&mut self) {
        let ended = RUNNING.replace(self.previous.take());
        let latest = Python::attach(|py| {
            let mut latest = LATEST.borrow_mut(py);
            let is_it = latest.as_ref().zip(ended.as_ref()).is_some_and(|(latest, ended)| latest.is(ended));
            if is_it { latest.take() } else { None }
        });
        drop((latest, ended));
    }
}
