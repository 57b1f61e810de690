//! The same awaitables twice: polled on the event loop's thread, and on a tokio runtime beside it.

use std::future::poll_fn;
use std::task::Poll;

use pyo3::prelude::*;
use pyo3_async_runtimes::tokio::future_into_py;

/// A future that is ready, by aioxide.
#[pyfunction]
fn ready(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    aioxide_awaitable::awaitable_named(py, "ready", async { Ok(1) })
}

/// A future that is woken once, by aioxide.
#[pyfunction]
fn wakes(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    aioxide_awaitable::awaitable_named(py, "wakes", async {
        wake_once().await;
        Ok(1)
    })
}

/// A future that is ready, by pyo3-async-runtimes.
#[pyfunction]
fn tokio_ready(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    future_into_py(py, async { Ok(1) })
}

/// A future that is woken once, by pyo3-async-runtimes.
#[pyfunction]
fn tokio_wakes(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    future_into_py(py, async {
        wake_once().await;
        Ok(1)
    })
}

async fn wake_once() {
    let mut is_first = true;
    poll_fn(|context| {
        context.waker().wake_by_ref();
        if std::mem::take(&mut is_first) { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
}

/// What benchmarks/awaitable.py awaits.
#[pymodule]
fn awaitable_extension(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(ready, module)?)?;
    module.add_function(wrap_pyfunction!(wakes, module)?)?;
    module.add_function(wrap_pyfunction!(tokio_ready, module)?)?;
    module.add_function(wrap_pyfunction!(tokio_wakes, module)?)
}
