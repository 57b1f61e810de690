//! A counter that tasks of an event loop and threads share: what Python awaits here are Rust futures.
//!
//! `aioxide_awaitable` needs nothing of them. The counter below is what any extension would have: state behind a lock,
//! and the wakers of those who wait for it.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// A number that only grows, and that tasks can wait for.
#[pyclass(frozen)]
struct Counter {
    shared: Arc<Shared>,
}

/// What the counter, its futures and its threads have in common.
#[derive(Default)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    value: u64,
    /// Those who wait, and for which value.
    waiting: Vec<(u64, Waker)>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds to the value and wakes whom that concerns.
    fn add(&self, amount: u64) -> u64 {
        let mut state = self.lock();
        state.value = state.value.saturating_add(amount);
        let value = state.value;
        let is_due = |(goal, _): &mut (u64, Waker)| *goal <= value;
        let woken: Vec<_> = state.waiting.extract_if(.., is_due).collect();
        // A waker is foreign code: not under the lock.
        drop(state);
        for (_, waker) in woken {
            waker.wake();
        }
        value
    }

    /// Waits until the value is at least `goal`, and gives it.
    async fn reaches(&self, goal: u64) -> u64 {
        poll_fn(|context| {
            let mut state = self.lock();
            if state.value >= goal {
                return Poll::Ready(state.value);
            }
            let waker = context.waker();
            if !state.waiting.iter().any(|(_, waiting)| waiting.will_wake(waker)) {
                state.waiting.push((goal, waker.clone()));
            }
            Poll::Pending
        })
        .await
    }
}

#[pymethods]
impl Counter {
    #[new]
    fn new() -> Self {
        Self { shared: Arc::default() }
    }

    /// The present value.
    #[getter]
    fn value(&self) -> u64 {
        self.shared.lock().value
    }

    /// Add to the value and return it; from any thread.
    #[pyo3(signature = (amount=1))]
    fn add(&self, amount: u64) -> u64 {
        self.shared.add(amount)
    }

    /// Wait until the value is at least `goal`, and return it.
    fn wait_for<'py>(&self, py: Python<'py>, goal: u64) -> PyResult<Bound<'py, PyAny>> {
        let shared = Arc::clone(&self.shared);
        aioxide_awaitable::awaitable_named(
            py,
            "Counter.wait_for",
            async move { Ok(shared.reaches(goal).await) },
        )
    }

    /// Add one `times` times on a thread that Python knows nothing of.
    fn count_in_a_thread(&self, times: u64) {
        let shared = Arc::clone(&self.shared);
        thread::spawn(move || {
            for _ in 0..times {
                shared.add(1);
            }
        });
    }

    /// Add one every so many seconds, by a task of the running loop, until the value is `last`.
    fn tick(&self, py: Python<'_>, seconds: f64, last: u64) -> PyResult<()> {
        let pause =
            Duration::try_from_secs_f64(seconds).map_err(|error| PyValueError::new_err(error.to_string()))?;
        let shared = Arc::clone(&self.shared);
        aioxide_awaitable::spawn_local(py, "ticking counter", async move {
            while shared.add(1) < last {
                aioxide_awaitable::sleep(pause).await;
            }
            Ok(())
        })
    }
}

/// A counter for the tasks of an event loop.
#[pymodule]
fn shared_counter(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Counter>()
}
