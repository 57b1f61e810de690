//! The closed list of things that a turn can run.

use std::any::Any;
use std::os::fd::OwnedFd;

use pyo3::PyTraverseError;
use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;

use crate::awaitable::waiter::Waiter;
use crate::error::ThinResult;
use crate::event_loop::EventLoop;
use crate::event_loop::servers::Listener;
use crate::ffi::collector::{look_through, show_if_shared};
use crate::ffi::{call, context};
use crate::handle::{self, Handle, Scheduled, ThreadsafeHandle, TimerHandle, run_without_handle};
use crate::loop_cell::ThreadBound;
use crate::tasks::{Future, Task, registry, step};
use crate::transports::datagram::{self, DatagramTransport};
use crate::transports::stream::{Event, StreamTransport};

/// One entry of the ready queue, moved by value.
pub enum Callback {
    /// What `call_soon` or a watcher was given.
    Handle(Py<Handle>),
    /// What `call_soon_threadsafe` was given, from Python 3.14 on.
    ThreadsafeHandle(Py<ThreadsafeHandle>),
    /// A timer that expired.
    Timer(Py<TimerHandle>),
    /// A timer that another thread set, to be entered into the heap.
    SetTimer(Py<TimerHandle>),
    /// A step of a C task.
    TaskStep {
        /// The step, called without arguments.
        step: Py<PyAny>,
        /// The task's context.
        context: Py<PyAny>,
    },
    /// A wake-up of a C task.
    TaskWakeup {
        /// The task's bound method.
        wakeup: Py<PyAny>,
        /// The future that is done.
        future: Py<PyAny>,
        /// The task's context.
        context: Py<PyAny>,
    },
    /// A step of a native task.
    NativeStep {
        /// The task.
        task: Py<Task>,
        /// What to throw at its coroutine.
        exception: Option<Py<PyAny>>,
    },
    /// A wake-up of a native task.
    NativeWakeup {
        /// The task.
        task: Py<Task>,
        /// The future that is done.
        future: Py<Future>,
    },
    /// A callback of a native future that is done.
    Done {
        /// Called with the future.
        callback: Py<PyAny>,
        /// The future.
        future: Py<Future>,
        /// In this context.
        context: Py<PyAny>,
    },
    /// Something happened to a transport.
    Transport(Py<StreamTransport>, Event),
    /// Something happened to a datagram transport.
    Datagram(Py<DatagramTransport>, datagram::Event),
    /// A server got a connection.
    Accepted(Py<Listener>, OwnedFd),
    /// A server cannot accept for now.
    AcceptFailed(Py<Listener>, std::io::Error),
    /// What a Rust future waited for has happened: its task goes on.
    Wake(Py<Waiter>),
    /// A Rust future that another thread let go of is dropped.
    Release(ThreadBound<Box<dyn Any>>),
}

impl Callback {
    /// Run it. An error is one that must end the loop: KeyboardInterrupt, SystemExit and the like.
    pub fn run(self, event_loop: &Bound<'_, EventLoop>) -> ThinResult<()> {
        let py = event_loop.py();
        if !matches!(self, Self::NativeStep { .. } | Self::NativeWakeup { .. }) {
            registry::settle(event_loop);
        }
        match self {
            Self::Handle(handle) => handle::run(handle, event_loop),
            Self::ThreadsafeHandle(handle) => ThreadsafeHandle::run(handle, event_loop),
            Self::Timer(handle) => TimerHandle::run(handle, event_loop),
            Self::SetTimer(handle) => {
                EventLoop::schedule_timer(event_loop, &handle);
                call::release(py, handle);
                Ok(())
            }
            Self::TaskStep { step, context } => {
                let ran = context::call_in(py, &context, &step, &[]);
                if ran.is_err() {
                    return ran.or_else(|error| EventLoop::report_task_error(event_loop, error, &step));
                }
                call::release(py, step);
                call::release(py, context);
                Ok(())
            }
            Self::TaskWakeup { wakeup, future, context } => {
                let ran = context::call_in(py, &context, &wakeup, std::slice::from_ref(&future));
                if ran.is_err() {
                    return ran.or_else(|error| EventLoop::report_task_error(event_loop, error, &wakeup));
                }
                call::release(py, wakeup);
                call::release(py, future);
                call::release(py, context);
                Ok(())
            }
            Self::NativeStep { task, exception } => {
                let result = step::run(task.bind(py), exception);
                let result =
                    result.or_else(|error| EventLoop::report_task_error(event_loop, error, task.as_any()));
                registry::settle_before_the_end_of(event_loop, &task);
                call::release(py, task);
                result
            }
            Self::NativeWakeup { task, future } => {
                let result = step::run_woken(task.bind(py), future.bind(py));
                let result =
                    result.or_else(|error| EventLoop::report_task_error(event_loop, error, task.as_any()));
                registry::settle_before_the_end_of(event_loop, &task);
                call::release(py, task);
                call::release(py, future);
                result
            }
            Self::Done { callback, future, context } => {
                run_without_handle(event_loop, &callback, future.as_any(), &context)
            }
            Self::Transport(transport, event) => StreamTransport::handle_event(transport.bind(py), event),
            Self::Datagram(transport, event) => {
                Ok(DatagramTransport::handle_event(transport.bind(py), event)?)
            }
            Self::Accepted(listener, connection) => Listener::handle_accepted(listener.bind(py), connection),
            Self::AcceptFailed(listener, error) => Listener::handle_failure(listener.bind(py), error),
            Self::Wake(waiter) => match Waiter::wake_now(waiter.bind(py))? {
                Some(wakeup) => wakeup.run(event_loop),
                None => Ok(()),
            },
            Self::Release(value) => {
                event_loop.get().release(value);
                Ok(())
            }
        }
    }

    /// Show the garbage collector what this entry keeps alive.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Self::Handle(handle) => {
                visit.call(handle)?;
                look_through(handle, |handle| handle.common().traverse(visit))
            }
            Self::ThreadsafeHandle(handle) => {
                visit.call(handle)?;
                look_through(handle, |handle| handle.common().traverse(visit))
            }
            Self::Timer(handle) | Self::SetTimer(handle) => {
                visit.call(handle)?;
                look_through(handle, |handle| handle.common().traverse(visit))
            }
            Self::TaskStep { step, context } => {
                visit.call(step)?;
                visit.call(context)
            }
            Self::TaskWakeup { wakeup, future, context } => {
                visit.call(wakeup)?;
                visit.call(future)?;
                visit.call(context)
            }
            Self::NativeStep { task, exception } => {
                visit.call(task)?;
                visit.call(exception)
            }
            Self::NativeWakeup { task, future } => {
                visit.call(task)?;
                visit.call(future)
            }
            Self::Done { callback, future, context } => {
                visit.call(callback)?;
                visit.call(future)?;
                visit.call(context)
            }
            Self::Transport(transport, _) => visit.call(transport),
            Self::Datagram(transport, _) => visit.call(transport),
            Self::Accepted(listener, _) | Self::AcceptFailed(listener, _) => visit.call(listener),
            Self::Wake(waiter) => visit.call(waiter),
            Self::Release(_) => Ok(()),
        }
    }

    /// An entry that will not run leaves the queue: let the collector see what of it is held elsewhere.
    pub fn forget(self, py: Python<'_>) {
        match &self {
            Self::Handle(handle) => _ = show_if_shared(handle.bind(py)),
            Self::ThreadsafeHandle(handle) => _ = show_if_shared(handle.bind(py)),
            Self::Timer(handle) | Self::SetTimer(handle) => _ = show_if_shared(handle.bind(py)),
            _ => {}
        }
    }

    /// Whether the user has a handle of it.
    pub fn is_handle(&self) -> bool {
        matches!(self, Self::Handle(_) | Self::ThreadsafeHandle(_) | Self::Timer(_))
    }

    /// The object that stands for this entry in reports about slow callbacks.
    pub fn describe(&self, py: Python<'_>) -> Py<PyAny> {
        match self {
            Self::Handle(handle) => handle.clone_ref(py).into_any(),
            Self::ThreadsafeHandle(handle) => handle.clone_ref(py).into_any(),
            Self::Timer(handle) | Self::SetTimer(handle) => handle.clone_ref(py).into_any(),
            Self::TaskStep { step, .. } => step.clone_ref(py),
            Self::TaskWakeup { wakeup, .. } => wakeup.clone_ref(py),
            Self::NativeStep { task, .. } | Self::NativeWakeup { task, .. } => task.clone_ref(py).into_any(),
            Self::Done { callback, .. } => callback.clone_ref(py),
            Self::Transport(transport, _) => transport.clone_ref(py).into_any(),
            Self::Datagram(transport, _) => transport.clone_ref(py).into_any(),
            Self::Accepted(listener, _) | Self::AcceptFailed(listener, _) => {
                listener.clone_ref(py).into_any()
            }
            Self::Wake(waiter) => waiter.clone_ref(py).into_any(),
            Self::Release(_) => py.None(),
        }
    }
}
