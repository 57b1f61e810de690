//! Replies as Python objects, and their way to whom they are for.
//!
//! The shapes are those of redis-py's own parser of RESP3: sets are lists, maps are dicts, verbatim strings lose their
//! format, big numbers are ints. An error inside an aggregate is an exception object there.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use aioxide_redis::Error;
use aioxide_redis::connection::receiver::Receiver;
use aioxide_redis::proto::ReplyBuilder;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList};

use super::arguments::Encoding;
use super::call::Pending;
use crate::awaitable::waiter::Waiter;
use crate::callback::Callback;
use crate::event_loop::EventLoop;
use crate::ffi::call;
use crate::ffi::gil_cell::GilCell;

/// What a reply became.
pub enum Reply {
    /// An object.
    Value(Py<PyAny>),
    /// The exception that the server's error means.
    Error(Py<PyAny>),
    /// It could not be made: text that is not text in the encoding, memory that is not there.
    Failed(PyErr),
}

impl Reply {
    fn of<T>(made: PyResult<Bound<'_, T>>) -> Self {
        match made {
            Ok(object) => Self::Value(object.into_any().unbind()),
            Err(error) => Self::Failed(error),
        }
    }
}

/// When so many messages wait to be taken, nothing more is read until half of them are.
pub const CROWDED_MAILBOX: usize = 4096;

/// Messages that nobody asked for, until somebody takes them.
#[derive(Default)]
pub struct Mailbox {
    pub messages: RefCell<VecDeque<Reply>>,
    /// Who waits for the next.
    pub waiter: RefCell<Option<Py<Waiter>>>,
    /// Why the last connection ended.
    pub error: RefCell<Option<Error>>,
}

/// Makes Python objects of the replies of one connection.
pub struct Objects {
    pub event_loop: Py<EventLoop>,
    /// Makes an exception of an error's text.
    pub parse_error: Py<PyAny>,
    pub encoding: Encoding,
    /// What holds for messages that nobody asked for.
    pub decodes: bool,
    /// Whether the reply that is being made is decoded.
    pub decodes_now: bool,
    /// Where messages go, if anybody wants them.
    pub mailbox: Option<Rc<Mailbox>>,
}

impl Objects {
    fn text(&self, bytes: &[u8]) -> Reply {
        Python::attach(|py| {
            if !self.decodes_now {
                return Reply::Value(PyBytes::new(py, bytes).into_any().unbind());
            }
            self.encoding.decode(py, bytes).map_or_else(Reply::Failed, Reply::Value)
        })
    }

    /// Lets the task of a waiter go on.
    fn wake(&self, waiter: Py<Waiter>) {
        self.event_loop.get().hand_in(Callback::Wake(waiter), true);
    }

    fn tell_mailbox(&self) {
        let waiter = self.mailbox.as_ref().and_then(|mailbox| mailbox.waiter.borrow_mut().take());
        if let Some(waiter) = waiter {
            self.wake(waiter);
        }
    }
}

impl Receiver for Objects {
    type Slot = Arc<GilCell<Pending>>;

    fn begin(&mut self, slot: Option<&Self::Slot>) {
        self.decodes_now = match slot {
            Some(slot) => Python::attach(|py| slot.borrow(py).decodes),
            None => self.decodes,
        };
    }

    fn deliver(&mut self, slot: &mut Self::Slot, reply: Reply) {
        let waiter = Python::attach(|py| slot.borrow_mut(py).add(reply));
        if let Some(waiter) = waiter {
            self.wake(waiter);
        }
    }

    fn fail(&mut self, slot: Self::Slot, error: Error) {
        let waiter = Python::attach(|py| slot.borrow_mut(py).fail(error));
        if let Some(waiter) = waiter {
            self.wake(waiter);
        }
    }

    fn push(&mut self, message: Reply) {
        if let Some(mailbox) = &self.mailbox {
            mailbox.messages.borrow_mut().push_back(message);
            self.tell_mailbox();
        }
    }

    fn is_full(&self) -> bool {
        self.mailbox.as_ref().is_some_and(|mailbox| mailbox.messages.borrow().len() >= CROWDED_MAILBOX)
    }

    fn disconnected(&mut self, error: &Error) {
        if let Some(mailbox) = &self.mailbox {
            let previous = mailbox.error.replace(Some(error.share(true)));
            drop(previous);
            self.tell_mailbox();
        }
    }
}

impl ReplyBuilder for Objects {
    type Reply = Reply;

    fn null(&mut self) -> Reply {
        Python::attach(|py| Reply::Value(py.None()))
    }

    fn simple_string(&mut self, text: &[u8]) -> Reply {
        self.text(text)
    }

    fn error(&mut self, text: &[u8]) -> Reply {
        Python::attach(|py| {
            let text = String::from_utf8_lossy(text);
            match call::call_object(self.parse_error.bind(py), (text,), None) {
                Ok(exception) => Reply::Error(exception.unbind()),
                Err(error) => Reply::Failed(error),
            }
        })
    }

    fn integer(&mut self, value: i64) -> Reply {
        Python::attach(|py| Reply::Value(PyInt::new(py, value).into_any().unbind()))
    }

    fn bulk_string(&mut self, bytes: &[u8]) -> Reply {
        self.text(bytes)
    }

    fn boolean(&mut self, value: bool) -> Reply {
        Python::attach(|py| Reply::Value(PyBool::new(py, value).to_owned().into_any().unbind()))
    }

    fn double(&mut self, value: f64) -> Reply {
        Python::attach(|py| Reply::Value(PyFloat::new(py, value).into_any().unbind()))
    }

    fn big_number(&mut self, digits: &[u8]) -> Reply {
        Python::attach(|py| {
            let Ok(digits) = std::str::from_utf8(digits) else {
                return Reply::Failed(PyValueError::new_err("a big number is not a number"));
            };
            Reply::of(py.get_type::<PyInt>().call1((digits,)))
        })
    }

    fn verbatim_string(&mut self, _format: [u8; 3], text: &[u8]) -> Reply {
        self.text(text)
    }

    fn array(&mut self, items: Vec<Reply>) -> Reply {
        let mut objects = Vec::with_capacity(items.len());
        for item in items {
            match item {
                Reply::Value(object) | Reply::Error(object) => objects.push(object),
                Reply::Failed(error) => return Reply::Failed(error),
            }
        }
        Python::attach(|py| Reply::of(PyList::new(py, objects)))
    }

    fn set(&mut self, items: Vec<Reply>) -> Reply {
        self.array(items)
    }

    fn map(&mut self, pairs: Vec<(Reply, Reply)>) -> Reply {
        Python::attach(|py| {
            let dict = PyDict::new(py);
            for pair in pairs {
                let (key, value) = match pair {
                    (Reply::Failed(error), _) | (_, Reply::Failed(error)) => return Reply::Failed(error),
                    (Reply::Value(key) | Reply::Error(key), Reply::Value(value) | Reply::Error(value)) => {
                        (key, value)
                    }
                };
                if let Err(error) = dict.set_item(key, value) {
                    return Reply::Failed(error);
                }
            }
            Reply::of(Ok(dict))
        })
    }
}
