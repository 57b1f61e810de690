//! `aioxide._rust.EventLoop`: the native half of the event loop. This file is its menu; the chapters are
//! those of asyncio's documentation of the event loop.
//!
//! The Python class `aioxide.EventLoop` joins it to `asyncio.BaseEventLoop`, the documented base for
//! other people's loops, which contributes what runs once per connection, server or process.
//!
//! # Invariants
//! - `core` is touched through [`EventLoop::with_core`] only (see [`LoopCell`]).
//! - What other threads may do goes through `inbox` and `waker` and nowhere else.

mod clock;
pub mod connecting;
mod core;
mod interests;
mod lifecycle;
pub mod questions;
mod ready;
pub mod running;
mod rust_tasks;
mod scheduling;
pub mod servers;
pub mod socket_calls;
mod turn;
mod watchers;

use std::collections::HashMap;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use aioxide_driver::Waker;
use aioxide_runtime::Inbox;
use pyo3::exceptions::{PyResourceWarning, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;
use pyo3::types::{PyDict, PyString, PyTuple, PyType};
use pyo3::{Borrowed, PyTraverseError, intern};

pub use self::clock::now;
use self::connecting::Connecting;
pub use self::core::{Core, Submission};
pub use self::interests::Interest;
pub use self::lifecycle::build_info;
use self::servers::{Listener, Tls};
use self::socket_calls::{Action, SocketCall};
use crate::awaitable::Awaitable;
use crate::awaitable::future::drop_quietly;
use crate::callback::Callback;
use crate::error::{ThinErr, ThinResult, warn};
use crate::ffi::buffer::Contiguous;
use crate::ffi::call;
use crate::ffi::context::run_in;
use crate::ffi::method::{add_method, add_plain_method, add_tuple_method};
use crate::ffi::references::another;
use crate::handle::{Handle, KeptHandles, TimerHandle, ends_the_loop};
use crate::loop_cell::{LoopCell, Refused, ThreadBound};
use crate::tasks::registry;
use crate::transports::datagram::DatagramTransport;
use crate::transports::stream::{Kind, StreamTransport};
use crate::transports::tls::transport::{Settings, TlsTransport};

/// The native half of the event loop.
#[pyclass(module = "aioxide._rust", subclass, frozen, weakref)]
pub struct EventLoop {
    /// What the running thread owns; `None` once the loop is closed.
    core: LoopCell<Option<Core>>,
    /// What other threads hand in.
    inbox: Inbox<Callback>,
    /// Ends the driver's wait. `None` once the loop is closed: it would keep a descriptor open.
    waker: Mutex<Option<Waker>>,
    /// The process that made the loop.
    process: u32,
    /// Name of the driver's backend and the reason for it.
    driver: (String, String),
    /// Whether the kernel itself completes operations, so that handing them over in batches pays.
    completion_based: bool,
    /// Descriptors that live transports use, and whether the transport is open still. Not of the core: the
    /// collector may drop a forgotten transport on any thread.
    transports: Mutex<HashMap<RawFd, bool>>,
    closed: AtomicBool,
    stopping: AtomicBool,
    /// Whether asyncio takes a task that has left for the one that runs; see `tasks::registry`.
    pub task_lingers: AtomicBool,
    debug: AtomicBool,
    /// Seconds, as the bits of an f64.
    slow_callback_duration: AtomicU64,
    task_factory: Mutex<Option<Py<PyAny>>>,
    has_task_factory: AtomicBool,
    has_own_clock: AtomicBool,
    /// The factory is our own: tasks and futures are native.
    has_native_tasks: AtomicBool,
    /// Handles to use again.
    pub kept_handles: KeptHandles,
}

impl EventLoop {
    /// Whether debug mode is on.
    pub fn debug(&self) -> bool {
        self.debug.load(Ordering::Relaxed)
    }

    /// Whether any thread runs the loop.
    pub fn is_running(&self) -> bool {
        self.core.has_owner()
    }

    /// Whether the loop was closed.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Whether this thread runs the loop.
    pub fn is_running_here(&self) -> bool {
        self.core.is_owner()
    }

    /// Whether another thread runs the loop.
    pub fn is_running_elsewhere(&self) -> bool {
        self.core.is_foreign()
    }

    /// Refuse, before anything is changed, what only the thread that runs the loop may do.
    pub fn check_thread(&self) -> PyResult<()> {
        if self.core.is_foreign() { Err(self.refusal(Refused::OtherThread)) } else { self.check_process() }
    }

    /// Refuse everything in a forked child: epoll instance or ring, sockets and queues are the parent's.
    pub fn check_process(&self) -> PyResult<()> {
        if self.core.is_forked() { Err(self.refusal(Refused::Forked)) } else { Ok(()) }
    }

    /// Whether the driver completes operations in the kernel (io_uring) rather than watching readiness.
    pub fn is_completion_based(&self) -> bool {
        self.completion_based
    }

    /// Open the loop's own state for `body`, which must neither call Python nor drop a Python object.
    ///
    /// RuntimeError where the loop is closed or another thread runs it.
    pub fn with_core<R>(&self, body: impl FnOnce(&mut Core) -> R) -> PyResult<R> {
        self.opened(self.core.with(|core| core.as_mut().map(body)))
    }

    /// The result of opening the cell, or the exception for why it was not opened.
    #[inline]
    fn opened<R>(&self, result: Result<Option<R>, Refused>) -> PyResult<R> {
        match result {
            Ok(Some(result)) => Ok(result),
            Ok(None) => Err(PyRuntimeError::new_err("Event loop is closed")),
            Err(refused) => Err(self.refusal(refused)),
        }
    }

    /// An empty buffer for a write, with memory that was used before if the thread that runs the loop asks.
    pub fn spare_buffer(&self) -> Vec<u8> {
        let taken = self.core.with(|core| core.as_mut().map(|core| core.spare_buffers.take()));
        taken.ok().flatten().unwrap_or_default()
    }

    /// Give back a buffer that was sent.
    pub fn keep_buffer(&self, buffer: Vec<u8>) {
        // Whom it is refused drops it.
        let _ = self.core.with(|core| core.as_mut().map(|core| core.spare_buffers.keep(buffer)));
    }

    /// A value of this thread, if it runs the loop.
    pub fn bound_to_thread<'a, T>(&self, value: &'a mut ThreadBound<T>) -> Option<&'a mut T> {
        self.core.bound(value)
    }

    /// As [`EventLoop::bound_to_thread`], to look at it.
    pub fn lent_to_thread<'a, T>(&self, value: &'a ThreadBound<T>) -> Option<&'a T> {
        self.core.lent(value)
    }

    /// Have a value, a future say, dropped by its thread: here, or by the next turn that it takes. Where neither can be,
    /// the value is left to the process.
    pub fn release<T: 'static>(&self, value: ThreadBound<T>) {
        let Err(value) = self.core.release(value, drop_quietly) else { return };
        if self.core.is_run_by_thread_of(&value) {
            self.hand_in(Callback::Release(value.boxed()), false);
        } else if !self.core.is_forked() {
            // Where the interpreter is gone there is nobody to warn.
            let _ = Python::try_attach(|py| {
                warn::<PyResourceWarning>(
                    py,
                    "a Rust future is not dropped: its thread does not run its event loop any more",
                );
            });
        }
    }

    /// Leave a callback to the thread that runs the loop, which is this one if `is_here`. It may be called with the
    /// cell open, and on threads that Python knows nothing of; a closed loop forgets the callback.
    pub fn hand_in(&self, callback: Callback, is_here: bool) {
        let left = if is_here {
            // Refused where the cell is open: then the inbox, which is looked at before the loop sleeps again.
            Python::attach(|_| match self.core.open() {
                Ok(mut core) => match &mut *core {
                    Some(core) => {
                        core.ready.push(callback);
                        None
                    }
                    None => Some(callback),
                },
                Err(_refused) => Some(callback),
            })
        } else {
            Some(callback)
        };
        if let Some(callback) = left
            && let Ok(true) = self.inbox.push(callback)
        {
            self.wake();
        }
    }

    /// The exception for a cell that could not be opened.
    fn refusal(&self, refused: Refused) -> PyErr {
        PyRuntimeError::new_err(match refused {
            Refused::OtherThread => {
                "Non-thread-safe operation invoked on an event loop other than the current one"
            }
            Refused::AlreadyOpen => "aioxide's event loop was entered twice; please report this as a bug",
            Refused::Forked => {
                let parent = self.process;
                return PyRuntimeError::new_err(format!(
                    "This event loop belongs to the parent process {parent}; create a new one after fork"
                ));
            }
        })
    }

    /// The descriptors that live transports use.
    pub fn transports(&self) -> MutexGuard<'_, HashMap<RawFd, bool>> {
        self.transports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// End the wait of the thread that runs the loop.
    pub fn wake(&self) {
        if let Ok(waker) = self.waker.lock()
            && let Some(waker) = &*waker
        {
            waker.wake();
        }
    }

    /// Hand a report to the loop's exception handler.
    pub fn report(event_loop: &Bound<'_, Self>, report: Bound<'_, PyDict>) -> PyResult<()> {
        call::call_method_of(event_loop, intern!(event_loop.py(), "call_exception_handler"), (report,))?;
        Ok(())
    }

    /// Whether an error must end the loop: KeyboardInterrupt and SystemExit.
    pub fn must_end(py: Python<'_>, error: &PyErr) -> bool {
        ends_the_loop(py, error)
    }

    /// Report an exception with a message and what it concerns; lets through what must end the loop.
    pub fn report_error(
        event_loop: &Bound<'_, Self>,
        message: &str,
        error: PyErr,
        concerning: &[(&str, &Bound<'_, PyAny>)],
    ) -> PyResult<()> {
        if ends_the_loop(event_loop.py(), &error) {
            return Err(error);
        }
        let report = PyDict::new(event_loop.py());
        report.set_item("message", message)?;
        report.set_item("exception", error)?;
        for (name, value) in concerning {
            report.set_item(name, value)?;
        }
        Self::report(event_loop, report)
    }

    /// Report what a task's step or wake-up raised. The task keeps its own exceptions, so this is
    /// KeyboardInterrupt, SystemExit or a context that could not be entered.
    pub fn report_task_error(
        event_loop: &Bound<'_, Self>,
        error: ThinErr,
        callback: &Py<PyAny>,
    ) -> ThinResult<()> {
        registry::settle(event_loop);
        let message = format!("Exception in callback {}", callback.bind(event_loop.py()).repr()?);
        Ok(Self::report_error(event_loop, &message, error.into(), &[])?)
    }

    /// Add the methods that are called too often for PyO3's way of calling to this class or one derived from it.
    pub fn add_fast_methods(class: &Bound<'_, PyType>) -> PyResult<()> {
        add_method::<scheduling::CallSoon>(class)?;
        add_method::<scheduling::CallSoonThreadsafe>(class)?;
        add_method::<scheduling::CallLater>(class)?;
        add_method::<scheduling::CallAt>(class)?;
        add_plain_method::<scheduling::CreateFuture>(class)?;
        add_tuple_method::<scheduling::CreateTask>(class)?;
        add_plain_method::<questions::GetDebug>(class)?;
        add_plain_method::<questions::IsRunning>(class)?;
        add_plain_method::<questions::IsClosed>(class)?;
        add_plain_method::<questions::Time>(class)
    }
}

#[pymethods]
impl EventLoop {
    #[new]
    #[classmethod]
    #[pyo3(signature = (driver=None))]
    fn new(class: &Bound<'_, PyType>, driver: Option<&str>) -> PyResult<Self> {
        lifecycle::open(class, driver)
    }

    // Running and stopping the loop.

    /// Take turns until stop() is called or a callback raises what must end the loop.
    fn _run_turns(slf: &Bound<'_, Self>) -> PyResult<()> {
        turn::run_turns(slf)
    }

    /// Stop the event loop after the current turn.
    fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Refuse what a closed loop cannot do, nor the copy of a loop in a forked child.
    pub fn _check_closed(&self) -> PyResult<()> {
        if self.is_closed() {
            return Err(PyRuntimeError::new_err("Event loop is closed"));
        }
        self.check_process()
    }

    /// Return whether this object was copied into a child process by fork(2).
    fn _is_forked_copy(&self) -> bool {
        self.core.is_forked()
    }

    /// Let go of everything native. Idempotent.
    fn _close_native(slf: &Bound<'_, Self>) -> PyResult<()> {
        lifecycle::close(slf)
    }

    /// Return the name of the driver in use and why it was chosen.
    fn _driver(&self) -> (&str, &str) {
        (&self.driver.0, &self.driver.1)
    }

    /// Return how many of each native thing are alive.
    fn statistics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        lifecycle::statistics(self, py)
    }

    /// Take a single turn without sleeping.
    fn _run_once(slf: &Bound<'_, Self>) -> PyResult<()> {
        if slf.get().is_running() {
            return Err(PyRuntimeError::new_err("This event loop is already running"));
        }
        slf.get().stop();
        turn::run_turns(slf)
    }

    /// What is ready to run, for those who look at asyncio's private queue.
    #[getter]
    fn _ready(&self, py: Python<'_>) -> PyResult<Vec<Py<PyAny>>> {
        if self.is_closed() {
            return Ok(Vec::new());
        }
        self.with_core(|core| core.describe_ready(py))
    }

    /// What waits for its time, for those who look at asyncio's private heap.
    #[getter]
    fn _scheduled(&self, py: Python<'_>) -> PyResult<Vec<Py<TimerHandle>>> {
        if self.is_closed() {
            return Ok(Vec::new());
        }
        self.with_core(|core| core.describe_timers(py))
    }

    /// asyncio.BaseEventLoop sets its own queue, which is not ours.
    #[setter(_ready)]
    fn ignore_ready(&self, _queue: &Bound<'_, PyAny>) {}

    /// As for `_ready`.
    #[setter(_scheduled)]
    fn ignore_scheduled(&self, _heap: &Bound<'_, PyAny>) {}

    // Scheduling and the questions: the fast methods, see `add_fast_methods`.

    /// Give a class that is derived from this one the fast methods as its own: the interpreter calls a method without
    /// detours where the object's class is the very class that defines it.
    #[classmethod]
    fn _adopt_fast_methods(class: &Bound<'_, PyType>) -> PyResult<()> {
        Self::add_fast_methods(class)
    }

    fn __setattr__(
        slf: &Bound<'_, Self>,
        name: &Bound<'_, PyString>,
        value: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        clock::set_attribute(slf, name, Some(value))
    }

    fn __delattr__(slf: &Bound<'_, Self>, name: &Bound<'_, PyString>) -> PyResult<()> {
        clock::set_attribute(slf, name, None)
    }

    /// Set the factory that create_task() uses; None for asyncio.Task.
    #[pyo3(signature = (factory))]
    fn set_task_factory(&self, factory: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        scheduling::set_task_factory(self, factory)
    }

    /// Return the factory that create_task() uses, or None.
    fn get_task_factory(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        scheduling::task_factory(self, py)
    }

    // Watching descriptors.

    #[pyo3(signature = (descriptor, callback, *arguments, context=None))]
    fn _add_reader(
        slf: &Bound<'_, Self>,
        descriptor: RawFd,
        callback: &Bound<'_, PyAny>,
        arguments: &Bound<'_, PyTuple>,
        context: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<Handle>> {
        watchers::add(slf, descriptor, watchers::Direction::Read, callback, arguments, context)
    }

    fn _remove_reader(slf: &Bound<'_, Self>, descriptor: RawFd) -> PyResult<bool> {
        watchers::remove(slf, descriptor, watchers::Direction::Read)
    }

    #[pyo3(signature = (descriptor, callback, *arguments, context=None))]
    fn _add_writer(
        slf: &Bound<'_, Self>,
        descriptor: RawFd,
        callback: &Bound<'_, PyAny>,
        arguments: &Bound<'_, PyTuple>,
        context: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<Handle>> {
        watchers::add(slf, descriptor, watchers::Direction::Write, callback, arguments, context)
    }

    fn _remove_writer(slf: &Bound<'_, Self>, descriptor: RawFd) -> PyResult<bool> {
        watchers::remove(slf, descriptor, watchers::Direction::Write)
    }

    // Plain sockets and connections.

    /// Receive at most `most` bytes, for `sock_recv`.
    fn _sock_recv(slf: &Bound<'_, Self>, socket: &Bound<'_, PyAny>, most: usize) -> PyResult<Py<Awaitable>> {
        SocketCall::awaitable(slf, "EventLoop.sock_recv", socket, Action::Receive(most))
    }

    /// Receive into `memory`, for `sock_recv_into`.
    fn _sock_recv_into(
        slf: &Bound<'_, Self>,
        socket: &Bound<'_, PyAny>,
        memory: &Bound<'_, PyAny>,
    ) -> PyResult<Py<Awaitable>> {
        let memory = Contiguous::of(memory)?;
        SocketCall::awaitable(slf, "EventLoop.sock_recv_into", socket, Action::ReceiveInto(memory))
    }

    /// Send all of `data`, for `sock_sendall`.
    fn _sock_sendall(
        slf: &Bound<'_, Self>,
        socket: &Bound<'_, PyAny>,
        data: &Bound<'_, PyAny>,
    ) -> PyResult<Py<Awaitable>> {
        let data = Contiguous::of(data)?;
        SocketCall::awaitable(slf, "EventLoop.sock_sendall", socket, Action::SendAll(data, 0))
    }

    /// Wait until the socket is ready to be read, or written.
    fn _until_ready(
        slf: &Bound<'_, Self>,
        socket: &Bound<'_, PyAny>,
        for_writing: bool,
    ) -> PyResult<Py<Awaitable>> {
        let direction = if for_writing { watchers::Direction::Write } else { watchers::Direction::Read };
        SocketCall::awaitable(slf, "EventLoop._until_ready", socket, Action::Wait(direction))
    }

    /// Connect to a literal address, for `create_connection`; None where `host` is a name to resolve.
    fn _connect(
        slf: &Bound<'_, Self>,
        protocol_factory: Py<PyAny>,
        host: &str,
        port: u16,
    ) -> PyResult<Option<Py<Awaitable>>> {
        Connecting::awaitable(slf, protocol_factory, host, port)
    }

    /// Return whether an open transport uses the descriptor; that of a closing one may be watched.
    fn _has_transport(&self, descriptor: RawFd) -> PyResult<bool> {
        if self.is_closed() {
            return Ok(false);
        }
        Ok(self.transports().get(&descriptor) == Some(&true))
    }

    // Transports and servers: the hooks that asyncio.BaseEventLoop leaves to its subclasses.

    #[pyo3(signature = (sock, protocol, waiter=None, *, extra=None, server=None, context=None))]
    fn _make_socket_transport(
        slf: &Bound<'_, Self>,
        sock: Bound<'_, PyAny>,
        protocol: Bound<'_, PyAny>,
        waiter: Option<Py<PyAny>>,
        extra: Option<Bound<'_, PyDict>>,
        server: Option<Py<PyAny>>,
        context: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Py<StreamTransport>> {
        in_context(context, || {
            StreamTransport::open(slf, Kind::Socket, sock, protocol, waiter, extra, server)
        })
    }

    #[pyo3(signature = (
        rawsock, protocol, sslcontext, waiter=None, *, server_side=false, server_hostname=None, extra=None,
        server=None, ssl_handshake_timeout=None, ssl_shutdown_timeout=None, context=None
    ))]
    #[expect(clippy::too_many_arguments, reason = "asyncio's own")]
    fn _make_ssl_transport<'py>(
        slf: &Bound<'py, Self>,
        rawsock: Bound<'py, PyAny>,
        protocol: Bound<'py, PyAny>,
        sslcontext: Option<Bound<'py, PyAny>>,
        waiter: Option<Py<PyAny>>,
        server_side: bool,
        server_hostname: Option<Bound<'py, PyAny>>,
        extra: Option<Bound<'py, PyDict>>,
        server: Option<Py<PyAny>>,
        ssl_handshake_timeout: Option<f64>,
        ssl_shutdown_timeout: Option<f64>,
        context: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, TlsTransport>> {
        let settings = Settings {
            context: sslcontext,
            waiter,
            server_side,
            server_hostname,
            call_connection_made: true,
            handshake_timeout: ssl_handshake_timeout,
            shutdown_timeout: ssl_shutdown_timeout,
            accepted: false,
        };
        in_context(context, || {
            let tls = TlsTransport::open(slf, protocol, settings)?;
            StreamTransport::open(slf, Kind::Socket, rawsock, tls.clone().into_any(), None, extra, server)?;
            Ok(tls)
        })
    }

    #[pyo3(signature = (pipe, protocol, waiter=None, extra=None))]
    fn _make_read_pipe_transport(
        slf: &Bound<'_, Self>,
        pipe: Bound<'_, PyAny>,
        protocol: Bound<'_, PyAny>,
        waiter: Option<Py<PyAny>>,
        extra: Option<Bound<'_, PyDict>>,
    ) -> PyResult<Py<StreamTransport>> {
        StreamTransport::open(slf, Kind::ReadPipe, pipe, protocol, waiter, extra, None)
    }

    #[pyo3(signature = (pipe, protocol, waiter=None, extra=None))]
    fn _make_write_pipe_transport(
        slf: &Bound<'_, Self>,
        pipe: Bound<'_, PyAny>,
        protocol: Bound<'_, PyAny>,
        waiter: Option<Py<PyAny>>,
        extra: Option<Bound<'_, PyDict>>,
    ) -> PyResult<Py<StreamTransport>> {
        StreamTransport::open(slf, Kind::WritePipe, pipe, protocol, waiter, extra, None)
    }

    #[pyo3(signature = (sock, protocol, address=None, waiter=None, extra=None))]
    fn _make_datagram_transport(
        slf: &Bound<'_, Self>,
        sock: Bound<'_, PyAny>,
        protocol: Bound<'_, PyAny>,
        address: Option<Bound<'_, PyAny>>,
        waiter: Option<Py<PyAny>>,
        extra: Option<Bound<'_, PyDict>>,
    ) -> PyResult<Py<DatagramTransport>> {
        DatagramTransport::open(slf, sock, protocol, address, waiter, extra)
    }

    /// Accept connections on a listening socket, for `asyncio.Server`.
    #[pyo3(signature = (
        protocol_factory, sock, sslcontext=None, server=None, backlog=100, ssl_handshake_timeout=None,
        ssl_shutdown_timeout=None, context=None
    ))]
    #[expect(clippy::too_many_arguments, reason = "asyncio's own")]
    fn _start_serving(
        slf: &Bound<'_, Self>,
        protocol_factory: Py<PyAny>,
        sock: Bound<'_, PyAny>,
        sslcontext: Option<Py<PyAny>>,
        server: Option<Py<PyAny>>,
        backlog: i32,
        ssl_handshake_timeout: Option<f64>,
        ssl_shutdown_timeout: Option<f64>,
        context: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let tls = sslcontext.map(|context| Tls {
            context,
            handshake_timeout: ssl_handshake_timeout,
            shutdown_timeout: ssl_shutdown_timeout,
        });
        in_context(context, || Listener::start(slf, protocol_factory, sock, server, backlog, tls))
    }

    /// Stop accepting and close the listening socket.
    fn _stop_serving(slf: &Bound<'_, Self>, sock: &Bound<'_, PyAny>) -> PyResult<()> {
        Listener::stop(slf, sock)
    }

    // Debug mode.

    fn _set_native_debug(&self, enabled: bool) {
        self.debug.store(enabled, Ordering::Relaxed);
    }

    fn _set_slow_callback_duration(&self, seconds: f64) {
        self.slow_callback_duration.store(seconds.to_bits(), Ordering::Relaxed);
    }

    // Garbage collection.

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Ok(factory) = self.task_factory.try_lock() {
            visit.call(&*factory)?;
        }
        // A cell that is open, or another thread's, keeps its contents alive for this collection.
        self.core.with(|core| core.as_ref().map_or(Ok(()), |core| core.traverse(&visit))).unwrap_or(Ok(()))
    }

    fn __clear__(&self) {
        if let Ok(mut factory) = self.task_factory.lock() {
            let taken = factory.take();
            drop(factory);
            drop(taken);
        }
        let contents = self.core.with(|core| core.as_mut().map(Core::take_contents));
        drop(contents);
    }
}

impl Drop for EventLoop {
    /// What a forked child has of the parent's ring is mapped at addresses that may be in other use by now,
    /// and cancelling anything would cancel it for the parent: the child keeps its copy.
    fn drop(&mut self) {
        if self.core.is_forked() {
            std::mem::forget(self.core.get_mut().take());
        }
    }
}

/// Run `body` in the context that Python 3.15 and later name for a server's or a connection's callbacks; before,
/// it is the caller's. What `body` makes takes a copy of it.
fn in_context<R>(context: Option<Bound<'_, PyAny>>, body: impl FnOnce() -> PyResult<R>) -> PyResult<R> {
    match context {
        Some(context) => run_in(context.as_borrowed(), body),
        None => body(),
    }
}

/// A borrowed argument as an owned one.
pub fn owned(argument: &Borrowed<'_, '_, PyAny>) -> Py<PyAny> {
    another(argument).unbind()
}
