//! The native Task and Future: asyncio's, without a Python object or a handle for each step.
//!
//! A program chooses them for a loop with `loop.set_task_factory(aioxide.native_task_factory)`. They behave as the running
//! Python's `asyncio.Task` and `asyncio.Future`, whose instances they claim to be: their `__class__` says so. What cannot
//! be the same is in docs/compatibility.md, "Native tasks".
//!
//! A task that waits for a native future is an entry in the list of the future's waiters, and its wake-up an entry of the
//! ready queue. With any other future it speaks asyncio's protocol: `_asyncio_future_blocking` and `add_done_callback`.
//!
//! # Invariants
//! - State lies in a [`GilCell`](crate::ffi::gil_cell::GilCell) of each object: what leaves it is dropped by the caller.
//! - They live on aioxide's loops only.
//! - A pending task is in exactly one of three states: its step is scheduled, or it is running, or a waiter of the future
//!   that its `waiter` is and that is not done, or whose wake-up is scheduled.

mod callbacks;
pub mod future;
mod future_iterator;
pub mod registry;
pub mod step;
pub mod task;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString};

pub use self::future::Future;
pub use self::future_iterator::FutureIterator;
use self::task::Options;
pub use self::task::Task;
use crate::event_loop::EventLoop;
use crate::ffi::free_list;
use crate::ffi::iteration;
use crate::ffi::method::add_method;
use crate::ffi::object_slots::{make_final, make_finalized};
use crate::ffi::stop_iteration;

/// Make the classes what PyO3 cannot make them, and asyncio's books ready. Called when the module is imported.
pub fn prepare(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    registry::prepare(py)?;
    stop_iteration::prepare(py)?;
    let (future, task) = (py.get_type::<Future>(), py.get_type::<Task>());
    add_method::<future::AddDoneCallback>(&future)?;
    add_method::<future::SetResult>(&future)?;
    add_method::<future::Iterate>(&future)?;
    add_method::<future::Await>(&future)?;
    free_list::install::<Future>(py);
    free_list::install::<Task>(py);
    iteration::install::<Future>(&future)?;
    iteration::install::<Future>(&task)?;
    make_finalized::<Future>(&future);
    make_finalized::<Task>(&task);
    make_final(&future);
    make_final(&task);
    FACTORY.get_or_try_init(py, || module.getattr("native_task_factory").map(Bound::unbind)).map(drop)
}

static FACTORY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// Whether `factory` is [`native_task_factory`].
pub fn is_native_factory(factory: &Bound<'_, PyAny>) -> bool {
    FACTORY.get(factory.py()).is_some_and(|ours| ours.is(factory))
}

/// Make native tasks, for `loop.set_task_factory()`: faster, and asyncio's in all but their type.
///
/// The loop's `create_future()` makes native futures then.
#[pyfunction]
#[pyo3(signature = (r#loop, coro, **kwargs))]
pub fn native_task_factory(
    r#loop: &Bound<'_, PyAny>,
    coro: &Bound<'_, PyAny>,
    kwargs: Option<&Bound<'_, PyDict>>,
) -> PyResult<Py<Task>> {
    let mut options = Options::default();
    for (name, value) in kwargs.into_iter().flatten() {
        options.set(name.cast::<PyString>()?, value)?;
    }
    Ok(Task::spawn(native_loop(r#loop)?, coro.as_borrowed(), options)?.unbind())
}

/// The loop as the only kind that native tasks run on.
fn native_loop<'a, 'py>(event_loop: &'a Bound<'py, PyAny>) -> PyResult<&'a Bound<'py, EventLoop>> {
    match event_loop.cast::<EventLoop>() {
        Ok(event_loop) => Ok(event_loop),
        Err(_) => Err(PyTypeError::new_err(format!(
            "aioxide's native tasks and futures need an aioxide event loop, not {}",
            event_loop.repr()?
        ))),
    }
}

/// The loop that `given` is, or asyncio's current one.
fn native_loop_or_current<'py>(
    py: Python<'py>,
    given: Option<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, EventLoop>> {
    let event_loop = match given {
        Some(event_loop) => event_loop,
        None => crate::imports::imports(py)?.get_event_loop.bind(py).call0()?,
    };
    native_loop(&event_loop).cloned()
}
