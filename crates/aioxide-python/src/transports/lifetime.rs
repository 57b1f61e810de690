//! What every kind of transport does at the beginning and at the end of its life.

use pyo3::exceptions::PyResourceWarning;
use pyo3::intern;
use pyo3::prelude::*;

use super::descriptor::Descriptor;
use crate::awaitable::waiter::Waiter;
use crate::event_loop::EventLoop;
use crate::ffi::call;
use crate::imports::imports;

/// Give a future its result, None, or its exception, unless it is done already.
pub fn settle(py: Python<'_>, waiter: &Py<PyAny>, error: Option<PyErr>) -> PyResult<()> {
    if let Ok(waiter) = waiter.bind(py).cast_exact::<Waiter>() {
        return Ok(match error {
            None => Waiter::wake(waiter),
            Some(error) => Waiter::fail(waiter, error.into_value(py).into_any()),
        }?);
    }
    if waiter.call_method0(py, intern!(py, "done"))?.is_truthy(py)? {
        return Ok(());
    }
    match error {
        None => waiter.call_method1(py, intern!(py, "set_result"), (py.None(),))?,
        Some(error) => waiter.call_method1(py, intern!(py, "set_exception"), (error,))?,
    };
    Ok(())
}

/// The argument of `connection_lost`.
pub fn reason(py: Python<'_>, error: Option<PyErr>) -> Bound<'_, PyAny> {
    error.map_or_else(|| py.None().into_bound(py), |error| error.into_value(py).into_bound(py).into_any())
}

/// In debug mode, log an error of the network: it is expected, so nobody else hears of it.
pub fn log_expected(
    event_loop: &EventLoop,
    transport: &Bound<'_, PyAny>,
    message: &str,
    error: &PyErr,
) -> PyResult<()> {
    if !event_loop.debug() {
        return Ok(());
    }
    let py = transport.py();
    let text = format!("{}: {message}: {}", transport.repr()?, error.value(py));
    call::call_method_of(imports(py)?.logger.bind(py), intern!(py, "debug"), ("%s", text)).map(drop)
}

/// Warn of a transport that nobody closed, as asyncio's `__del__` does, and close its descriptor, if it has one.
pub fn warn_unclosed(event_loop: &Py<EventLoop>, description: &str, descriptor: Option<Descriptor>) {
    // Where the interpreter is gone the descriptor goes with the process.
    let _ = Python::try_attach(|py| {
        if let Some(descriptor) = &descriptor {
            event_loop.get().transports().remove(&descriptor.number());
        }
        let text = format!("unclosed transport {description}");
        let warned = imports(py).and_then(|imports| {
            call::call_object(imports.warn.bind(py), (text, py.get_type::<PyResourceWarning>()), None)
        });
        let closed = descriptor.map_or(Ok(()), |descriptor| descriptor.close_if_open(py));
        if let Err(error) = warned.map(drop).and(closed) {
            error.write_unraisable(py, None);
        }
    });
}
