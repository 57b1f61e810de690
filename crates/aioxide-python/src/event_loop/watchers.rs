//! Watching descriptors (asyncio docs, "Watching file descriptors"): `add_reader`, `add_writer`.
//!
//! Readiness is level-triggered: the callback runs in every turn for as long as the descriptor is ready.

use std::os::fd::RawFd;

use aioxide_driver::{Op, Outcome, Token};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::{EventLoop, Interest, Submission};
use crate::error::os_error;
use crate::ffi::collector::show;
use crate::handle::{self, Handle};

/// The tokens of a descriptor's watchers.
#[derive(Default)]
pub struct Watchers {
    reader: Option<Token>,
    writer: Option<Token>,
}

/// Which readiness is watched.
#[derive(Clone, Copy)]
pub enum Direction {
    /// Reading would not block.
    Read,
    /// Writing would not block.
    Write,
}

impl Watchers {
    fn side(&mut self, direction: Direction) -> &mut Option<Token> {
        match direction {
            Direction::Read => &mut self.reader,
            Direction::Write => &mut self.writer,
        }
    }

    fn is_empty(&self) -> bool {
        self.reader.is_none() && self.writer.is_none()
    }
}

/// Watch a descriptor, in place of an earlier watcher of the same direction. OSError as epoll's, where it
/// cannot be watched.
pub fn add(
    event_loop: &Bound<'_, EventLoop>,
    descriptor: RawFd,
    direction: Direction,
    callback: &Bound<'_, PyAny>,
    arguments: &Bound<'_, PyTuple>,
    context: Option<&Bound<'_, PyAny>>,
) -> PyResult<Py<Handle>> {
    let py = event_loop.py();
    event_loop.get()._check_closed()?;
    let arguments: Vec<_> = arguments.iter_borrowed().collect();
    let context = context.map(Bound::as_borrowed);
    let handle = handle::make::<Handle>(event_loop, callback.as_borrowed(), &arguments, context)?;
    show(handle.bind(py));
    remove(event_loop, descriptor, direction)?;
    let op = match direction {
        Direction::Read => Op::WaitReadable { descriptor, repeat: true },
        Direction::Write => Op::WaitWritable { descriptor, repeat: true },
    };
    let interest = Interest::Watcher(handle.clone_ref(py));
    let submitted = event_loop.get().with_core(|core| {
        let submitted = core.submit(op, interest);
        if let Submission::Pending(token) = submitted {
            *core.watchers.entry(descriptor).or_default().side(direction) = Some(token);
        }
        submitted
    })?;
    match submitted {
        Submission::Done(Outcome::Failed(error), _interest) => Err(os_error(py, &error)),
        _ => Ok(handle),
    }
}

/// Stop watching; `false` where nothing was watched.
pub fn remove(event_loop: &Bound<'_, EventLoop>, descriptor: RawFd, direction: Direction) -> PyResult<bool> {
    if event_loop.get().is_closed() {
        return Ok(false);
    }
    let removed = event_loop.get().with_core(|core| {
        let watchers = core.watchers.get_mut(&descriptor)?;
        let token = watchers.side(direction).take();
        if watchers.is_empty() {
            core.watchers.remove(&descriptor);
        }
        core.cancel(token?)
    })?;
    let Some(Interest::Watcher(handle)) = removed else { return Ok(false) };
    // A callback that is in the ready queue already must not run any more.
    handle.bind(event_loop.py()).call_method0("cancel")?;
    Ok(true)
}
