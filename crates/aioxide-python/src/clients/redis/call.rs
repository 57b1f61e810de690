//! What a caller of a Redis connection awaits.
//!
//! Nothing is sent before it is awaited. Then the command is encoded and queued, and the task waits; the reply lies in
//! [`Pending`], which the connection and the call share, when the task goes on. A call that is dropped leaves its
//! `Pending` with the connection, where the reply is thrown away when its turn comes.
//!
//! # Invariants
//! - A refused argument leaves nothing behind: commands are encoded into memory of the call's own first.

use std::mem;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};

use aioxide_redis::Error;
use aioxide_redis::connection::session::{Retry, Unit};
use pyo3::PyTraverseError;
use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;
use pyo3::types::{PyDict, PyList, PyTuple};

use super::arguments::encode;
use super::connection::RedisConnection;
use super::receiver::Reply;
use crate::awaitable::Step;
use crate::awaitable::waiter::Waiter;
use crate::callback::Callback;
use crate::error::ThinResult;
use crate::event_loop::EventLoop;
use crate::ffi::call;
use crate::ffi::gil_cell::GilCell;

/// Replies on their way to a call.
pub struct Pending {
    /// Whether they are decoded.
    pub decodes: bool,
    missing: usize,
    replies: Vec<Reply>,
    failed: Option<Error>,
    waiter: Option<Py<Waiter>>,
}

impl Pending {
    fn new(decodes: bool, missing: usize) -> Self {
        Self { decodes, missing, replies: Vec::new(), failed: None, waiter: None }
    }

    /// Takes the next reply; with the last one returns who waits.
    #[must_use]
    pub fn add(&mut self, reply: Reply) -> Option<Py<Waiter>> {
        self.replies.push(reply);
        self.missing -= 1;
        if self.missing == 0 { self.waiter.take() } else { None }
    }

    /// Takes what ended it; returns who waits.
    #[must_use]
    pub fn fail(&mut self, error: Error) -> Option<Py<Waiter>> {
        self.missing = 0;
        self.failed = Some(error);
        self.waiter.take()
    }
}

/// What is to be run.
pub enum Commands {
    /// One command.
    One {
        /// Its words.
        arguments: Py<PyTuple>,
        /// What shapes its reply, and the keywords it gets.
        callback: Option<(Py<PyAny>, Option<Py<PyDict>>)>,
        /// What an error reply is replaced with.
        instead_of_error: Option<Py<PyAny>>,
    },
    /// Several in one write, each a tuple: a list of replies, exception objects for errors.
    Several {
        /// The words of each.
        commands: Vec<Py<PyTuple>>,
        /// Nothing of it runs before the last has arrived.
        is_transaction: bool,
    },
    /// The next message that nobody asked for.
    NextMessage,
}

/// Where a call is.
enum Stage {
    New,
    /// There was no room for the command.
    Crowded(Py<Waiter>),
    /// It was queued.
    Sent(Arc<GilCell<Pending>>, Py<Waiter>),
    /// It waits for a message.
    Listening(Py<Waiter>),
    Done,
}

/// A call on a connection.
pub struct Call {
    connection: Py<RedisConnection>,
    commands: Commands,
    decodes: bool,
    retry: Retry,
    stage: Stage,
}

impl Call {
    /// A call that has not begun.
    pub fn new(
        connection: &Bound<'_, RedisConnection>,
        commands: Commands,
        decodes: bool,
        retry: Retry,
    ) -> Self {
        Self { connection: connection.clone().unbind(), commands, decodes, retry, stage: Stage::New }
    }

    /// Go on.
    pub fn advance(&mut self, py: Python<'_>) -> ThinResult<Step> {
        match mem::replace(&mut self.stage, Stage::Done) {
            Stage::New | Stage::Crowded(_) => match self.commands {
                Commands::NextMessage => self.listen(py),
                _ => self.send(py),
            },
            Stage::Listening(_) => self.listen(py),
            Stage::Sent(pending, waiter) => {
                if pending.borrow(py).missing > 0 {
                    return self.wait(py, pending);
                }
                drop(waiter);
                let (replies, failed) =
                    pending.with(py, |pending| (mem::take(&mut pending.replies), pending.failed.take()));
                match failed {
                    Some(error) => {
                        drop(replies);
                        Err(self.connection.get().exception(py, &error).into())
                    }
                    None => Ok(Step::Done(self.finish(py, replies)?)),
                }
            }
            Stage::Done => unreachable!("an awaitable that is over is not advanced"),
        }
    }

    /// Whether nothing has happened yet that it waits for.
    pub fn is_waiting(&self, py: Python<'_>) -> bool {
        match &self.stage {
            Stage::Sent(_, waiter) | Stage::Crowded(waiter) | Stage::Listening(waiter) => {
                waiter.get().is_pending(py)
            }
            Stage::New | Stage::Done => false,
        }
    }

    fn send(&mut self, py: Python<'_>) -> ThinResult<Step> {
        let this = self.connection.bind(py).get();
        if this.is_full()? {
            let waiter = Waiter::new(py, this.event_loop.clone_ref(py).into_any())?;
            this.with(|connection| connection.wait_for_room(&Door::waker(py, this, &waiter)))?;
            self.stage = Stage::Crowded(waiter.clone_ref(py));
            return Ok(Step::Yield(waiter.into_any()));
        }
        let mut encoded = this.scratch(py);
        let refuse = |argument: &Bound<'_, PyAny>| this.refusal(argument);
        let encoded_unit = match &self.commands {
            Commands::One { arguments, .. } => {
                encode(arguments.bind(py), &this.encoding, &mut encoded, refuse).map(|()| Unit::Single)
            }
            Commands::Several { commands, is_transaction } => {
                let mut encode_all = || {
                    commands.iter().try_for_each(|command| {
                        encode(command.bind(py), &this.encoding, &mut encoded, refuse)
                    })
                };
                let count = commands.len();
                let unit = if *is_transaction { Unit::Transaction(count) } else { Unit::Pipeline(count) };
                encode_all().map(|()| unit)
            }
            Commands::NextMessage => unreachable!("a call that listens sends nothing"),
        };
        let unit = match encoded_unit {
            Ok(unit) => unit,
            Err(error) => {
                this.give_back(py, encoded);
                return Err(error.into());
            }
        };
        let pending = Arc::new(GilCell::new(Pending::new(self.decodes, unit.replies())));
        let slot = Arc::clone(&pending);
        let sent = this.with(|connection| connection.send(&encoded, unit, self.retry, slot))?;
        this.give_back(py, encoded);
        match sent {
            Ok(()) => self.wait(py, pending),
            Err(_) => Err(this.exception(py, &Error::Closed).into()),
        }
    }

    fn wait(&mut self, py: Python<'_>, pending: Arc<GilCell<Pending>>) -> ThinResult<Step> {
        let event_loop = self.connection.get().event_loop.clone_ref(py);
        let waiter = Waiter::new(py, event_loop.into_any())?;
        let yielded = waiter.clone_ref(py).into_any();
        pending.borrow_mut(py).waiter = Some(waiter.clone_ref(py));
        self.stage = Stage::Sent(pending, waiter);
        Ok(Step::Yield(yielded))
    }

    fn listen(&mut self, py: Python<'_>) -> ThinResult<Step> {
        let this = self.connection.bind(py).get();
        if let Some(message) = this.take_message(py)? {
            return Ok(Step::Done(message));
        }
        let waiter = Waiter::new(py, this.event_loop.clone_ref(py).into_any())?;
        this.listen(waiter.clone_ref(py))?;
        self.stage = Stage::Listening(waiter.clone_ref(py));
        Ok(Step::Yield(waiter.into_any()))
    }

    /// Make the result of replies.
    fn finish(&mut self, py: Python<'_>, replies: Vec<Reply>) -> PyResult<Py<PyAny>> {
        match &self.commands {
            Commands::One { callback, instead_of_error, .. } => {
                let Some(reply) = replies.into_iter().next() else {
                    unreachable!("one reply was asked for");
                };
                let value = match reply {
                    Reply::Value(value) => value,
                    Reply::Failed(error) => return Err(error),
                    Reply::Error(exception) => {
                        let is_response_error = || self.connection.get().is_response_error(py, &exception);
                        return match instead_of_error {
                            Some(instead) if is_response_error() => Ok(instead.clone_ref(py)),
                            _ => Err(PyErr::from_value(exception.into_bound(py))),
                        };
                    }
                };
                let Some((callback, keywords)) = callback else { return Ok(value) };
                let keywords = keywords.as_ref().map(|keywords| keywords.bind(py));
                shape(callback.bind(py), keywords, value).map(Bound::unbind)
            }
            _ => {
                let mut objects = Vec::with_capacity(replies.len());
                for reply in replies {
                    match reply {
                        Reply::Value(object) => objects.push(object),
                        Reply::Error(object) if self.connection.get().is_response_error(py, &object) => {
                            objects.push(object);
                        }
                        // The server does not answer commands at all: it loads, or does not know us.
                        Reply::Error(object) => return Err(PyErr::from_value(object.into_bound(py))),
                        Reply::Failed(error) => objects.push(error.into_value(py).into_any()),
                    }
                }
                Ok(PyList::new(py, objects)?.into_any().unbind())
            }
        }
    }

    /// Show the garbage collector what this keeps alive.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.connection)?;
        match &self.commands {
            Commands::One { arguments, callback, instead_of_error } => {
                visit.call(arguments)?;
                if let Some((callback, keywords)) = callback {
                    visit.call(callback)?;
                    visit.call(keywords)?;
                }
                visit.call(instead_of_error)?;
            }
            Commands::Several { commands, .. } => {
                commands.iter().try_for_each(|command| visit.call(command))?;
            }
            Commands::NextMessage => {}
        }
        match &self.stage {
            Stage::Sent(_, waiter) | Stage::Crowded(waiter) | Stage::Listening(waiter) => visit.call(waiter),
            Stage::New | Stage::Done => Ok(()),
        }
    }
}

/// A reply in the shape that a command's callback gives it.
pub fn shape<'py>(
    callback: &Bound<'py, PyAny>,
    keywords: Option<&Bound<'py, PyDict>>,
    reply: Py<PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    match keywords {
        None => call::call(callback.as_borrowed(), &[reply]),
        keywords => call::call_object(callback, (reply,), keywords),
    }
}

/// A waker for a caller that waits for room.
struct Door {
    event_loop: Py<EventLoop>,
    waiter: Mutex<Option<Py<Waiter>>>,
}

impl Door {
    fn waker(py: Python<'_>, connection: &RedisConnection, waiter: &Py<Waiter>) -> Waker {
        let event_loop = connection.event_loop.clone_ref(py);
        Waker::from(Arc::new(Self { event_loop, waiter: Mutex::new(Some(waiter.clone_ref(py))) }))
    }
}

impl Wake for Door {
    fn wake(self: Arc<Self>) {
        let waiter = self.waiter.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waiter) = waiter {
            // The connection wakes on the loop's own thread.
            self.event_loop.get().hand_in(Callback::Wake(waiter), true);
        }
    }
}
