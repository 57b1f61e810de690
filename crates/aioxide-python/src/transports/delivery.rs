//! Handing a stream's bytes to its protocol: whole to a plain one, into its own memory to a buffered one, as they lie to
//! our TLS.
//!
//! # Invariant
//! Each piece may be answered with another protocol, with a pause or with the end; what was not handed over then is held
//! or dropped with the connection, never delivered twice.

use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::protocol::{Manner, Protocol};
use super::stream::{Borrow, Event, Kind, Phase, StreamTransport};
use super::streams;
use super::tls::transport::TlsTransport;
use crate::ffi::buffer::Contiguous;

impl StreamTransport {
    /// Give bytes to the protocol; none at all is the end of file.
    pub(super) fn deliver(slf: &Bound<'_, Self>, data: &[u8]) -> PyResult<()> {
        let mut rest = data;
        loop {
            // Each piece may be answered with another protocol, of the other kind.
            let manner = slf.state().manner();
            if rest.is_empty() {
                return Self::handle_end_of_file(slf);
            }
            match manner {
                Manner::Tls => {
                    if let Some(tls) = Self::tls_protocol(slf) {
                        return Self::fail_for_protocol(slf, TlsTransport::handle_data(&tls, rest));
                    }
                }
                Manner::Streams => return Self::deliver_to_streams(slf, rest),
                Manner::Plain => return Self::deliver_bytes(slf, PyBytes::new(slf.py(), rest)),
                Manner::Buffered => {}
            }
            let Some(mut memory) = Self::protocol_memory(slf)? else { return Ok(()) };
            let copied = memory.write(|memory| {
                let length = memory.len().min(rest.len());
                memory[..length].copy_from_slice(&rest[..length]);
                length
            });
            drop(memory);
            match copied {
                Ok(length) => {
                    rest = &rest[length..];
                    let told = Self::tell_updated(slf, length);
                    let paused = {
                        let mut transport = slf.state_mut();
                        if rest.is_empty() || transport.phase != Phase::Open {
                            return told;
                        }
                        let paused = transport.reading.paused;
                        if paused || told.is_err() {
                            transport.reading.held.push_front(rest.to_vec());
                        }
                        paused
                    };
                    if let Err(error) = told {
                        // It ends the loop; who runs it again gets the rest.
                        Self::schedule(slf, Event::DeliverHeld)?;
                        return Err(error);
                    }
                    if paused {
                        return Ok(());
                    }
                }
                Err(error) => {
                    return Self::fail(slf, error, "Fatal error: protocol.get_buffer() call failed.");
                }
            }
        }
    }

    /// Feed asyncio's streams from here, or let them be called if anything about them is unusual.
    fn deliver_to_streams(slf: &Bound<'_, Self>, data: &[u8]) -> PyResult<()> {
        let py = slf.py();
        let (protocol, reader) = match &slf.state().protocol {
            Some(Protocol { reader: Some(reader), .. }) => (None, Some(reader.clone_ref(py))),
            Some(protocol) => (Some(protocol.object.clone_ref(py)), None),
            None => return Ok(()),
        };
        let fed = match (&reader, &protocol) {
            (Some(reader), _) => streams::feed_own(reader.bind(py), data).map(|()| true),
            (None, Some(protocol)) => streams::feed(protocol.bind(py), data),
            (None, None) => Ok(true),
        };
        match fed {
            Ok(true) => Ok(()),
            Ok(false) => Self::deliver_bytes(slf, PyBytes::new(py, data)),
            Err(error) => Self::data_not_received(slf, error),
        }
    }

    pub(super) fn deliver_bytes(slf: &Bound<'_, Self>, data: Bound<'_, PyBytes>) -> PyResult<()> {
        if data.as_bytes().is_empty() {
            return Self::handle_end_of_file(slf);
        }
        let py = slf.py();
        let method = intern!(py, "data_received");
        match Self::call_protocol(slf, method, Some(data.as_any().as_borrowed())) {
            Ok(_) => Ok(()),
            Err(error) => Self::data_not_received(slf, error),
        }
    }

    fn data_not_received(slf: &Bound<'_, Self>, error: PyErr) -> PyResult<()> {
        // A pipe is read on, as by asyncio; the error is reported.
        if slf.get().kind != Kind::Socket {
            return Err(error);
        }
        Self::fail(slf, error, "Fatal error: protocol.data_received() call failed.")
    }

    /// Ask a buffered protocol for memory; `None` where that failed and the transport was closed for it.
    pub(super) fn protocol_memory(slf: &Bound<'_, Self>) -> PyResult<Option<Contiguous>> {
        let py = slf.py();
        let size_hint = (-1_i32).into_pyobject(py)?;
        let memory =
            Self::call_protocol(slf, intern!(py, "get_buffer"), Some(size_hint.as_any().as_borrowed()))
                .and_then(|memory| Contiguous::of(&memory))
                .and_then(|memory| match memory.len() {
                    0 => Err(PyRuntimeError::new_err("get_buffer() returned an empty buffer")),
                    _ => Ok(memory),
                });
        match memory {
            Ok(memory) => Ok(Some(memory)),
            Err(error) => {
                Self::fail(slf, error, "Fatal error: protocol.get_buffer() call failed.")?;
                Ok(None)
            }
        }
    }

    pub(super) fn tell_updated(slf: &Bound<'_, Self>, length: usize) -> PyResult<()> {
        let py = slf.py();
        let length = length.into_pyobject(py)?;
        let method = intern!(py, "buffer_updated");
        match Self::call_protocol(slf, method, Some(length.as_any().as_borrowed())) {
            Ok(_) => Ok(()),
            Err(error) => Self::fail(slf, error, "Fatal error: protocol.buffer_updated() call failed."),
        }
    }

    /// The peer will send no more: a socket's protocol says whether writing goes on; a pipe is over.
    pub(super) fn handle_end_of_file(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        slf.state_mut().reading.ended = true;
        Self::suspend_reading(slf)?;
        if slf.get().kind != Kind::Socket {
            Self::begin_closing(slf)?;
            return Self::call_protocol(slf, intern!(py, "eof_received"), None).map(drop);
        }
        let answer = Self::call_protocol(slf, intern!(py, "eof_received"), None);
        let keeps_open = match answer.and_then(|answer| answer.is_truthy()) {
            Ok(keeps_open) => keeps_open,
            Err(error) => {
                return Self::fail(slf, error, "Fatal error: protocol.eof_received() call failed.");
            }
        };
        if keeps_open { Ok(()) } else { Self::begin_closing(slf) }
    }

    /// The protocol, where it is our TLS.
    pub(super) fn tls_protocol<'py>(slf: &Bound<'py, Self>) -> Option<Bound<'py, TlsTransport>> {
        let transport = slf.state();
        let protocol = transport.protocol.as_ref().filter(|protocol| protocol.manner == Manner::Tls)?;
        protocol.object.bind(slf.py()).cast::<TlsTransport>().ok().cloned()
    }

    /// End the connection for an error of TLS's own.
    pub(super) fn fail_for_protocol(slf: &Bound<'_, Self>, result: PyResult<()>) -> PyResult<()> {
        let Err(error) = result else { return Ok(()) };
        Self::fail(slf, error, "Fatal error: protocol.buffer_updated() call failed.")
    }
}
