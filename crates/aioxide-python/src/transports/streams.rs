//! asyncio's streams as they are, fed without calling them.
//!
//! `StreamReaderProtocol.data_received` and `StreamReader.feed_data` are Python that runs for every chunk. What they do is
//! done here to the same attributes, so that everything else of the two classes stays their own: `connection_made`, the
//! end of the stream, errors. Whatever is unusual is left to them: another class, a method replaced, a full buffer, a
//! stream that has ended.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyWeakrefReference};

use crate::ffi::{bound_method, byte_array, call};
use crate::imports::{Streams, imports};
use crate::streams;
use crate::streams::reader::StreamReader;

/// Whether a protocol is of the kind that may be fed.
pub fn are_fed(protocol: &Bound<'_, PyAny>) -> PyResult<bool> {
    let streams = imports(protocol.py())?.streams.as_ref();
    let is_known =
        |streams: &Streams| protocol.get_type().is(&streams.protocol) || streams::is_our_protocol(protocol);
    Ok(streams.is_some_and(is_known))
}

/// The reader behind our own protocol, which feeds it without being asked each time.
pub fn own_reader(protocol: &Bound<'_, PyAny>) -> Option<Py<PyWeakrefReference>> {
    if !streams::is_our_protocol(protocol) {
        return None;
    }
    let py = protocol.py();
    let streams = imports(py).ok()?.streams.as_ref()?;
    let data_received = streams.data_received.bind_borrowed(py);
    if !bound_method::is_function(protocol, intern!(py, "data_received"), data_received) {
        return None;
    }
    let reader = protocol.getattr(intern!(py, "_stream_reader_wr")).ok()?;
    let reader = reader.cast_into::<PyWeakrefReference>().ok()?;
    reader.upgrade().is_some_and(|reader| streams::is_our_reader(&reader)).then(|| reader.unbind())
}

/// Feed the reader that `own_reader` found.
pub fn feed_own(reader: &Bound<'_, PyWeakrefReference>, data: &[u8]) -> PyResult<()> {
    let Some(reader) = reader.upgrade() else {
        // Nobody wants it any more.
        return Ok(());
    };
    StreamReader::feed(reader.cast::<StreamReader>()?, data)
}

/// Do what `protocol.data_received(data)` does; `false` where nothing was done, and it must be called.
pub fn feed(protocol: &Bound<'_, PyAny>, data: &[u8]) -> PyResult<bool> {
    let py = protocol.py();
    let Some(streams) = imports(py)?.streams.as_ref() else { return Ok(false) };
    let name = intern!(py, "data_received");
    if !bound_method::is_function(protocol, name, streams.data_received.bind_borrowed(py)) {
        return Ok(false);
    }
    let Ok(reader) = protocol.getattr(intern!(py, "_stream_reader_wr")) else { return Ok(false) };
    let Ok(reader) = reader.cast_into::<PyWeakrefReference>() else { return Ok(false) };
    match reader.upgrade() {
        Some(reader) => feed_reader(&reader, streams, data),
        // Nobody wants it any more.
        None => Ok(true),
    }
}

/// Do what `reader.feed_data(data)` does; `false` where nothing was done.
fn feed_reader(reader: &Bound<'_, PyAny>, streams: &Streams, data: &[u8]) -> PyResult<bool> {
    let py = reader.py();
    if streams::is_our_reader(reader)
        && let Ok(reader) = reader.cast::<StreamReader>()
    {
        return StreamReader::feed(reader, data).map(|()| true);
    }
    let feed_data = streams.feed_data.bind_borrowed(py);
    if !reader.get_type().is(&streams.reader)
        || !bound_method::is_function(reader, intern!(py, "feed_data"), feed_data)
    {
        return Ok(false);
    }
    let Ok(buffer) = reader.getattr(intern!(py, "_buffer")) else { return Ok(false) };
    let Ok(buffer) = buffer.cast_into_exact::<PyByteArray>() else { return Ok(false) };
    let length = buffer.len() + data.len();
    let Ok(limit) = reader.getattr(intern!(py, "_limit")).and_then(|limit| limit.extract::<usize>()) else {
        return Ok(false);
    };
    let has_ended = reader.getattr(intern!(py, "_eof")).and_then(|eof| eof.is_truthy());
    if length > limit.saturating_mul(2) || !matches!(has_ended, Ok(false)) {
        return Ok(false);
    }
    byte_array::append(&buffer, data)?;
    wake_waiter(reader)?;
    Ok(true)
}

/// Do what `reader._wakeup_waiter()` does.
fn wake_waiter(reader: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = reader.py();
    let name = intern!(py, "_waiter");
    let waiter = reader.getattr(name)?;
    if waiter.is_none() {
        return Ok(());
    }
    reader.setattr(name, py.None())?;
    let waiter = waiter.as_borrowed();
    if !call::call_method(waiter, intern!(py, "cancelled"), &[])?.is_truthy()? {
        call::call_method(waiter, intern!(py, "set_result"), &[py.None().bind_borrowed(py)])?;
    }
    Ok(())
}
