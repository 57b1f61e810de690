//! How a task runs: asyncio's `__step` and `__wakeup`.
//!
//! A step lets the coroutine go on until it waits for something or ends. What it waits for is a future, whose end wakes the
//! task up, or nothing, which schedules the next step. A wrong thing is thrown back at the coroutine by a step.

use pyo3::exceptions::{PyRuntimeError, PyStopIteration};
use pyo3::prelude::*;
use pyo3::{Borrowed, intern};

use super::callbacks::Waiter;
use super::future::{Answer, Future, as_native, raised};
use super::registry::{self, Leaving};
use super::task::{Task, cancel_any};
use crate::awaitable::waiter::Waiter as NativeWaiter;
use crate::callback::Callback;
use crate::error::{ThinErr, ThinResult};
use crate::event_loop::EventLoop;
use crate::ffi::call::{self, Sent};
use crate::ffi::context::run_in;
use crate::ffi::references::another;
use crate::ffi::stop_iteration;
use crate::ffi::task_callbacks::wakeup_of;
use crate::imports::imports;

/// Take a scheduled step, in the task's context, throwing `exception` at the coroutine if there is one.
pub fn run(task: &Bound<'_, Task>, exception: Option<Py<PyAny>>) -> ThinResult<()> {
    let py = task.py();
    let context = task.get().context(py);
    run_in(context.as_borrowed(), || step(task, exception, Leaving::Later))
}

/// Go on, in the task's context: `future` is done.
pub fn run_woken(task: &Bound<'_, Task>, future: &Bound<'_, Future>) -> ThinResult<()> {
    let py = task.py();
    let context = task.get().context(py);
    run_in(context.as_borrowed(), || go_on(task, future, Leaving::Later))
}

/// Take the first step at once, inside whoever creates the task.
pub fn run_eagerly(task: &Bound<'_, Task>, event_loop: &Bound<'_, EventLoop>) -> ThinResult<()> {
    let py = task.py();
    let context = task.get().context(py);
    registry::run_eagerly(event_loop, task, || run_in(context.as_borrowed(), || advance(task, None)))?;
    if task.as_super().get().is_pending(py) {
        return registry::register(task);
    }
    let coroutine = task.get().state.with(py, |state| state.coroutine.take());
    drop(coroutine);
    Ok(())
}

/// asyncio's `__wakeup`. The caller has entered the context.
pub fn wake_up(task: &Bound<'_, Task>, future: &Bound<'_, PyAny>) -> ThinResult<()> {
    go_on(task, future, Leaving::Now)
}

fn go_on(task: &Bound<'_, Task>, future: &Bound<'_, PyAny>, leaving: Leaving) -> ThinResult<()> {
    let py = task.py();
    let exception = match as_native(future) {
        Some(future) => match future.get().answer(py)? {
            Answer::Error(error) => Some(error),
            Answer::Result(result) => {
                call::release(py, result);
                None
            }
            Answer::Pending => None,
        },
        None if future.is_exact_instance_of::<NativeWaiter>() => {
            let waiter = future.cast_exact::<NativeWaiter>().map_err(PyErr::from)?;
            waiter.get().result(py).err().map(|error| error.into_value(py).into_any())
        }
        None => match call::call_method(future.as_borrowed(), intern!(py, "result"), &[]) {
            Ok(_) => None,
            Err(error) => Some(error.into_value(py).into_any()),
        },
    };
    step(task, exception, leaving)
}

/// asyncio's `__step`. The caller has entered the context.
fn step(task: &Bound<'_, Task>, exception: Option<Py<PyAny>>, leaving: Leaving) -> ThinResult<()> {
    let py = task.py();
    let future = task.as_super().get();
    if !future.is_pending(py) {
        registry::settle(future.event_loop().bind(py));
        let exception = exception.unwrap_or_else(|| py.None());
        let message = format!("__step(): already done: {} {}", task.repr()?, exception.bind(py).repr()?);
        let class = imports(py)?.invalid_state_error.bind(py);
        return Err(PyErr::from_value(class.call1((message,))?).into());
    }
    let (waiter, must_cancel) =
        task.get().state.with(py, |state| (state.waiter.take(), std::mem::take(&mut state.must_cancel)));
    if let Some(waiter) = waiter {
        call::release(py, waiter);
    }
    let exception = if must_cancel { Some(cancellation(task, exception)?) } else { exception };
    let ran = registry::run_as(future.event_loop().bind(py), task, leaving, || advance(task, exception));
    if future.is_pending(py) { ran } else { ran.and(registry::unregister(task)) }
}

/// What to throw at the coroutine of a task that was cancelled meanwhile.
fn cancellation(task: &Bound<'_, Task>, exception: Option<Py<PyAny>>) -> PyResult<Py<PyAny>> {
    let py = task.py();
    match exception {
        Some(exception) if exception.bind(py).is_instance(imports(py)?.cancelled_error.bind(py))? => {
            Ok(exception)
        }
        _ => task.as_super().get().cancelled_error(py),
    }
}

/// Let the coroutine go on, and see to what it answers.
fn advance(task: &Bound<'_, Task>, exception: Option<Py<PyAny>>) -> ThinResult<()> {
    let py = task.py();
    let coroutine = task
        .get()
        .state
        .with(py, |state| state.coroutine.as_ref().map(|coroutine| another(coroutine.bind(py))));
    let Some(coroutine) = coroutine else {
        return Err(PyRuntimeError::new_err("the task's coroutine is gone").into());
    };
    let coroutine = coroutine.as_borrowed();
    let sent = match exception {
        None => stop_iteration::lent(py, || call::send_none(coroutine)),
        Some(exception) => throw(coroutine, exception.bind_borrowed(py)),
    };
    match sent {
        Ok(Sent::Yielded(awaited)) => wait_for(task, &awaited),
        Ok(Sent::Returned(result)) => {
            let was_cancelled = task.get().state.with(py, |state| std::mem::take(&mut state.must_cancel));
            let future = task.as_super();
            if was_cancelled {
                let message = future.get().cancel_message(py);
                Future::cancel(future, message).map(drop)
            } else {
                Future::set_result(future, result.unbind())
            }
        }
        Err(error) => end_with(task, error),
    }
}

/// Call `coroutine.throw(exception)`.
fn throw<'py>(
    coroutine: Borrowed<'_, 'py, PyAny>,
    exception: Borrowed<'_, 'py, PyAny>,
) -> ThinResult<Sent<'py>> {
    let py = coroutine.py();
    match call::call_method(coroutine, intern!(py, "throw"), &[exception]) {
        Ok(awaited) => Ok(Sent::Yielded(awaited)),
        Err(error) if error.is_instance_of::<PyStopIteration>(py) => {
            Ok(Sent::Returned(error.value(py).getattr(intern!(py, "value"))?))
        }
        Err(error) => Err(error.into()),
    }
}

/// The coroutine raised: so ends the task. KeyboardInterrupt and SystemExit also end the loop.
fn end_with(task: &Bound<'_, Task>, error: ThinErr) -> ThinResult<()> {
    let py = task.py();
    let future = task.as_super();
    let error = PyErr::from(error);
    if error.is_instance(py, imports(py)?.cancelled_error.bind(py)) {
        future.get().set_cancelled_error(py, error.into_value(py).into_any());
        return Future::cancel(future, None).map(drop);
    }
    let must_end = EventLoop::must_end(py, &error);
    let exception = error.into_value(py);
    Future::set_exception(future, exception.bind(py).as_any())?;
    if must_end { Err(raised(py, exception.into_any()).into()) } else { Ok(()) }
}

/// The coroutine waits for `awaited`.
fn wait_for(task: &Bound<'_, Task>, awaited: &Bound<'_, PyAny>) -> ThinResult<()> {
    if awaited.is(task) {
        return refuse(task, format!("Task cannot await on itself: {}", task.repr()?));
    }
    if awaited.is_none() {
        return schedule(task, None);
    }
    if let Some(future) = as_native(awaited) {
        return wait_for_native(task, future);
    }
    if let Ok(waiter) = awaited.cast_exact::<NativeWaiter>() {
        return wait_for_waiter(task, waiter);
    }
    wait_for_foreign(task, awaited)
}

/// Wait for what our own awaitables yield; asyncio's protocol, without its attributes.
fn wait_for_waiter(task: &Bound<'_, Task>, waiter: &Bound<'_, NativeWaiter>) -> ThinResult<()> {
    let py = task.py();
    if !waiter.get().belongs_to(task.as_super().get().event_loop()) {
        return refuse_loop(task, waiter);
    }
    if !waiter.get().take_blocking(py) {
        return refuse_yield(task, waiter);
    }
    NativeWaiter::register(waiter, wakeup_of(task)?.unbind(), Some(task.get().context(py).unbind()))?;
    remember(task, waiter)
}

fn wait_for_native(task: &Bound<'_, Task>, future: &Bound<'_, Future>) -> ThinResult<()> {
    let py = task.py();
    if !future.get().event_loop().is(task.as_super().get().event_loop()) {
        return refuse_loop(task, future);
    }
    if !future.get().take_blocking(py) {
        return refuse_yield(task, future);
    }
    Future::add_waiter(future, Waiter::Task(another(task).unbind()))?;
    remember(task, future)
}

/// Wait for a future of another class, or whatever speaks its protocol.
fn wait_for_foreign(task: &Bound<'_, Task>, awaited: &Bound<'_, PyAny>) -> ThinResult<()> {
    let py = task.py();
    let blocking = awaited.getattr_opt(intern!(py, "_asyncio_future_blocking"))?;
    let Some(blocking) = blocking.filter(|blocking| !blocking.is_none()) else {
        let is_generator = awaited.is_instance(&py.import("types")?.getattr("GeneratorType")?)?;
        let (task_repr, awaited_repr) = (task.repr()?, awaited.repr()?);
        return refuse(
            task,
            if is_generator {
                format!(
                    "yield was used instead of yield from for generator in task {task_repr} with {awaited_repr}"
                )
            } else {
                format!("Task got bad yield: {awaited_repr}")
            },
        );
    };
    if !loop_of(awaited)?.is(task.as_super().get().event_loop()) {
        return refuse_loop(task, awaited);
    }
    if !blocking.is_truthy()? {
        return refuse_yield(task, awaited);
    }
    awaited.setattr(intern!(py, "_asyncio_future_blocking"), false)?;
    let add_done_callback = awaited.getattr(intern!(py, "add_done_callback"))?;
    let wakeup = wakeup_of(task)?;
    let context = task.get().context(py);
    let arguments = [wakeup.as_borrowed(), context.as_borrowed()];
    let keyword = imports(py)?.context_keyword.bind(py);
    call::call_with_keywords(add_done_callback.as_borrowed(), &arguments, keyword)?;
    remember(task, awaited)
}

/// Keep what the task waits for; a cancellation that came during the step goes there.
fn remember(task: &Bound<'_, Task>, awaited: &Bound<'_, PyAny>) -> ThinResult<()> {
    let py = task.py();
    let must_cancel = task.get().state.with(py, |state| {
        state.waiter = Some(another(awaited).unbind());
        state.must_cancel
    });
    if must_cancel {
        let message = task.as_super().get().cancel_message(py);
        if cancel_any(awaited, message.as_ref())? {
            task.get().state.with(py, |state| state.must_cancel = false);
        }
    }
    Ok(())
}

/// asyncio's `futures._get_loop`.
fn loop_of<'py>(future: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = future.py();
    match future.getattr_opt(intern!(py, "get_loop"))? {
        Some(get_loop) => call::call(get_loop.as_borrowed(), &[]),
        None => future.getattr(intern!(py, "_loop")),
    }
}

fn refuse_loop(task: &Bound<'_, Task>, future: &Bound<'_, PyAny>) -> ThinResult<()> {
    refuse(task, format!("Task {} got Future {} attached to a different loop", task.repr()?, future.repr()?))
}

fn refuse_yield(task: &Bound<'_, Task>, future: &Bound<'_, PyAny>) -> ThinResult<()> {
    refuse(
        task,
        format!("yield was used instead of yield from in task {} with {}", task.repr()?, future.repr()?),
    )
}

/// Throw a RuntimeError at the coroutine, by the next step.
fn refuse(task: &Bound<'_, Task>, message: String) -> ThinResult<()> {
    let error = PyRuntimeError::new_err(message).into_value(task.py());
    schedule(task, Some(error.into_any()))
}

fn schedule(task: &Bound<'_, Task>, exception: Option<Py<PyAny>>) -> ThinResult<()> {
    let event_loop = task.as_super().get().event_loop().bind(task.py());
    EventLoop::schedule(event_loop, || Callback::NativeStep { task: another(task).unbind(), exception })
}
