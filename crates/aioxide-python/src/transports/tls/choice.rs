//! Which engine a connection gets: the direct one where it can be had, else Python's objects alone. The environment
//! variable `AIOXIDE_TLS` (`auto`, `python` or `direct`) chooses.

use std::ffi::OsStr;

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;

use super::direct::Direct;
use super::engine::{Answer, End, classify, inner_object, is_tls_error};
use super::memory_bio::Ends;
use crate::ffi::call;
use crate::ffi::memory::Memory;
use crate::ffi::openssl::{Library, Session};

const VARIABLE: &str = "AIOXIDE_TLS";

/// What the environment asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    /// The direct engine, if it can be had.
    Auto,
    /// The direct engine, or an error.
    Direct,
    /// Python's objects alone.
    Python,
}

fn wish() -> PyResult<Wish> {
    let value = std::env::var_os(VARIABLE).unwrap_or_default();
    match OsStr::to_str(&value) {
        Some("" | "auto") => Ok(Wish::Auto),
        Some("direct") => Ok(Wish::Direct),
        Some("python") => Ok(Wish::Python),
        _ => Err(PyValueError::new_err(format!("{VARIABLE}={value:?}: expected auto, python or direct"))),
    }
}

/// The library for a connection that may be handled directly; `None` where Python's objects must do.
pub fn library(py: Python<'_>) -> PyResult<Option<&'static Library>> {
    match (wish()?, found(py)?) {
        (Wish::Python, _) | (Wish::Auto, Err(_)) => Ok(None),
        (Wish::Auto | Wish::Direct, Ok(library)) => Ok(Some(library)),
        (Wish::Direct, Err(reason)) => Err(PyRuntimeError::new_err(format!("{VARIABLE}=direct: {reason}"))),
    }
}

/// Which engine connections get, and why.
pub fn describe(py: Python<'_>) -> PyResult<(&'static str, String)> {
    let asked = || format!("{VARIABLE} asks for it");
    let wish = wish()?;
    if wish == Wish::Python {
        return Ok(("python", asked()));
    }
    Ok(match found(py)? {
        Ok(_) if wish == Wish::Direct => ("direct", asked()),
        Ok(_) => ("direct", "Python's OpenSSL was found".to_owned()),
        Err(reason) => ("python", reason.clone()),
    })
}

/// Whether somebody listens to what a session's Python object (`ssl.SSLObject._sslobj`) hears of each message: it notes
/// exceptions, and raises them when it is asked for more.
pub fn needs_python(inner: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = inner.py();
    // Not the context that the user gave: that may have had another make the object.
    let context = inner.getattr(intern!(py, "context"))?;
    for name in [intern!(py, "_msg_callback"), intern!(py, "keylog_filename")] {
        if context.getattr_opt(name)?.is_some_and(|value| !value.is_none()) {
            return Ok(true);
        }
    }
    Ok(false)
}

static FOUND: PyOnceLock<Result<&'static Library, String>> = PyOnceLock::new();

/// Find the library and try it; a reason where that does not work.
fn found(py: Python<'_>) -> PyResult<&'static Result<&'static Library, String>> {
    FOUND.get_or_try_init(py, || {
        let flags: String = py.import("sys")?.getattr("abiflags")?.extract()?;
        if flags.contains('t') {
            return Ok(Err("several threads may use a session at once in this Python".to_owned()));
        }
        let Some(path) = py.import("_ssl")?.getattr_opt("__file__")?.filter(|path| !path.is_none()) else {
            return Ok(Err("OpenSSL is built into this Python".to_owned()));
        };
        let version: String = py.import("ssl")?.getattr("OPENSSL_VERSION")?.extract()?;
        let library = match Library::find(&path.extract::<String>()?, &version) {
            Ok(library) => library,
            Err(reason) => return Ok(Err(reason)),
        };
        Ok(match try_out(py, library) {
            Ok(None) => Ok(library),
            Ok(Some(reason)) => Err(reason.to_owned()),
            Err(error) => Err(format!("a trial failed: {error}")),
        })
    })
}

/// See that Python's object and we use the same session and the same pipe, and that errors come out as they should.
fn try_out(py: Python<'_>, library: &'static Library) -> PyResult<Option<&'static str>> {
    let ssl = py.import("ssl")?;
    let context = ssl.getattr("SSLContext")?.call1((ssl.getattr("PROTOCOL_TLS_CLIENT")?,))?;
    let ends = Ends::new(py)?;
    let keywords = PyDict::new(py);
    keywords.set_item("server_hostname", "localhost")?;
    let wrap = || {
        let arguments = (&ends.incoming, &ends.outgoing);
        call::call_object(&context.getattr("wrap_bio")?, arguments, Some(&keywords))
    };
    let (object, session) = Session::of(library, wrap, |object| inner_object(&context, object))?;
    let Some(session) = session else {
        return Ok(Some("OpenSSL does not tell of the session that Python made"));
    };
    let direct = Direct::new(session);
    if classify(py, call::call_method(object.as_borrowed(), intern!(py, "do_handshake"), &[]).map(drop))?
        != Answer::Wants
    {
        return Ok(Some("a handshake with nobody succeeded"));
    }
    // A record of a handshake, of any version (RFC 8446, section 5.1).
    if !direct.take_outgoing().is_some_and(|greeting| greeting.starts_with(&[22, 3])) {
        return Ok(Some("Python's handshake writes elsewhere"));
    }
    let mut memory = [0; 64];
    direct.feed(b"This is not TLS.");
    let (length, End::Failed(error)) = direct.read(py, Memory::from(&mut memory[..]))? else {
        return Ok(Some("what is no TLS was accepted"));
    };
    let tells_library = is_tls_error(py, &error)? && error.value(py).getattr("library")?.eq("SSL")?;
    if length > 0 || !tells_library || error.value(py).getattr("reason")?.is_none() {
        return Ok(Some("OpenSSL's errors do not reach Python"));
    }
    Ok(None)
}
