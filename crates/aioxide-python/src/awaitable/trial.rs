//! Futures that the tests of awaitables await, and tasks that panic: what no method of ours does on demand.

use std::future::{pending, poll_fn};
use std::io;
use std::task::{Poll, Waker};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::Awaitable;
use super::future::{AnyFuture, RustFuture};
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
    match kind {
        "ready" => trial(event_loop, async { finish() }),
        "yields" => trial(event_loop, async move {
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
        "sleeps" => trial(event_loop, async move {
            aioxide_runtime::sleep(std::time::Duration::from_millis(count.into())).await;
            finish()
        }),
        "thread" => trial(event_loop, async move {
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
        "never" => trial(event_loop, async {
            pending::<()>().await;
            finish()
        }),
        "fails" => trial(event_loop, async move {
            drop(finish);
            Python::attach(|py| Err(os_error(py, &io::Error::from_raw_os_error(count.cast_signed()))))
        }),
        "panics" => trial(event_loop, async move {
            let _finish = finish;
            panic!("a trial")
        }),
        _ => Err(PyValueError::new_err("no such trial")),
    }
}

fn trial(
    event_loop: &Bound<'_, EventLoop>,
    future: impl Future<Output = PyResult<Py<PyAny>>> + 'static,
) -> PyResult<Py<Awaitable>> {
    event_loop.get().check_thread()?;
    RustFuture::awaitable(event_loop.clone(), "trial", || AnyFuture::new(future))
}

/// Spawn a Rust task of ours that panics: when it is polled, or when it is dropped.
#[pyfunction]
pub fn _trial_panic(event_loop: &Bound<'_, EventLoop>, name: String, when_dropped: bool) -> PyResult<()> {
    struct PanicsWhenDropped;
    impl Drop for PanicsWhenDropped {
        fn drop(&mut self) {
            panic!("a trial");
        }
    }
    event_loop.get().spawn(name, async move {
        let bomb = PanicsWhenDropped;
        if when_dropped {
            pending::<()>().await;
        }
        drop(bomb);
        Ok(())
    })
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
