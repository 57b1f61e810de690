//! Tasks of the Rust runtime in the loop's eyes: spawned by name, and how they failed told to the exception handler.

use std::cell::RefCell;
use std::future::Future;
use std::mem;
use std::rc::Rc;

use aioxide_runtime::Runtime;
use pyo3::exceptions::PySystemError;
use pyo3::prelude::*;

use super::EventLoop;
use crate::tasks::registry;

/// The exceptions that tasks ended with, by name, since they were told of.
#[derive(Clone, Default)]
pub struct Failures(Rc<RefCell<Vec<(String, PyErr)>>>);

impl EventLoop {
    /// Spawn a task, on the thread that runs the loop. Its exception is reported in the turn in which it ends.
    pub fn spawn<T: 'static>(
        &self,
        name: String,
        future: impl Future<Output = PyResult<T>> + 'static,
    ) -> PyResult<()> {
        self.check_thread()?;
        let (runtime, failures) = self.with_core(|core| (Rc::clone(&core.runtime), core.failures.clone()))?;
        let body = {
            let name = name.clone();
            async move {
                if let Err(error) = future.await {
                    failures.0.borrow_mut().push((name, error));
                }
            }
        };
        drop(runtime.spawn_named(name, body));
        Ok(())
    }

    /// Report the exceptions of tasks, and the panics of those that nobody awaits. Lets through what must end the loop.
    #[inline(always)]
    pub fn report_tasks(
        event_loop: &Bound<'_, Self>,
        runtime: &Runtime,
        failures: &Failures,
    ) -> PyResult<()> {
        if runtime.has_panics() || !failures.0.borrow().is_empty() {
            Self::report_failed(event_loop, runtime, failures)
        } else {
            Ok(())
        }
    }

    #[cold]
    fn report_failed(event_loop: &Bound<'_, Self>, runtime: &Runtime, failures: &Failures) -> PyResult<()> {
        registry::settle(event_loop);
        let mut reported = Ok(());
        for (name, error) in mem::take(&mut *failures.0.borrow_mut()) {
            let message = format!("Exception in Rust task {name:?}");
            reported = reported.and(Self::report_error(event_loop, &message, error, &[]));
        }
        for error in runtime.take_panics() {
            let name = error.task_name().unwrap_or_default();
            let message = format!("Rust task {name:?} panicked");
            let exception = PySystemError::new_err(error.to_string());
            reported = reported.and(Self::report_error(event_loop, &message, exception, &[]));
        }
        reported
    }
}
