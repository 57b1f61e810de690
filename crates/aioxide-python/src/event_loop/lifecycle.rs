//! Opening, closing and counting.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use aioxide_driver::{Backend, Choice, Driver, Options};
use aioxide_runtime::Inbox;
use pyo3::exceptions::{PyResourceWarning, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyType};

use super::clock::is_replaced_in;
use super::{Core, EventLoop};
use crate::error::{os_error, warn};
use crate::handle::{KeptHandles, live_handles};
use crate::loop_cell::LoopCell;
use crate::tasks::future::live_futures;
use crate::tasks::task::live_tasks;
use crate::transports::tls;

/// asyncio's default for `slow_callback_duration`, in seconds.
const SLOW_CALLBACK_DURATION: f64 = 0.1;

/// Open a loop of a class on the named driver, or on the one that the environment names.
pub fn open(class: &Bound<'_, PyType>, driver: Option<&str>) -> PyResult<EventLoop> {
    let py = class.py();
    let mut options = match driver {
        None => Options::from_env().map_err(|error| PyValueError::new_err(error.to_string()))?,
        Some(_) => Options::default(),
    };
    match driver {
        None => {}
        Some("auto") => options.choice = Choice::Auto,
        Some("uring") => options.choice = Choice::Uring,
        Some("epoll") => options.choice = Choice::Epoll,
        Some(other) => {
            return Err(PyValueError::new_err(format!("driver must be auto, uring or epoll, not {other:?}")));
        }
    }
    let core = Core::open(&options).map_err(|error| os_error(py, &error))?;
    let waker = core.runtime.waker();
    let (backend, reason) = core.runtime.with_driver(|driver| (driver.backend(), driver.reason().to_owned()));
    Ok(EventLoop {
        core: LoopCell::new(Some(core)),
        inbox: Inbox::new(),
        waker: Mutex::new(Some(waker)),
        process: std::process::id(),
        driver: (backend.to_string(), reason),
        completion_based: backend == Backend::Uring,
        transports: Mutex::default(),
        closed: AtomicBool::new(false),
        kept_handles: KeptHandles::new(),
        stopping: AtomicBool::new(false),
        task_lingers: AtomicBool::new(false),
        debug: AtomicBool::new(false),
        slow_callback_duration: AtomicU64::new(SLOW_CALLBACK_DURATION.to_bits()),
        task_factory: Mutex::new(None),
        has_task_factory: AtomicBool::new(false),
        has_own_clock: AtomicBool::new(is_replaced_in(class)?),
        has_native_tasks: AtomicBool::new(false),
    })
}

/// Close a loop that does not run: forget every callback, end the Rust tasks, the last spawned first, cancel every
/// operation, close the driver.
pub fn close(event_loop: &Bound<'_, EventLoop>) -> PyResult<()> {
    let this = event_loop.get();
    if this.is_running() {
        return Err(PyRuntimeError::new_err("Cannot close a running event loop"));
    }
    let core = this.core.with(Option::take).map_err(|refused| this.refusal(refused))?;
    this.closed.store(true, Ordering::Relaxed);
    drop(this.inbox.close());
    if let Ok(mut waker) = this.waker.lock() {
        *waker = None;
    }
    if let Some(mut core) = core {
        core.take_contents().forget(event_loop.py());
        if !core.runtime.is_at_home() {
            let names = core.runtime.tasks();
            let text = format!("Rust tasks are not dropped: not their thread closes the loop: {names:?}");
            warn::<PyResourceWarning>(event_loop.py(), &text);
        }
        core.runtime.shutdown();
        let reported = EventLoop::report_tasks(event_loop, &core.runtime, &core.failures);
        drop(core);
        return reported;
    }
    Ok(())
}

/// Return the version, the build's profile, and the driver a new loop would get here and the TLS engine of
/// its connections, each with the reason.
#[pyfunction]
pub fn build_info(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let info = PyDict::new(py);
    info.set_item("version", env!("CARGO_PKG_VERSION"))?;
    info.set_item("profile", if cfg!(debug_assertions) { "debug" } else { "release" })?;
    match Options::from_env().and_then(|options| Driver::open(&options)) {
        Ok(driver) => {
            info.set_item("driver", driver.backend().to_string())?;
            info.set_item("driver_reason", driver.reason())?;
        }
        Err(error) => {
            info.set_item("driver", py.None())?;
            info.set_item("driver_reason", error.to_string())?;
        }
    }
    let (engine, reason) = tls::describe(py)?;
    info.set_item("tls", engine)?;
    info.set_item("tls_reason", reason)?;
    Ok(info)
}

/// How many of each native thing are alive. All but the process-wide `handles`, `tasks` and `futures` are zero once
/// the loop is closed. And the names of the Rust tasks, in the order they were spawned.
pub fn statistics<'py>(event_loop: &EventLoop, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
    let counts = PyDict::new(py);
    counts.set_item("handles", live_handles())?;
    counts.set_item("tasks", live_tasks())?;
    counts.set_item("futures", live_futures().wrapping_sub(live_tasks()))?;
    let (native, names) = if event_loop.is_closed() {
        ([0; 7], Vec::new())
    } else {
        event_loop.with_core(|core| {
            let counts = [
                core.ready.len(),
                core.timers.len(),
                core.watchers.len(),
                core.listeners.len(),
                event_loop.transports().len(),
                core.interests.len(),
                core.runtime.statistics().tasks,
            ];
            (counts, core.runtime.tasks())
        })?
    };
    counts.set_item("rust_task_names", names)?;
    let names = ["ready", "timers", "watchers", "servers", "transports", "operations", "rust_tasks"];
    for (name, count) in names.into_iter().zip(native) {
        counts.set_item(name, count)?;
    }
    Ok(counts)
}
