//! Running what a handle has to call (asyncio's `Handle._run`).

use pyo3::exceptions::{PyKeyboardInterrupt, PySystemExit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::record::{Arguments, Record};
use super::{Handle, Scheduled, make};
use crate::error::{ThinErr, ThinResult};
use crate::event_loop::EventLoop;
use crate::ffi::gil_cell::GilCell;
use crate::ffi::{call, collector, context, reuse};

/// Whether an exception must leave the loop instead of being reported.
pub fn ends_the_loop(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PyKeyboardInterrupt>(py) || error.is_instance_of::<PySystemExit>(py)
}

/// Run the callback of a handle that left its queue, unless it was cancelled. The handle is used again where nobody has
/// it: see [`reuse`].
#[inline]
pub fn run<T: Scheduled>(handle: Py<T>, event_loop: &Bound<'_, EventLoop>) -> ThinResult<()> {
    let py = event_loop.py();
    let bound = handle.bind(py);
    let ran =
        if collector::is_known(bound) { run_known(bound, event_loop) } else { run_sole(bound, event_loop) };
    reuse::release(py, handle);
    ran
}

/// Run the callback of a handle that nobody but the caller knows.
#[inline]
fn run_sole<T: Scheduled>(handle: &Bound<'_, T>, event_loop: &Bound<'_, EventLoop>) -> ThinResult<()> {
    let py = handle.py();
    let record = &handle.get().common().record;
    match Record::call_alone(record, py) {
        Ok(()) => {
            Record::let_go(record, py);
            Ok(())
        }
        Err(error) => {
            let content = record.borrow(py).content(py);
            let reported = report(error, content, handle, event_loop);
            if !collector::show_if_shared(handle) {
                Record::let_go(record, py);
            }
            reported
        }
    }
}

/// Run the callback of a handle that somebody may come to meanwhile.
pub fn run_known<T: Scheduled>(handle: &Bound<'_, T>, event_loop: &Bound<'_, EventLoop>) -> ThinResult<()> {
    let py = handle.py();
    let record = &handle.get().common().record;
    let prepared = Record::leave_snapshot(record, py);
    let called = GilCell::new(record.borrow(py).to_call(py));
    let ran = prepared.and_then(|()| called.borrow(py).call(py)).or_else(|error| {
        let content = called.borrow(py).content(py);
        report(error, content, handle, event_loop)
    });
    Record::let_go(&called, py);
    if !collector::show_if_shared(handle) {
        // It goes with the caller's reference: what it holds alone is finalized here, where that may take its time.
        Record::let_go(record, py);
    }
    ran
}

/// Run a callback that got no handle, because nobody could ask for it; it gets one if it must be reported.
pub fn run_without_handle(
    event_loop: &Bound<'_, EventLoop>,
    callback: &Py<PyAny>,
    argument: &Py<PyAny>,
    context: &Py<PyAny>,
) -> ThinResult<()> {
    let py = event_loop.py();
    let called = context::call_in(py, context, callback, std::slice::from_ref(argument));
    let Err(error) = called else { return Ok(()) };
    let arguments = [argument.bind_borrowed(py)];
    let context = Some(context.bind_borrowed(py));
    let handle = make::<Handle>(event_loop, callback.bind_borrowed(py), &arguments, context)?;
    let content = Some((callback.clone_ref(py), Arguments::One(argument.clone_ref(py))));
    report(error, content, handle.bind(py), event_loop)
}

/// Report what a callback raised, as asyncio.
#[cold]
fn report<T: Scheduled>(
    error: ThinErr,
    called: Option<(Py<PyAny>, Arguments)>,
    handle: &Bound<'_, T>,
    event_loop: &Bound<'_, EventLoop>,
) -> ThinResult<()> {
    let py = handle.py();
    let error = PyErr::from(error);
    let Some((callback, arguments)) = called.filter(|_| !ends_the_loop(py, &error)) else {
        return Err(error.into());
    };
    collector::show(handle);
    let arguments = PyTuple::new(py, arguments.as_slice())?;
    let module = py.import("asyncio.format_helpers")?;
    let source =
        call::call_method_of(&module, intern!(py, "_format_callback_source"), (callback, arguments))?;
    let report = PyDict::new(py);
    report.set_item("message", format!("Exception in callback {source}"))?;
    report.set_item("exception", error)?;
    report.set_item("handle", handle)?;
    let source_traceback = handle.get().common().record.borrow(py).source_traceback(py);
    if let Some(source_traceback) = source_traceback {
        report.set_item("source_traceback", source_traceback)?;
    }
    Ok(EventLoop::report(event_loop, report)?)
}
