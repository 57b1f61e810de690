//! TLS by Python's objects alone: an `ssl.SSLObject` between two `ssl.MemoryBIO`s. It works with every Python, every
//! OpenSSL and every context.

use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;
use pyo3::types::{PyBytes, PyMemoryView};
use pyo3::{PyTraverseError, intern};

use super::engine::{Answer, End, SIZE, classify, ssl};
use super::scratch::{self, TlsScratch};
use super::transport::empty_buffer;
use crate::event_loop::EventLoop;
use crate::ffi::buffer::{Contiguous, with_view};
use crate::ffi::call;

/// The two memories, before there is an object between them.
pub struct Ends {
    pub incoming: Py<PyAny>,
    pub outgoing: Py<PyAny>,
}

/// The memories and the object.
pub struct MemoryBios {
    ends: Ends,
    /// What reads and writes: the C object inside the `SSLObject`, which saves a Python frame, or that one itself.
    inner: Py<PyAny>,
}

impl Ends {
    /// Make them.
    pub fn new(py: Python<'_>) -> PyResult<Self> {
        let memory_bio = ssl(py)?.memory_bio.bind(py);
        Ok(Self { incoming: memory_bio.call0()?.unbind(), outgoing: memory_bio.call0()?.unbind() })
    }
}

impl MemoryBios {
    /// Of an object between these ends.
    pub fn new(ends: Ends, inner: Py<PyAny>) -> Self {
        Self { ends, inner }
    }

    /// Take cipher text from the peer.
    pub fn feed(&self, py: Python<'_>, data: &[u8]) -> PyResult<()> {
        // A MemoryBIO copies what it is given.
        with_view(py, data, |view| self.ends.incoming.bind(py).call_method1(intern!(py, "write"), (view,)))?;
        Ok(())
    }

    /// How many bytes from the peer are undeciphered.
    pub fn incoming_size(&self, py: Python<'_>) -> PyResult<usize> {
        self.ends.incoming.bind(py).getattr(intern!(py, "pending"))?.extract()
    }

    /// How many bytes for the peer were not taken yet.
    pub fn outgoing_size(&self, py: Python<'_>) -> PyResult<usize> {
        self.ends.outgoing.bind(py).getattr(intern!(py, "pending"))?.extract()
    }

    /// Take the cipher text for the peer, if there is any.
    pub fn take_outgoing<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let data = self.ends.outgoing.bind(py).call_method0(intern!(py, "read"))?.cast_into::<PyBytes>()?;
        Ok(Some(data).filter(|data| !data.as_bytes().is_empty()))
    }

    /// Decipher what came.
    pub fn read_bytes<'py>(
        &self,
        py: Python<'py>,
        event_loop: &EventLoop,
    ) -> PyResult<(Option<Bound<'py, PyBytes>>, End)> {
        let scratch = TlsScratch::take(event_loop, py)?;
        let deciphered = self.decipher(py, SIZE, |start| scratch.from(py, start));
        let data = deciphered.and_then(|(length, end)| {
            let data = match length {
                0 => None,
                _ => Some(scratch.read(py, length, |data| PyBytes::new(py, data))?),
            };
            Ok((data, end))
        });
        scratch.give_back(event_loop)?;
        data
    }

    /// The same into the memory of an object.
    pub fn read_into(&self, py: Python<'_>, memory: &Bound<'_, PyAny>) -> PyResult<(usize, End)> {
        let size = Contiguous::of(memory)?.len();
        if size == 0 {
            return Err(empty_buffer());
        }
        self.decipher(py, size, |start| {
            if start == 0 {
                return Ok(memory.clone());
            }
            scratch::slice(&PyMemoryView::from(memory)?, start, size)
        })
    }

    /// Decipher all that came and forget it.
    pub fn discard(&self, py: Python<'_>, event_loop: &EventLoop) -> PyResult<()> {
        let scratch = TlsScratch::take(event_loop, py)?;
        let discarded = loop {
            match self.decipher(py, SIZE, |start| scratch.from(py, start)) {
                Ok((_, End::Full)) => {}
                Ok((_, End::Drained | End::Goodbye)) => break Ok(()),
                Ok((_, End::Failed(error))) | Err(error) => break Err(error),
            }
        };
        scratch.give_back(event_loop)?;
        discarded
    }

    /// Encipher `data`.
    pub fn write(&self, py: Python<'_>, data: &[u8]) -> PyResult<Answer<usize>> {
        // OpenSSL copies into a record; where it wants to be called again, it is given the same bytes again.
        let written = with_view(py, data, |view| {
            call::call_method(self.inner.bind_borrowed(py), intern!(py, "write"), &[view.as_borrowed()])
        });
        classify(py, written.and_then(|length| length.extract()))
    }

    /// Show the garbage collector what is kept alive.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.inner)?;
        visit.call(&self.ends.incoming)?;
        visit.call(&self.ends.outgoing)
    }

    /// Decipher into the memory that `memory(start)` gives, up to `size` bytes; returns how many.
    fn decipher<'py>(
        &self,
        py: Python<'py>,
        size: usize,
        memory: impl Fn(usize) -> PyResult<Bound<'py, PyAny>>,
    ) -> PyResult<(usize, End)> {
        let mut length = 0;
        while length < size {
            match self.read(py, size - length, &memory(length)?) {
                Ok(Answer::Wants) => return Ok((length, End::Drained)),
                Ok(Answer::Done(0)) => return Ok((length, End::Goodbye)),
                Ok(Answer::Done(more)) => length += more,
                // What came before it is good.
                Err(error) => return Ok((length, End::Failed(error))),
            }
            if !self.may_have_more(py)? {
                return Ok((length, End::Drained));
            }
        }
        Ok((length, End::Full))
    }

    /// Decipher up to `length` bytes into `memory`; zero says that the peer will send no more.
    fn read(&self, py: Python<'_>, length: usize, memory: &Bound<'_, PyAny>) -> PyResult<Answer<usize>> {
        let length = length.into_pyobject(py)?;
        let arguments = [length.as_any().as_borrowed(), memory.as_borrowed()];
        let read = call::call_method(self.inner.bind_borrowed(py), intern!(py, "read"), &arguments);
        match classify(py, read.and_then(|length| length.extract())) {
            // Python says it so once we have said goodbye ourselves.
            Err(error) if error.matches(py, &ssl(py)?.zero_return)? => Ok(Answer::Done(0)),
            answer => answer,
        }
    }

    /// Whether a read may yield more. Asking costs a tenth of the exception that says no.
    fn may_have_more(&self, py: Python<'_>) -> PyResult<bool> {
        if self.incoming_size(py)? > 0 {
            return Ok(true);
        }
        Ok(self.inner.bind(py).call_method0(intern!(py, "pending"))?.extract::<usize>()? > 0)
    }
}
