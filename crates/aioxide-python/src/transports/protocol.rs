//! Calling a transport's protocol.
//!
//! The caller's context is the right one: an event is handled in the transport's own, and what a method of the
//! transport calls at once (`pause_writing` during `write`) runs in that of who called the method, as with
//! asyncio.

use pyo3::prelude::*;
use pyo3::types::{PyString, PyWeakrefReference};
use pyo3::{Borrowed, intern};

use super::stream::{Borrow, StreamTransport};
use super::streams;
use super::tls::transport::TlsTransport;
use crate::event_loop::EventLoop;
use crate::ffi::call;
use crate::imports::imports;

/// A protocol and how it wants its bytes.
pub struct Protocol {
    /// The user's object.
    pub object: Py<PyAny>,
    /// How it wants them.
    pub manner: Manner,
    /// Who gets them, where both are our own streams.
    pub reader: Option<Py<PyWeakrefReference>>,
}

/// How a protocol wants its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// As `bytes`, by `data_received`.
    Plain,
    /// In memory of its own: a `BufferedProtocol`.
    Buffered,
    /// As they lie: our TLS.
    Tls,
    /// As they lie, as long as nothing about it is unusual: asyncio's streams.
    Streams,
}

impl Manner {
    /// Whether bytes need no Python object around them.
    pub fn takes_slices(self) -> bool {
        matches!(self, Self::Tls | Self::Streams)
    }
}

impl Protocol {
    /// Look at what kind of protocol an object is.
    pub fn new(object: Bound<'_, PyAny>) -> PyResult<Self> {
        let py = object.py();
        let imports = imports(py)?;
        let manner = if object.is_exact_instance_of::<TlsTransport>() {
            Manner::Tls
        } else if streams::are_fed(&object)? {
            Manner::Streams
        } else if object.is_instance(imports.buffered_protocol.bind(py))? {
            Manner::Buffered
        } else {
            Manner::Plain
        };
        let reader = if manner == Manner::Streams { streams::own_reader(&object) } else { None };
        Ok(Self { object: object.unbind(), manner, reader })
    }
}

impl StreamTransport {
    /// Call a method of the protocol, if there is one still.
    pub fn call_protocol<'py>(
        slf: &Bound<'py, Self>,
        method: &Bound<'py, PyString>,
        argument: Option<Borrowed<'_, 'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let protocol = match &slf.state().protocol {
            Some(protocol) => protocol.object.clone_ref(py),
            None => return Ok(py.None().into_bound(py)),
        };
        call::call_method(protocol.bind_borrowed(py), method, argument.as_slice())
    }

    /// Ask the protocol to stop writing, where its buffer is above the high-water mark.
    pub fn pause_protocol_if_full(slf: &Bound<'_, Self>) -> PyResult<()> {
        {
            let mut transport = slf.state_mut();
            let writing = &mut transport.writing;
            if writing.marks.protocol_paused || !writing.is_above_high() {
                return Ok(());
            }
            writing.marks.protocol_paused = true;
        }
        Self::call_flow_control(slf, intern!(slf.py(), "pause_writing"))
    }

    /// Let the protocol write again, where its buffer fell to the low-water mark.
    pub fn resume_protocol_if_drained(slf: &Bound<'_, Self>) -> PyResult<()> {
        {
            let mut transport = slf.state_mut();
            let writing = &mut transport.writing;
            if !writing.marks.protocol_paused || writing.size > writing.marks.low {
                return Ok(());
            }
            writing.marks.protocol_paused = false;
        }
        Self::call_flow_control(slf, intern!(slf.py(), "resume_writing"))
    }

    fn call_flow_control(slf: &Bound<'_, Self>, method: &Bound<'_, PyString>) -> PyResult<()> {
        let Err(error) = Self::call_protocol(slf, method, None) else { return Ok(()) };
        Self::report(slf, &format!("protocol.{method}() failed"), error)
    }

    /// Report an exception with the transport and its protocol.
    pub fn report(slf: &Bound<'_, Self>, message: &str, error: PyErr) -> PyResult<()> {
        let py = slf.py();
        let (event_loop, protocol) = {
            let transport = slf.state();
            let protocol = transport.protocol.as_ref().map(|protocol| protocol.object.clone_ref(py));
            (&slf.get().event_loop, protocol)
        };
        let protocol = protocol.unwrap_or_else(|| py.None());
        let concerning = [("transport", slf.as_any()), ("protocol", protocol.bind(py))];
        EventLoop::report_error(event_loop.bind(py), message, error, &concerning)
    }
}
