//! Rust futures that Python awaits, for extension modules written with PyO3.
//!
//! [`awaitable`] turns a future into a Python object that is a `collections.abc.Coroutine`. Awaiting it polls the future
//! *inside the awaiting task, on the event loop's own thread*: no second runtime, no thread, no queue, and nothing that
//! would have to be `Send`. A future that is ready at once costs about as much as an `async def` that returns at once.
//! [`spawn_local`] starts a task of the loop's own, for what goes on in the background.
//!
//! ```ignore
//! use pyo3::prelude::*;
//!
//! /// Return `value` doubled, two milliseconds later.
//! #[pyfunction]
//! fn double(py: Python<'_>, value: u64) -> PyResult<Bound<'_, PyAny>> {
//!     aioxide_awaitable::awaitable(py, async move {
//!         aioxide_awaitable::sleep(std::time::Duration::from_millis(2)).await;
//!         Ok(value * 2)
//!     })
//! }
//! ```
//!
//! The program has to run on aioxide (`aioxide.run(main())`); on another event loop both functions raise a
//! `RuntimeError` that says so. The extension needs no aioxide to be built, and works with every later one: it finds the
//! loop of the installed `aioxide` through a versioned interface of C functions (`aioxide-awaitable-abi`).
//!
//! # What holds for a future
//! - It is polled and dropped by the thread that made it, with the interpreter's lock held, while that thread runs the
//!   event loop. It must not block. A waker may be used by any thread, with the lock or without.
//! - Nothing happens before the awaitable is awaited; then it runs until it waits for the first time.
//! - When the awaiting task is cancelled, the future is dropped before the `CancelledError` goes on.
//! - Its error is raised where it is awaited. A panic becomes a `SystemError` there, and nobody else's.
//! - The context variables are the awaiting task's; a spawned task has those of no task in particular.
//! - A future that wakes itself goes on in the loop's next turn, after whatever else is ready.
//! - It must not own a Python object that leads back to its own awaitable: the garbage collector cannot see into it.
//!
//! # What is not there
//! The loop's Rust runtime, `aioxide-runtime`, is compiled into aioxide: an extension that depends on that crate has a
//! copy of its own, which no loop drives. Timers are here ([`sleep`]); for sockets there are Python's own, or a thread
//! of the extension's that wakes a waker.

mod answer;
mod interface;

use std::any::type_name;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use aioxide_awaitable_abi::Erased;
use pyo3::IntoPyObject;
use pyo3::prelude::*;

use self::interface::Interface;

/// Makes a Python awaitable of a future, for the event loop that runs on this thread.
///
/// In messages it is called after the type of the future, which says where that was written; [`awaitable_named`] gives it
/// a name of its own.
///
/// # Errors
/// `RuntimeError` where no event loop runs on this thread, or one that is not aioxide's. `ImportError` where aioxide is
/// not installed, or is too old or too new for this crate.
pub fn awaitable<F, T>(py: Python<'_>, future: F) -> PyResult<Bound<'_, PyAny>>
where
    F: Future<Output = PyResult<T>> + 'static,
    T: for<'py> IntoPyObject<'py>,
{
    let name = type_name::<F>();
    awaitable_named(py, name.strip_suffix("::{{closure}}").unwrap_or(name), future)
}

/// Makes a Python awaitable of a future, as [`awaitable`]; `name` is what a coroutine of the same purpose would be called,
/// such as `Counter.wait_for`.
///
/// # Errors
/// As for [`awaitable`].
pub fn awaitable_named<'py, F, T>(
    py: Python<'py>,
    name: &'static str,
    future: F,
) -> PyResult<Bound<'py, PyAny>>
where
    F: Future<Output = PyResult<T>> + 'static,
    T: for<'any> IntoPyObject<'any>,
{
    Interface::get(py)?.awaitable(py, name, future)
}

/// Starts a task on the event loop that runs on this thread. It runs until it is done or the loop is closed, whichever is
/// earlier; a loop that closes drops what was spawned last first.
///
/// `loop.statistics()["rust_task_names"]` lists it. An error, or a panic, is given to the loop's exception handler.
///
/// # Errors
/// As for [`awaitable`].
pub fn spawn_local<F>(py: Python<'_>, name: &str, future: F) -> PyResult<()>
where
    F: Future<Output = PyResult<()>> + 'static,
{
    Interface::get(py)?.spawn(py, name, future)
}

/// Waits for a duration, in a future that [`awaitable`] or [`spawn_local`] was given.
#[must_use = "a future does nothing unless it is awaited"]
pub fn sleep(duration: Duration) -> Sleep {
    Sleep { state: SleepState::Created(duration) }
}

/// What [`sleep`] returns.
#[derive(Debug)]
pub struct Sleep {
    state: SleepState,
}

#[derive(Debug)]
enum SleepState {
    /// The time runs from the first poll.
    Created(Duration),
    Waiting(Erased),
}

impl Future for Sleep {
    type Output = ();

    /// # Panics
    /// Where aioxide does not run the future.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if let SleepState::Created(duration) = self.state {
            let Some(sleep) = Interface::loaded().and_then(|interface| interface.sleep(duration)) else {
                panic!("`sleep` is awaited where aioxide's event loop does not run");
            };
            self.state = SleepState::Waiting(sleep);
        }
        match &mut self.state {
            SleepState::Created(_) => unreachable!("a sleep that waits was just made"),
            SleepState::Waiting(sleep) => Pin::new(sleep).poll(context).map(drop),
        }
    }
}
