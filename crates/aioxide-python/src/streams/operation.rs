//! The methods of streams that may wait, as work of an [`Awaitable`](crate::awaitable::Awaitable).

use std::mem;

use pyo3::exceptions::{PyConnectionResetError, PyRuntimeError, PyStopIteration};
use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;
use pyo3::{PyTraverseError, intern};

use super::reader::StreamReader;
use super::reading::Request;
use super::writer::StreamWriter;
use crate::awaitable::Step;
use crate::awaitable::waiter::Waiter;
use crate::error::{ThinErr, ThinResult};
use crate::ffi::call;

/// What a stream was asked for.
pub enum Operation {
    /// Bytes.
    Read(Read),
    /// To wait for room.
    Drain(Drain),
}

impl Operation {
    /// Go on.
    pub fn advance(&mut self, py: Python<'_>) -> ThinResult<Step> {
        match self {
            Self::Read(read) => read.advance(py),
            Self::Drain(drain) => drain.advance(py),
        }
    }

    /// End with an exception.
    pub fn throw(&mut self, py: Python<'_>, error: ThinErr) -> ThinResult<Step> {
        match self {
            Self::Read(read) => {
                read.stop_waiting(py);
                Err(error)
            }
            Self::Drain(drain) => drain.throw(py, error),
        }
    }

    /// Whether it still waits.
    pub fn is_waiting(&self, py: Python<'_>) -> bool {
        match self {
            Self::Read(read) => read.waiter.as_ref().is_some_and(|waiter| waiter.get().is_pending(py)),
            Self::Drain(_) => false,
        }
    }

    /// Show the garbage collector what this keeps alive.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Self::Read(read) => {
                visit.call(&read.reader)?;
                visit.call(&read.waiter)
            }
            Self::Drain(drain) => {
                visit.call(&drain.writer)?;
                match &drain.stage {
                    Stage::Helper(helper) => visit.call(helper),
                    Stage::Begin | Stage::Yielded => Ok(()),
                }
            }
        }
    }
}

impl Drop for Operation {
    /// Closed or forgotten while it waited.
    fn drop(&mut self) {
        if let Self::Read(read) = self
            && read.waiter.is_some()
        {
            // Without an interpreter there is no reader to tell.
            let _ = Python::try_attach(|py| read.stop_waiting(py));
        }
    }
}

/// A read of any kind.
pub struct Read {
    reader: Py<StreamReader>,
    request: Request,
    has_begun: bool,
    waiter: Option<Py<Waiter>>,
}

impl Read {
    /// Of `reader`.
    pub fn new(reader: Py<StreamReader>, request: Request) -> Self {
        Self { reader, request, has_begun: false, waiter: None }
    }

    fn advance(&mut self, py: Python<'_>) -> ThinResult<Step> {
        self.stop_waiting(py);
        let reader = self.reader.bind(py);
        if !mem::replace(&mut self.has_begun, true) {
            self.request.check(py)?;
            if let Some(failure) = StreamReader::failure(reader) {
                return Err(failure.into());
            }
        }
        if let Some(answer) = StreamReader::answer(reader, &mut self.request)? {
            return Ok(Step::Done(answer));
        }
        let waiter = StreamReader::wait(reader, self.request.method())?;
        self.waiter = Some(waiter.clone_ref(py));
        Ok(Step::Yield(waiter.into_any()))
    }

    fn stop_waiting(&mut self, py: Python<'_>) {
        if let Some(waiter) = self.waiter.take() {
            StreamReader::forget(self.reader.bind(py), &waiter);
        }
    }
}

/// `drain()`.
pub struct Drain {
    writer: Py<StreamWriter>,
    stage: Stage,
}

/// How far a drain is.
enum Stage {
    /// At its beginning.
    Begin,
    /// It let the loop take a turn, in which a closing transport may be lost.
    Yielded,
    /// The protocol's own coroutine waits.
    Helper(Py<PyAny>),
}

impl Drain {
    /// Of `writer`.
    pub fn new(writer: Py<StreamWriter>) -> Self {
        Self { writer, stage: Stage::Begin }
    }

    fn advance(&mut self, py: Python<'_>) -> ThinResult<Step> {
        let writer = self.writer.bind(py);
        match &self.stage {
            Stage::Begin => {
                StreamWriter::check_reader(writer)?;
                if StreamWriter::is_closing_transport(writer)? {
                    self.stage = Stage::Yielded;
                    return Ok(Step::Yield(py.None()));
                }
                self.wait_for_protocol(py)
            }
            Stage::Yielded => self.wait_for_protocol(py),
            Stage::Helper(helper) => send_none(helper.bind(py)),
        }
    }

    fn wait_for_protocol(&mut self, py: Python<'_>) -> ThinResult<Step> {
        let protocol = StreamWriter::protocol_of(self.writer.bind(py), py)?;
        if super::is_our_protocol(&protocol) {
            if protocol.getattr(intern!(py, "_connection_lost"))?.is_truthy()? {
                return Err(PyConnectionResetError::new_err("Connection lost").into());
            }
            if !protocol.getattr(intern!(py, "_paused"))?.is_truthy()? {
                return Ok(Step::Done(py.None()));
            }
        }
        let helper = call::call_method(protocol.as_borrowed(), intern!(py, "_drain_helper"), &[])?.unbind();
        let first = send_none(helper.bind(py));
        self.stage = Stage::Helper(helper);
        first
    }

    fn throw(&mut self, py: Python<'_>, error: ThinErr) -> ThinResult<Step> {
        match &self.stage {
            Stage::Helper(helper) => {
                let throw = intern!(py, "throw");
                forward(
                    py,
                    call::call_method_of(helper.bind(py), throw, (PyErr::from(error).into_value(py),)),
                )
            }
            Stage::Begin | Stage::Yielded => Err(error),
        }
    }
}

/// Let a coroutine that is awaited within go on.
fn send_none(coroutine: &Bound<'_, PyAny>) -> ThinResult<Step> {
    let py = coroutine.py();
    forward(py, call::call_method_of(coroutine, intern!(py, "send"), (py.None(),)))
}

/// What a coroutine that is awaited within answered.
fn forward(py: Python<'_>, answer: PyResult<Bound<'_, PyAny>>) -> ThinResult<Step> {
    match answer {
        Ok(yielded) => Ok(Step::Yield(yielded.unbind())),
        Err(error) if error.is_instance_of::<PyStopIteration>(py) => {
            Ok(Step::Done(error.value(py).getattr(intern!(py, "value"))?.unbind()))
        }
        Err(error) => Err(error.into()),
    }
}

/// The error of an object whose `__init__` was not called.
pub fn not_initialised(class: &str) -> PyErr {
    PyRuntimeError::new_err(format!("{class}.__init__() was not called"))
}
