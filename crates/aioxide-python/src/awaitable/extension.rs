//! Futures that other people's extensions bring (crate `aioxide-awaitable`), for the loop that runs on their thread.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use super::Awaitable;
use super::future::{AnyFuture, RustFuture};
use crate::event_loop::EventLoop;
use crate::event_loop::running::running_here;
use crate::ffi::extension::ForeignFuture;
use crate::imports::imports;

/// Make an awaitable of the running loop. Where it fails, `future` was not called.
#[inline(always)]
pub fn awaitable(
    py: Python<'_>,
    name: &'static str,
    future: impl FnOnce() -> ForeignFuture,
) -> PyResult<Py<Awaitable>> {
    RustFuture::awaitable(running_loop(py)?, name, || AnyFuture::Foreign(future()))
}

/// Spawn a task on the running loop.
pub fn spawn(py: Python<'_>, name: &str, future: ForeignFuture) -> PyResult<()> {
    let event_loop = running_loop(py)?;
    EventLoop::spawn(event_loop.get(), name.to_owned(), future)
}

/// The loop that runs on this thread, if it is ours.
fn running_loop(py: Python<'_>) -> PyResult<Bound<'_, EventLoop>> {
    running_here(py).map_or_else(|| Err(no_loop(py)), Ok)
}

/// Why there is none.
#[cold]
fn no_loop(py: Python<'_>) -> PyErr {
    let running = match imports(py).and_then(|imports| imports.get_running_loop.call(py)) {
        Ok(running) if !running.is_none() => running,
        Ok(_none) => return PyRuntimeError::new_err("no running event loop"),
        Err(error) => return error,
    };
    let class = running.get_type();
    let name = class.fully_qualified_name().map_or_else(|_| "another loop".into(), |name| name.to_string());
    PyRuntimeError::new_err(format!(
        "Rust futures need aioxide's event loop, and {name} runs: start the program with aioxide.run(main()), or \
         asyncio.run(main(), loop_factory=aioxide.new_event_loop)"
    ))
}
