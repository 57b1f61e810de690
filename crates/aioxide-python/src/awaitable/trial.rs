//! Futures that the tests of awaitables await, and tasks that they spawn: what no method of ours does on demand.

use std::future::{pending, poll_fn};
use std::io;
use std::rc::Rc;
use std::task::{Poll, Waker};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::Awaitable;
use super::future::RustFuture;
use crate::error::os_error;
use crate::event_loop::EventLoop;

/// An awaitable of a Rust future; `dropped` is called with no arguments when the future is dropped.
///
/// `kind` says what it does before it returns `value`: "ready" nothing; "yields" wakes itself `count` times; "sleeps"
/// `count` milliseconds; "thread" is woken `count` times by other threads; "never" waits for ever; "fails" with the
/// errno `count`; "panics".
#[pyfunction]
#[pyo3(signature = (event_loop, kind, count=0, value=None, dropped=None))]
pub fn _trial_future(
    event_loop: &Bound<'_, EventLoop>,
    kind: &str,
    count: u32,
    value: Option<Py<PyAny>>,
    dropped: Option<Py<PyAny>>,
) -> PyResult<Py<Awaitable>> {
    let guard = Guard(dropped);
    let finish = move || {
        drop(guard);
        Python::attach(|py| Ok(value.unwrap_or_else(|| py.None())))
    };
    let name = "trial";
    match kind {
        "ready" => RustFuture::awaitable(event_loop, name, async { finish() }),
        "yields" => RustFuture::awaitable(event_loop, name, async move {
            let mut left = count;
            poll_fn(|context| {
                if left == 0 {
                    return Poll::Ready(());
                }
                left -= 1;
                context.waker().wake_by_ref();
                Poll::Pending
            })
            .await;
            finish()
        }),
        "sleeps" => RustFuture::awaitable(event_loop, name, async move {
            aioxide_runtime::sleep(std::time::Duration::from_millis(count.into())).await;
            finish()
        }),
        "thread" => RustFuture::awaitable(event_loop, name, async move {
            let mut left = count;
            poll_fn(|context| {
                if left == 0 {
                    return Poll::Ready(());
                }
                left -= 1;
                wake_elsewhere(context.waker().clone());
                Poll::Pending
            })
            .await;
            finish()
        }),
        "never" => RustFuture::awaitable(event_loop, name, async {
            pending::<()>().await;
            finish()
        }),
        "fails" => RustFuture::awaitable(event_loop, name, async move {
            drop(finish);
            Python::attach(|py| Err(os_error(py, &io::Error::from_raw_os_error(count.cast_signed()))))
        }),
        "panics" => RustFuture::awaitable(event_loop, name, async move {
            let _finish = finish;
            panic!("a trial")
        }),
        _ => Err(PyValueError::new_err("no such trial")),
    }
}

/// Spawn a Rust task; `dropped` is called with no arguments when its future is dropped.
///
/// It "ends" at once, waits for ever ("never"), "panics", or is "bad to drop": it waits for ever and panics then.
#[pyfunction]
#[pyo3(signature = (event_loop, name, kind, dropped=None))]
pub fn _trial_task(
    event_loop: &Bound<'_, EventLoop>,
    name: String,
    kind: &str,
    dropped: Option<Py<PyAny>>,
) -> PyResult<()> {
    let guard = Guard(dropped);
    event_loop.get().check_thread()?;
    let runtime = event_loop.get().with_core(|core| Rc::clone(&core.runtime))?;
    drop(match kind {
        "ends" => runtime.spawn_named(name, async move { drop(guard) }),
        "never" => runtime.spawn_named(name, async move {
            let _guard = guard;
            pending::<()>().await;
        }),
        "panics" => runtime.spawn_named(name, async move {
            let _guard = guard;
            panic!("a trial")
        }),
        "bad to drop" => runtime.spawn_named(name, async move {
            let _bomb = PanicsWhenDropped;
            pending::<()>().await;
        }),
        _ => return Err(PyValueError::new_err("no such trial")),
    });
    Ok(())
}

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic!("a trial while it is dropped");
    }
}

/// Wake from a thread that neither Python nor a runtime knows.
#[expect(clippy::disallowed_methods, reason = "a thread of the pool would be the runtime's own")]
fn wake_elsewhere(waker: Waker) {
    std::thread::spawn(move || waker.wake());
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
