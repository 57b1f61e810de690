//! Python's arguments as the bytes of a command, as redis-py encodes them: bytes as they are, text in the client's
//! encoding, numbers by their repr; anything else is refused.

use std::sync::Arc;

use aioxide_redis::proto::encoder;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyByteArray, PyBytes, PyFloat, PyInt, PyMemoryView, PyString, PyTuple};
use pyo3::{Borrowed, PyErr};

use crate::ffi::buffer::Contiguous;
use crate::ffi::call;

/// How text becomes bytes, and bytes text.
#[derive(Clone, Debug)]
pub enum Encoding {
    /// UTF-8, without exceptions.
    Utf8,
    /// One of Python's, by its name, and what to do about errors.
    Named(Arc<(String, String)>),
}

impl Encoding {
    /// The encoding that Python calls so.
    pub fn named(name: String, errors: String) -> Self {
        let is_utf8 = matches!(&*name.to_ascii_lowercase().replace('_', "-"), "utf-8" | "utf8");
        if is_utf8 && errors == "strict" { Self::Utf8 } else { Self::Named(Arc::new((name, errors))) }
    }

    /// Text for bytes.
    pub fn decode(&self, py: Python<'_>, bytes: &[u8]) -> PyResult<Py<PyAny>> {
        match self {
            Self::Utf8 => match std::str::from_utf8(bytes) {
                Ok(text) => Ok(PyString::new(py, text).into_any().unbind()),
                // Python's own error says where and why.
                Err(_) => decode(py, bytes, "utf-8", "strict"),
            },
            Self::Named(named) => decode(py, bytes, &named.0, &named.1),
        }
    }
}

fn decode(py: Python<'_>, bytes: &[u8], encoding: &str, errors: &str) -> PyResult<Py<PyAny>> {
    let method = PyBytes::new(py, bytes).into_any().getattr(intern!(py, "decode"))?;
    call::call_object(&method, (encoding, errors), None).map(Bound::unbind)
}

/// Append a command to `buffer`; what is half-way there when an argument is refused stays for the caller to cut off.
///
/// `refuse` makes the exception for an argument of a type that has no encoding.
pub fn encode(
    arguments: &Bound<'_, PyTuple>,
    encoding: &Encoding,
    buffer: &mut Vec<u8>,
    refuse: impl Fn(&Bound<'_, PyAny>) -> PyErr,
) -> PyResult<()> {
    let py = arguments.py();
    let Ok(first) = arguments.get_borrowed_item(0) else {
        return Err(pyo3::exceptions::PyTypeError::new_err("a command has a name"));
    };
    let mut rest = arguments.len() - 1;
    if let Ok(name) = first.cast::<PyString>() {
        encode_name(buffer, name.to_str()?.as_bytes(), rest);
    } else if let Ok(name) = first.cast::<PyBytes>() {
        encode_name(buffer, name.as_bytes(), rest);
    } else {
        encoder::begin(buffer, rest + 1);
        encode_argument(py, first, encoding, buffer, &refuse)?;
    }
    for argument in arguments.iter_borrowed().skip(1) {
        encode_argument(py, argument, encoding, buffer, &refuse)?;
        rest -= 1;
    }
    debug_assert!(rest == 0, "a tuple changed its length");
    Ok(())
}

/// Append the beginning of a command with so many arguments behind its name; "CONFIG GET" is two words for the server.
fn encode_name(buffer: &mut Vec<u8>, name: &[u8], arguments: usize) {
    if !name.iter().any(u8::is_ascii_whitespace) {
        encoder::begin(buffer, 1 + arguments);
        encoder::bulk(buffer, name);
        return;
    }
    let words = || name.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    encoder::begin(buffer, words().count() + arguments);
    words().for_each(|word| encoder::bulk(buffer, word));
}

fn encode_argument(
    py: Python<'_>,
    argument: Borrowed<'_, '_, PyAny>,
    encoding: &Encoding,
    buffer: &mut Vec<u8>,
    refuse: &impl Fn(&Bound<'_, PyAny>) -> PyErr,
) -> PyResult<()> {
    if let Ok(bytes) = argument.cast::<PyBytes>() {
        encoder::bulk(buffer, bytes.as_bytes());
        return Ok(());
    }
    if let Ok(text) = argument.cast::<PyString>() {
        match encoding {
            Encoding::Utf8 => encoder::bulk(buffer, text.to_str()?.as_bytes()),
            Encoding::Named(named) => {
                let method = text.getattr(intern!(py, "encode"))?;
                let bytes = call::call_object(&method, (&named.0, &named.1), None)?;
                encoder::bulk(buffer, bytes.cast::<PyBytes>()?.as_bytes());
            }
        }
        return Ok(());
    }
    if let Ok(integer) = argument.cast_exact::<PyInt>()
        && let Ok(integer) = integer.extract::<i64>()
    {
        encoder::integer(buffer, integer);
        return Ok(());
    }
    if argument.is_instance_of::<PyBool>() {
        return Err(refuse(&argument));
    }
    if argument.is_instance_of::<PyInt>() || argument.is_instance_of::<PyFloat>() {
        encoder::bulk(buffer, argument.repr()?.to_str()?.as_bytes());
        return Ok(());
    }
    if argument.is_instance_of::<PyByteArray>() || argument.is_instance_of::<PyMemoryView>() {
        Contiguous::of(&argument)?.read(|bytes| encoder::bulk(buffer, bytes));
        return Ok(());
    }
    Err(refuse(&argument))
}
