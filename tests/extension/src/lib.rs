//! Futures and tasks that do on demand what the tests of awaitables look for, in an extension module.

use std::future::{Future, pending, poll_fn};
use std::sync::Mutex;
use std::task::{Poll, Waker};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use aioxide_awaitable::{awaitable_named, sleep, spawn_local};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;

/// An awaitable of the running loop; `dropped` is called with no arguments when the future is dropped.
///
/// `kind` says what it does before it returns `value`: "ready" nothing; "yields" wakes itself `count` times; "sleeps"
/// `count` milliseconds; "thread" is woken `count` times by other threads; "never" waits for ever; "fails" with the
/// errno `count`; "panics".
#[pyfunction]
#[pyo3(signature = (kind, count=0, value=None, dropped=None))]
fn trial_future<'py>(
    py: Python<'py>,
    kind: &str,
    count: u32,
    value: Option<Py<PyAny>>,
    dropped: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let guard = Guard(dropped);
    let finish = move || {
        drop(guard);
        Python::attach(|py| Ok(value.unwrap_or_else(|| py.None())))
    };
    match kind {
        "ready" => trial(py, async { finish() }),
        "yields" => trial(py, async move {
            woken(count, |waker| waker.wake_by_ref()).await;
            finish()
        }),
        "sleeps" => trial(py, async move {
            sleep(Duration::from_millis(count.into())).await;
            finish()
        }),
        "thread" => trial(py, async move {
            woken(count, |waker| {
                wake_elsewhere(waker.clone());
            })
            .await;
            finish()
        }),
        "never" => trial(py, async {
            pending::<()>().await;
            finish()
        }),
        "fails" => trial(py, async move {
            drop(finish);
            Err(PyOSError::new_err((count, "on demand")))
        }),
        "panics" => trial(py, async move {
            let _finish = finish;
            panic!("a trial")
        }),
        _ => Err(PyValueError::new_err("no such trial")),
    }
}

fn trial(
    py: Python<'_>,
    future: impl Future<Output = PyResult<Py<PyAny>>> + 'static,
) -> PyResult<Bound<'_, PyAny>> {
    awaitable_named(py, "trial", future)
}

/// Waits until it was polled `count` times more, for which `wake` cares.
async fn woken(count: u32, wake: impl Fn(&Waker)) {
    let mut left = count;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(());
        }
        left -= 1;
        wake(context.waker());
        Poll::Pending
    })
    .await;
}

/// Spawn a task of the running loop; `dropped` is called with no arguments when its future is dropped.
///
/// It "ends" at once, waits for ever ("never"), "sleeps" a millisecond, is woken by another "thread", "fails" with a
/// LookupError, "exits" with a SystemExit, "panics", or is "bad to drop": it waits for ever and panics then.
#[pyfunction]
#[pyo3(signature = (name, kind, dropped=None))]
fn trial_task(py: Python<'_>, name: &str, kind: &str, dropped: Option<Py<PyAny>>) -> PyResult<()> {
    let guard = Guard(dropped);
    let end = move || {
        drop(guard);
        Ok(())
    };
    match kind {
        "ends" => spawn_local(py, name, async move { end() }),
        "never" => spawn_local(py, name, async move {
            pending::<()>().await;
            end()
        }),
        "sleeps" => spawn_local(py, name, async move {
            sleep(Duration::from_millis(1)).await;
            end()
        }),
        "thread" => spawn_local(py, name, async move {
            woken(3, |waker| {
                wake_elsewhere(waker.clone());
            })
            .await;
            end()
        }),
        "fails" => spawn_local(py, name, async move {
            end()?;
            Err(pyo3::exceptions::PyLookupError::new_err("on demand"))
        }),
        "exits" => spawn_local(py, name, async move {
            end()?;
            Err(pyo3::exceptions::PySystemExit::new_err(3))
        }),
        "panics" => spawn_local(py, name, async move {
            let _end = end;
            panic!("a trial")
        }),
        "bad to drop" => spawn_local(py, name, async move {
            let _bomb = PanicsWhenDropped;
            pending::<()>().await;
            end()
        }),
        _ => Err(PyValueError::new_err("no such trial")),
    }
}

/// The threads that wake, which let go of the waker a moment later.
static THREADS: Mutex<Vec<JoinHandle<()>>> = Mutex::new(Vec::new());

fn wake_elsewhere(waker: Waker) {
    let thread = thread::spawn(move || waker.wake());
    THREADS.lock().unwrap().push(thread);
}

/// Wait for all threads that woke: after that nobody has a waker of theirs.
#[pyfunction]
fn join_threads(py: Python<'_>) {
    let threads = std::mem::take(&mut *THREADS.lock().unwrap());
    py.detach(|| threads.into_iter().for_each(|thread| thread.join().unwrap()));
}

/// Await `sleep` where no event loop is: it panics, which is a BaseException.
#[pyfunction]
fn sleep_outside() {
    let mut context = std::task::Context::from_waker(Waker::noop());
    _ = std::pin::pin!(sleep(Duration::ZERO)).poll(&mut context);
}

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic!("a trial while it is dropped");
    }
}

/// Tells when a future is dropped.
struct Guard(Option<Py<PyAny>>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(dropped) = self.0.take() {
            Python::attach(|py| {
                if let Err(error) = dropped.call0(py) {
                    error.write_unraisable(py, None);
                }
            });
        }
    }
}

/// What the tests of awaitables await.
#[pymodule]
fn aioxide_trial(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(trial_future, module)?)?;
    module.add_function(wrap_pyfunction!(trial_task, module)?)?;
    module.add_function(wrap_pyfunction!(join_threads, module)?)?;
    module.add_function(wrap_pyfunction!(sleep_outside, module)?)
}
