//! `aioxide._rust.RedisConnection`: a connection of the client crate on a Python loop.
//!
//! # Invariants
//! - The connection is touched by the thread that runs the loop, or while the loop does not run.

use std::ffi::CStr;
use std::rc::Rc;

use aioxide_redis::Error;
use aioxide_redis::Role;
use aioxide_redis::connection::session::Retry;
use aioxide_redis::connection::{Connection, Stage};
use pyo3::exceptions::{PyBaseException, PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;
use pyo3::types::{PyDict, PyList, PyString, PyTuple, PyType};
use pyo3::{PyTraverseError, intern};

use super::arguments::Encoding;
use super::call::{Call, Commands, shape};
use super::receiver::{CROWDED_MAILBOX, Mailbox, Objects, Reply};
use super::route::{Route, route};
use super::settings::Settings;
use crate::awaitable::waiter::Waiter;
use crate::awaitable::{Awaitable, Work};
use crate::error::ThinResult;
use crate::event_loop::EventLoop;
use crate::ffi::call;
use crate::ffi::gil_cell::GilCell;
use crate::ffi::method::{Arguments, FastMethod, add_method};
use crate::loop_cell::ThreadBound;

/// A connection to a Redis server, shared by any number of callers.
#[pyclass(module = "aioxide._rust", frozen, weakref)]
pub struct RedisConnection {
    pub(super) event_loop: Py<EventLoop>,
    /// `None` once it was dropped.
    native: Option<ThreadBound<Native>>,
    pub(super) encoding: Encoding,
    decodes: bool,
    /// What shapes the replies of each command, by its name.
    callbacks: Py<PyDict>,
    /// redis-py's exceptions, a module.
    exceptions: Py<PyAny>,
    /// `ResponseError` of it.
    response_error: Py<PyAny>,
    /// Where it connects to, for messages.
    address: String,
    /// The names, in capitals, of commands that the program says may run twice; `None` where there are none.
    idempotent: Option<Py<PyAny>>,
    /// Called with arguments and options for commands that this connection does not take; returns an awaitable.
    otherwise: Option<Py<PyAny>>,
    /// Memory for encoding.
    scratch: GilCell<Vec<u8>>,
}

/// What belongs to the loop's thread.
struct Native {
    connection: Connection<Objects>,
    mailbox: Option<Rc<Mailbox>>,
}

/// Memory for encoding that grew beyond this is not kept, bytes.
const KEPT_SCRATCH: usize = 64 * 1024;

impl RedisConnection {
    fn native(&self) -> PyResult<&Native> {
        let native = self.native.as_ref().and_then(|native| self.event_loop.get().lent_to_thread(native));
        native.ok_or_else(|| {
            PyRuntimeError::new_err(
                "this Redis connection belongs to an event loop that does not run in this thread",
            )
        })
    }

    /// Tell the connection something, on the thread that runs its loop: so the loop's runtime is the current one, and the
    /// connection's task is woken without a system call.
    pub(super) fn with<R>(&self, tell: impl FnOnce(&Connection<Objects>) -> R) -> PyResult<R> {
        self.native().map(|native| tell(&native.connection))
    }

    /// Whether callers must wait before they send.
    pub(super) fn is_full(&self) -> PyResult<bool> {
        self.native().map(|native| native.connection.is_full())
    }

    /// The exception for an argument that has no encoding.
    pub(super) fn refusal(&self, argument: &Bound<'_, PyAny>) -> PyErr {
        let py = argument.py();
        let kind = argument.get_type().name().map_or_else(|_| "object".into(), |name| name.to_string());
        let text =
            format!("Invalid input of type: '{kind}'. Convert to a bytes, string, int or float first.");
        self.make_exception(py, "DataError", text)
    }

    fn make_exception(&self, py: Python<'_>, class: &str, text: String) -> PyErr {
        match self.exceptions.getattr(py, class).and_then(|class| class.call1(py, (text,))) {
            Ok(exception) => PyErr::from_value(exception.into_bound(py)),
            Err(error) => error,
        }
    }

    /// An exception with `may_have_run`: whether the server can have received the command.
    fn marked(&self, py: Python<'_>, class: &str, text: String, may_have_run: bool) -> PyErr {
        let exception = self.make_exception(py, class, text);
        match exception.value(py).setattr(intern!(py, "may_have_run"), may_have_run) {
            Ok(()) => exception,
            Err(error) => error,
        }
    }

    /// Whether an exception is the server's answer to the command.
    pub(super) fn is_response_error(&self, py: Python<'_>, exception: &Py<PyAny>) -> bool {
        exception.bind(py).is_instance(self.response_error.bind(py)).unwrap_or(false)
    }

    /// redis-py's exception for an error.
    pub(super) fn exception(&self, py: Python<'_>, error: &Error) -> PyErr {
        let address = &self.address;
        let unless = |may_have_run: bool| if may_have_run { "; the command may have run" } else { "" };
        match error {
            Error::Network { source, may_have_run: false } => {
                let (errno, text) = (source.raw_os_error(), plain(source));
                let errno = errno.map_or_else(String::new, |errno| format!("Error {errno} "));
                let text = format!("{errno}connecting to {address}. {text}.");
                self.marked(py, "ConnectionError", text, false)
            }
            Error::Network { source, may_have_run: true } => {
                let text = match source.kind() {
                    std::io::ErrorKind::UnexpectedEof => "Connection closed by server".into(),
                    _ => plain(source),
                };
                let text = format!("{text} ({address}{}).", unless(true));
                self.marked(py, "ConnectionError", text, true)
            }
            Error::Timeout { what, may_have_run } => {
                let text = format!("Timeout {what} ({address}{})", unless(*may_have_run));
                self.marked(py, "TimeoutError", text, *may_have_run)
            }
            Error::Protocol(error) => {
                self.make_exception(py, "InvalidResponse", format!("Protocol Error: {error}"))
            }
            Error::Server(error) | Error::Refused(error) => self.server_error(py, error.text()),
            Error::NotFound { role } => {
                let (class, kind) = match role {
                    Role::Master => ("MasterNotFoundError", "master"),
                    Role::Replica => ("SlaveNotFoundError", "slave"),
                };
                self.make_exception(py, class, format!("No {kind} found for {address}"))
            }
            Error::Tls(source) => {
                let text = format!("Error connecting to {address}. {source}.");
                self.make_exception(py, "ConnectionError", text)
            }
            Error::Closed => {
                self.make_exception(py, "ConnectionError", "Connection closed by client.".into())
            }
            other => self.make_exception(py, "RedisError", other.to_string()),
        }
    }

    /// The exception for an error of the server, as its replies make it.
    fn server_error(&self, py: Python<'_>, text: &str) -> PyErr {
        let parse = self.exceptions.getattr(py, intern!(py, "parse_error"));
        match parse.and_then(|parse| parse.call1(py, (text,))) {
            Ok(exception) => PyErr::from_value(exception.into_bound(py)),
            Err(_) => self.make_exception(py, "ResponseError", text.into()),
        }
    }

    /// Memory to encode into.
    pub(super) fn scratch(&self, py: Python<'_>) -> Vec<u8> {
        self.scratch.with(py, std::mem::take)
    }

    /// Take it back.
    pub(super) fn give_back(&self, py: Python<'_>, mut scratch: Vec<u8>) {
        if scratch.capacity() <= KEPT_SCRATCH {
            scratch.clear();
            self.scratch.with(py, |place| *place = scratch);
        }
    }

    /// The next message, if there is one; the error of a connection that was lost counts as one.
    pub(super) fn take_message(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let native = self.native()?;
        let Some(mailbox) = &native.mailbox else {
            return Err(PyTypeError::new_err("this connection takes no messages"));
        };
        let message = mailbox.messages.borrow_mut().pop_front();
        if mailbox.messages.borrow().len() == CROWDED_MAILBOX / 2 {
            self.with(Connection::resume_reading)?;
        }
        match message {
            Some(Reply::Value(message)) => return Ok(Some(message)),
            Some(Reply::Error(exception)) => return Err(PyErr::from_value(exception.into_bound(py))),
            Some(Reply::Failed(error)) => return Err(error),
            None => {}
        }
        let lost = mailbox.error.borrow_mut().take();
        match lost {
            Some(error) => Err(self.exception(py, &error)),
            None if native.connection.stage() == Stage::Closed => Err(self.exception(py, &Error::Closed)),
            None => Ok(None),
        }
    }

    /// Have `waiter` woken with the next message.
    pub(super) fn listen(&self, waiter: Py<Waiter>) -> PyResult<()> {
        if let Some(mailbox) = &self.native()?.mailbox {
            let previous = mailbox.waiter.replace(Some(waiter));
            drop(previous);
        }
        Ok(())
    }

    /// What shapes the replies to a command, which is known by its name in capitals.
    fn callback<'py>(&self, name: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let callbacks = self.callbacks.bind(name.py());
        if let Some(callback) = callbacks.get_item(name)? {
            return Ok(Some(callback));
        }
        match name.cast::<PyString>() {
            Ok(text) if text.to_str()?.bytes().any(|byte| byte.is_ascii_lowercase()) => {
                callbacks.get_item(text.to_str()?.to_ascii_uppercase())
            }
            _ => Ok(None),
        }
    }

    /// Whether a command is sent again after its connection died, when it may have run.
    fn retry(&self, name: &Bound<'_, PyAny>) -> PyResult<Retry> {
        let Some(names) = &self.idempotent else { return Ok(Retry::IfUnsent) };
        let is_idempotent = names.bind(name.py()).contains(name)?;
        Ok(if is_idempotent { Retry::Idempotent } else { Retry::IfUnsent })
    }

    /// Add the method that is called for every command.
    pub fn add_fast_methods(class: &Bound<'_, PyType>) -> PyResult<()> {
        add_method::<ExecuteCommand>(class)
    }

    fn awaitable(slf: &Bound<'_, Self>, name: &'static str, call: Call) -> PyResult<Py<Awaitable>> {
        Awaitable::new(slf.py(), name, Work::Redis(Box::new(call)))
    }
}

/// `execute_command(*arguments, **options)`, for the client to use as its own.
struct ExecuteCommand;

impl FastMethod for ExecuteCommand {
    type Class = RedisConnection;
    const NAME: &'static CStr = c"execute_command";
    const POSITIONAL: &'static [&'static str] = &[];
    const DOCUMENTATION: &'static CStr = c"execute_command($self, /, *arguments, **options)\n--\n\nReturn an awaitable of the reply to a command.";

    fn call(connection: &Bound<'_, RedisConnection>, arguments: &Arguments<'_, '_>) -> ThinResult<Py<PyAny>> {
        let py = connection.py();
        let this = connection.get();
        let words = PyTuple::new(py, arguments.at_least("execute_command", 1)?)?;
        // The keys are for redis-py's cache and for clusters.
        let is_plain = arguments.keywords().all(|(name, _)| name == "keys");
        if is_plain && this.event_loop.get().is_running_here() && route(&words) == Route::Shared {
            let name = words.get_item(0)?;
            let callback = this.callback(&name)?.map(|callback| (callback.unbind(), None));
            let retry = this.retry(&name)?;
            let commands = Commands::One { arguments: words.unbind(), callback, instead_of_error: None };
            let call = Call::new(connection, commands, this.decodes, retry);
            return Ok(RedisConnection::awaitable(connection, "Redis.execute_command", call)?.into_any());
        }
        let options = PyDict::new(py);
        for (name, value) in arguments.keywords() {
            options.set_item(name, value)?;
        }
        if let Some(awaitable) = RedisConnection::execute(connection, &words, &options, false, false)? {
            return Ok(awaitable.into_any());
        }
        match &this.otherwise {
            Some(otherwise) => Ok(call::call_object(otherwise.bind(py), (words, options), None)?.unbind()),
            None => Err(PyTypeError::new_err("this command needs a connection of its own").into()),
        }
    }
}

/// The two parts of a command that a pipeline has collected.
fn arguments_and_options<'py>(
    command: &Bound<'py, PyAny>,
) -> PyResult<(Bound<'py, PyTuple>, Bound<'py, PyDict>)> {
    let pair = command.cast::<PyTuple>()?;
    let (arguments, options) = (pair.get_borrowed_item(0)?, pair.get_borrowed_item(1)?);
    Ok((arguments.cast::<PyTuple>()?.to_owned(), options.cast::<PyDict>()?.to_owned()))
}

/// The keywords that a command's callback gets: a copy of its options, without the keys, which are for redis-py's cache
/// and for clusters. `None` where there are none.
fn keywords<'py>(options: &Bound<'py, PyDict>) -> PyResult<Option<Bound<'py, PyDict>>> {
    if options.is_empty() {
        return Ok(None);
    }
    let keywords = options.copy()?;
    let keys = intern!(options.py(), "keys");
    if keywords.contains(keys)? {
        keywords.del_item(keys)?;
    }
    Ok(Some(keywords).filter(|keywords| !keywords.is_empty()))
}

/// What the system calls an error, without the number.
fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].into(),
        None => text,
    }
}

#[pymethods]
impl RedisConnection {
    /// Make a connection of `event_loop`, which must run in this thread; it connects when it is needed.
    ///
    /// `exceptions` has redis-py's exception classes and `parse_error`; `callbacks` is the client's dictionary of what
    /// shapes replies. With `messages` it keeps what nobody asked for, for `next_message`. `otherwise` is called by
    /// `execute_command` with the arguments and options of what this connection does not take.
    #[new]
    #[pyo3(signature = (event_loop, settings, callbacks, exceptions, messages=false, otherwise=None))]
    fn new(
        event_loop: &Bound<'_, EventLoop>,
        settings: &Bound<'_, PyDict>,
        callbacks: Bound<'_, PyDict>,
        exceptions: Bound<'_, PyAny>,
        messages: bool,
        otherwise: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        let py = event_loop.py();
        let this = event_loop.get();
        this._check_closed()?;
        if !this.is_running_here() {
            return Err(PyRuntimeError::new_err("a Redis connection is made while its event loop runs"));
        }
        let Settings { config, locator, encoding, decodes } = Settings::read(settings)?;
        let mailbox = messages.then(Rc::<Mailbox>::default);
        let receiver = Objects {
            event_loop: event_loop.clone().unbind(),
            parse_error: exceptions.getattr(intern!(py, "parse_error"))?.unbind(),
            encoding: encoding.clone(),
            decodes,
            decodes_now: decodes,
            mailbox: mailbox.clone(),
        };
        let response_error = exceptions.getattr(intern!(py, "ResponseError"))?.unbind();
        let address = match settings.get_item(intern!(py, "sentinel"))?.filter(|sentinel| !sentinel.is_none())
        {
            Some(sentinel) => format!("service {}", sentinel.get_item(intern!(py, "service"))?),
            None => config.address.to_string(),
        };
        let connection = Connection::new(config, locator, receiver);
        Ok(Self {
            event_loop: event_loop.clone().unbind(),
            native: Some(ThreadBound::new(Native { connection, mailbox })),
            encoding,
            decodes,
            callbacks: callbacks.unbind(),
            exceptions: exceptions.unbind(),
            response_error,
            address,
            idempotent: settings.get_item("idempotent")?.filter(|names| !names.is_none()).map(Bound::unbind),
            otherwise,
            scratch: GilCell::default(),
        })
    }

    /// Return an awaitable of a command's reply; None where the command needs a connection of its own, unless this is
    /// one, or where this connection belongs to another loop than the one that runs here.
    /// An idempotent command is sent again where the connection died before the reply.
    #[pyo3(signature = (arguments, options, own=false, idempotent=false))]
    fn execute(
        slf: &Bound<'_, Self>,
        arguments: &Bound<'_, PyTuple>,
        options: &Bound<'_, PyDict>,
        own: bool,
        idempotent: bool,
    ) -> PyResult<Option<Py<Awaitable>>> {
        let py = slf.py();
        let this = slf.get();
        if !this.event_loop.get().is_running_here() || (!own && route(arguments) != Route::Shared) {
            return Ok(None);
        }
        let name = arguments.get_item(0)?;
        let mut decodes = this.decodes;
        let mut instead_of_error = None;
        let rest = keywords(options)?;
        if let Some(rest) = &rest {
            if let Some(value) = rest.get_item(intern!(py, "EMPTY_RESPONSE"))? {
                instead_of_error = Some(value.unbind());
                rest.del_item(intern!(py, "EMPTY_RESPONSE"))?;
            }
            if rest.contains(intern!(py, "NEVER_DECODE"))? {
                decodes = false;
                rest.del_item(intern!(py, "NEVER_DECODE"))?;
            }
        }
        let keywords = rest.filter(|rest| !rest.is_empty()).map(Bound::unbind);
        let callback = this.callback(&name)?.map(|callback| (callback.unbind(), keywords));
        let arguments = arguments.clone().unbind();
        let commands = Commands::One { arguments, callback, instead_of_error };
        let retry = if idempotent { Retry::Idempotent } else { this.retry(&name)? };
        let call = Call::new(slf, commands, decodes, retry);
        Self::awaitable(slf, "Redis.execute_command", call).map(Some)
    }

    /// Return an awaitable of the list of the replies to `commands`, pairs of arguments and options, in one write;
    /// errors are exception objects in it. A transaction is put between MULTI and EXEC, whose replies are in the list.
    ///
    /// None where one of the commands needs a connection of its own, or an option is not the reply's shape alone.
    fn execute_several(
        slf: &Bound<'_, Self>,
        commands: &Bound<'_, PyList>,
        transaction: bool,
    ) -> PyResult<Option<Py<Awaitable>>> {
        let py = slf.py();
        if !slf.get().event_loop.get().is_running_here() {
            return Ok(None);
        }
        let mut tuples = Vec::with_capacity(commands.len() + 2);
        if transaction {
            tuples.push(PyTuple::new(py, [intern!(py, "MULTI")])?);
        }
        for command in commands {
            let (arguments, options) = arguments_and_options(&command)?;
            let special = [intern!(py, "EMPTY_RESPONSE"), intern!(py, "NEVER_DECODE")];
            let is_shared = match route(&arguments) {
                Route::Shared => true,
                // Between MULTI and EXEC nothing blocks.
                Route::Blocking => transaction,
                Route::Own => false,
            };
            if !is_shared
                || !options.is_empty() && (options.contains(special[0])? || options.contains(special[1])?)
            {
                return Ok(None);
            }
            tuples.push(arguments);
        }
        if transaction {
            tuples.push(PyTuple::new(py, [intern!(py, "EXEC")])?);
        }
        let commands = tuples.into_iter().map(Bound::unbind).collect();
        let commands = Commands::Several { commands, is_transaction: transaction };
        let call = Call::new(slf, commands, slf.get().decodes, Retry::IfUnsent);
        Self::awaitable(slf, "Pipeline.execute", call).map(Some)
    }

    /// Shape the replies to `commands`, pairs of arguments and options, as those to single commands are; exception
    /// objects stay as they are.
    fn shape_replies<'py>(
        slf: &Bound<'py, Self>,
        commands: &Bound<'py, PyList>,
        replies: &Bound<'py, PyList>,
    ) -> PyResult<Bound<'py, PyList>> {
        let this = slf.get();
        for (index, command) in commands.iter().enumerate().take(replies.len()) {
            let (arguments, options) = arguments_and_options(&command)?;
            let Some(callback) = this.callback(&arguments.get_item(0)?)? else { continue };
            let reply = replies.get_item(index)?;
            if reply.is_instance_of::<PyBaseException>() {
                continue;
            }
            let shaped = shape(&callback, keywords(&options)?.as_ref(), reply.unbind())?;
            replies.set_item(index, shaped)?;
        }
        Ok(replies.clone())
    }

    /// Return an awaitable of the next message that nobody asked for.
    fn next_message(slf: &Bound<'_, Self>) -> PyResult<Py<Awaitable>> {
        let call = Call::new(slf, Commands::NextMessage, slf.get().decodes, Retry::IfUnsent);
        Self::awaitable(slf, "PubSub.parse_response", call)
    }

    /// How many seconds the server may say nothing while a reply is awaited; None for ever.
    fn set_stall_timeout(&self, seconds: Option<f64>) -> PyResult<()> {
        let timeout = seconds.map(std::time::Duration::try_from_secs_f64).transpose();
        let timeout = timeout.map_err(|_| PyTypeError::new_err("a timeout is a number of seconds"))?;
        self.with(|connection| connection.set_stall_timeout(timeout))
    }

    /// Give up the present TCP connection; the next command makes another.
    fn disconnect(&self) -> PyResult<()> {
        self.with(Connection::disconnect)
    }

    /// Close it for good; who waits gets a ConnectionError. Idempotent, from any thread that may.
    fn close(&self) {
        // On another thread than the loop's: dropping it will do.
        let _ = self.with(Connection::close);
    }

    /// Where it is in its life: "idle", "connecting", "ready" or "closed".
    #[getter]
    fn stage(&self) -> PyResult<&'static str> {
        Ok(match self.with(Connection::stage)? {
            Stage::Idle => "idle",
            Stage::Connecting => "connecting",
            Stage::Ready => "ready",
            Stage::Closed => "closed",
        })
    }

    /// How many commands, or groups of them, wait for replies.
    #[getter]
    fn waiting(&self) -> PyResult<usize> {
        self.with(|connection| connection.load().0)
    }

    fn __repr__(&self) -> String {
        format!("<RedisConnection {}>", self.address)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.event_loop)?;
        visit.call(&self.callbacks)?;
        visit.call(&self.exceptions)?;
        visit.call(&self.otherwise)?;
        visit.call(&self.idempotent)?;
        visit.call(&self.response_error)
    }
}

impl Drop for RedisConnection {
    /// The loop's thread drops the connection, which closes it.
    fn drop(&mut self) {
        if let Some(native) = self.native.take() {
            self.event_loop.get().release(native);
        }
    }
}
