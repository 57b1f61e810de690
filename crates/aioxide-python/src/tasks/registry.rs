//! What asyncio knows of tasks: which there are (`all_tasks`), and which one runs (`current_task`).
//!
//! Up to Python 3.13 the running tasks are in the dictionary `asyncio.tasks._current_tasks`; from 3.14 on the
//! interpreter keeps the one of each thread, and only asyncio's own functions reach it.
//!
//! To enter there and to leave is a tenth of a step. So a task whose step the loop itself ran stays the current one: it
//! *lingers*, until the next task's step takes its place, or until the loop [does something else](settle).
//!
//! # Invariant
//! No Python code of the program runs while a task lingers, but finalizers of what its step left.

use std::sync::atomic::Ordering::Relaxed;

use pyo3::exceptions::{PyKeyError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;

use super::task::Task;
use crate::error::{ThinErr, ThinResult};
use crate::event_loop::EventLoop;
use crate::ffi::call;
use crate::ffi::collector::is_held_by_more_than;
use crate::ffi::weak_set::{self, Registry};

/// asyncio's books of tasks.
struct Books {
    /// The set of tasks, or where asyncio has another than we know, the function that adds one.
    scheduled: Result<Registry, Py<PyAny>>,
    current: Current,
    /// What eager tasks need, which Python 3.12 and later have.
    eager: Option<EagerBooks>,
}

enum Current {
    Dictionary(Py<PyDict>),
    Functions { enter: Py<PyAny>, leave: Py<PyAny>, swap: Py<PyAny> },
}

struct EagerBooks {
    swap: Py<PyAny>,
    register: Py<PyAny>,
    unregister: Py<PyAny>,
}

static BOOKS: PyOnceLock<Books> = PyOnceLock::new();

fn books(py: Python<'_>) -> PyResult<&'static Books> {
    BOOKS.get_or_try_init(py, || {
        let tasks = py.import("asyncio.tasks")?;
        let name = |name: &str| tasks.getattr(name).map(Bound::unbind);
        let scheduled = match task_set(&tasks)? {
            Some(set) => Ok(weak_set::accelerate(&set)?),
            None => Err(name("_register_task")?),
        };
        let current = match tasks.getattr_opt("_current_tasks")?.map(Bound::cast_into::<PyDict>) {
            Some(Ok(dictionary)) if py.version_info() < (3, 14) => Current::Dictionary(dictionary.unbind()),
            _ => Current::Functions {
                enter: name("_enter_task")?,
                leave: name("_leave_task")?,
                swap: name("_swap_current_task")?,
            },
        };
        let eager = match tasks.getattr_opt("_swap_current_task")? {
            Some(swap) => Some(EagerBooks {
                swap: swap.unbind(),
                register: name("_register_eager_task")?,
                unregister: name("_unregister_eager_task")?,
            }),
            None => None,
        };
        Ok(Books { scheduled, current, eager })
    })
}

/// The `WeakSet` in which asyncio keeps scheduled tasks.
fn task_set<'py>(tasks: &Bound<'py, PyModule>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = tasks.py();
    let weak_set = py.import("weakref")?.getattr("WeakSet")?;
    let candidates = if py.version_info() < (3, 14) {
        let name = if py.version_info() >= (3, 12) { "_scheduled_tasks" } else { "_all_tasks" };
        tasks.getattr_opt(name)?.into_iter().collect()
    } else {
        // Its only way out of the C module: what that holds has no name there.
        let referents = py.import("gc")?.call_method1("get_referents", (py.import("_asyncio")?,))?;
        referents.try_iter()?.collect::<PyResult<Vec<_>>>()?
    };
    let mut sets = candidates.into_iter().filter(|candidate| candidate.get_type().is(&weak_set));
    Ok(match (sets.next(), sets.next()) {
        (Some(set), None) => Some(set),
        _ => None,
    })
}

/// Register tasks natively, those of asyncio included where it does it in Python.
pub fn prepare(py: Python<'_>) -> PyResult<()> {
    books(py).map(drop)
}

/// Let `asyncio.all_tasks` find a task.
pub fn register(task: &Bound<'_, Task>) -> ThinResult<()> {
    let py = task.py();
    match &books(py)?.scheduled {
        Ok(registry) => {
            let entry = registry.add(task.as_any())?;
            let previous = task.get().state.with(py, |state| state.registration.replace(entry));
            drop(previous);
            Ok(())
        }
        Err(function) => {
            function.call1(py, (task,))?;
            Ok(())
        }
    }
}

/// Forget a task that is done, which `all_tasks` leaves out anyhow: cheaper now than when it dies.
pub fn unregister(task: &Bound<'_, Task>) -> ThinResult<()> {
    let py = task.py();
    let entry = task.get().state.with(py, |state| state.registration.take());
    match (entry, &books(py)?.scheduled) {
        (Some(entry), Ok(registry)) => Ok(registry.remove(py, entry)?),
        _ => Ok(()),
    }
}

/// When a task stops being the current one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaving {
    /// With its step.
    Now,
    /// When the loop that ran the step sees to it: the task may linger.
    Later,
}

/// Run `body` as the current task of the loop.
pub fn run_as<R>(
    event_loop: &Bound<'_, EventLoop>,
    task: &Bound<'_, Task>,
    leaving: Leaving,
    body: impl FnOnce() -> ThinResult<R>,
) -> ThinResult<R> {
    let current = &books(task.py())?.current;
    current.enter(event_loop, task)?;
    let result = body();
    if leaving == Leaving::Later {
        event_loop.get().task_lingers.store(true, Relaxed);
        return result;
    }
    match current.leave(event_loop, task) {
        Ok(()) => result,
        Err(error) => result.and(Err(error)),
    }
}

/// Let no task linger: the loop is about to do something else than a task's step.
#[inline]
pub fn settle(event_loop: &Bound<'_, EventLoop>) {
    if event_loop.get().task_lingers.load(Relaxed) {
        dismiss(event_loop);
    }
}

/// As [`settle`], where a task that a step was taken of may die with the caller's reference: what then runs is the
/// program's.
#[inline]
pub fn settle_before_the_end_of(event_loop: &Bound<'_, EventLoop>, task: &Py<Task>) {
    // The caller's, and asyncio's.
    if !is_held_by_more_than(task.bind(event_loop.py()), 2) {
        settle(event_loop);
    }
}

fn dismiss(event_loop: &Bound<'_, EventLoop>) {
    let py = event_loop.py();
    event_loop.get().task_lingers.store(false, Relaxed);
    let dismissed = books(py).and_then(|books| match &books.current {
        Current::Dictionary(dictionary) => match dictionary.bind(py).del_item(event_loop) {
            // Somebody took it out during the step.
            Err(error) if error.is_instance_of::<PyKeyError>(py) => Ok(()),
            deleted => deleted,
        },
        Current::Functions { swap, .. } => swap.call1(py, (event_loop, py.None())).map(drop),
    });
    if let Err(error) = dismissed {
        error.write_unraisable(py, Some(event_loop.as_any()));
    }
}

impl Current {
    fn enter(&self, event_loop: &Bound<'_, EventLoop>, task: &Bound<'_, Task>) -> ThinResult<()> {
        let py = task.py();
        let lingers = event_loop.get().task_lingers.swap(false, Relaxed);
        match self {
            Self::Dictionary(dictionary) => {
                let dictionary = dictionary.bind(py);
                // Nearly always it is empty here: a look at its size is cheaper than one for the loop.
                if !lingers
                    && !dictionary.is_empty()
                    && let Some(current) = dictionary.get_item(event_loop)?
                {
                    return Err(PyRuntimeError::new_err(format!(
                        "Cannot enter into task {} while another task {} is being executed.",
                        task.repr()?,
                        current.repr()?
                    ))
                    .into());
                }
                Ok(dictionary.set_item(event_loop, task)?)
            }
            Self::Functions { enter, swap, .. } => {
                let function = if lingers { swap } else { enter };
                call::run(
                    function.bind_borrowed(py),
                    &[event_loop.clone().into_any().unbind(), task.clone().into_any().unbind()],
                )
            }
        }
    }

    fn leave(&self, event_loop: &Bound<'_, EventLoop>, task: &Bound<'_, Task>) -> ThinResult<()> {
        let py = task.py();
        match self {
            Self::Dictionary(dictionary) => {
                let dictionary = dictionary.bind(py);
                let current = dictionary.get_item(event_loop)?;
                if !current.as_ref().is_some_and(|current| current.is(task)) {
                    let current = current.map_or_else(
                        || Ok("None".to_owned()),
                        |task| task.repr().map(|repr| repr.to_string()),
                    )?;
                    return Err(PyRuntimeError::new_err(format!(
                        "Leaving task {} does not match the current task {current}.",
                        task.repr()?
                    ))
                    .into());
                }
                Ok(dictionary.del_item(event_loop)?)
            }
            Self::Functions { leave, .. } => call::run(
                leave.bind_borrowed(py),
                &[event_loop.clone().into_any().unbind(), task.clone().into_any().unbind()],
            ),
        }
    }
}

/// Run `body`, a task's first step, inside whatever task creates it (Python 3.12).
pub fn run_eagerly(
    event_loop: &Bound<'_, EventLoop>,
    task: &Bound<'_, Task>,
    body: impl FnOnce() -> ThinResult<()>,
) -> ThinResult<()> {
    let py = task.py();
    let Some(eager) = &books(py)?.eager else {
        return Err(PyRuntimeError::new_err("this Python has no eager tasks").into());
    };
    let previous = eager.swap.call1(py, (event_loop, task))?;
    let registered = eager.register.call1(py, (task,)).map_err(ThinErr::from);
    let ran = registered.and_then(|_| {
        let ran = body();
        let unregistered = eager.unregister.call1(py, (task,));
        ran.and(unregistered.map_err(ThinErr::from))
    });
    let swapped = eager.swap.call1(py, (event_loop, previous));
    ran?;
    swapped?;
    Ok(())
}
