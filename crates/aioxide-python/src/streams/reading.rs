//! What a read wants, and how it is taken from what has come (asyncio `StreamReader`).

use pyo3::exceptions::{PyStopAsyncIteration, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use super::buffer::Buffer;
use crate::ffi::buffer::Contiguous;

/// One of the reading methods with its arguments.
pub enum Request {
    /// `read(n)`, `n` not being negative.
    Read(usize),
    /// `read()`: everything up to the end; what was read so far.
    ReadAll(Vec<u8>),
    /// `readexactly(n)`.
    ReadExactly(isize),
    /// `readuntil(separator)`; how far there is no separator.
    ReadUntil(Separators, usize),
    /// `readline()`; how far there is no line's end.
    ReadLine(usize),
    /// A step of `async for`; as for `readline()`.
    Next(usize),
    /// Nothing but that more comes, or the end; whether it was waited for. Subclasses of asyncio's use it.
    More(bool),
}

/// What `readuntil` looks for.
pub enum Separators {
    /// One.
    One(Py<PyBytes>),
    /// Several, the shortest first.
    Several(Vec<Vec<u8>>),
}

impl Separators {
    /// From the method's argument.
    pub fn of(separator: &Bound<'_, PyAny>) -> PyResult<Self> {
        if let Ok(separator) = separator.cast_exact::<PyBytes>() {
            return Ok(Self::One(separator.clone().unbind()));
        }
        let copy = |separator: &Bound<'_, PyAny>| {
            Contiguous::of(separator).map(|separator| separator.read(<[u8]>::to_vec))
        };
        let Ok(tuple) = separator.cast::<PyTuple>() else {
            return Ok(Self::Several(vec![copy(separator)?]));
        };
        let mut separators = tuple.iter().map(|separator| copy(&separator)).collect::<PyResult<Vec<_>>>()?;
        separators.sort_by_key(Vec::len);
        Ok(Self::Several(separators))
    }

    fn check(&self, py: Python<'_>) -> PyResult<()> {
        let shortest = match self {
            Self::One(separator) => Some(separator.bind(py).as_bytes().len()),
            Self::Several(separators) => separators.first().map(Vec::len),
        };
        match shortest {
            None => Err(PyValueError::new_err("Separator should contain at least one element")),
            Some(0) => Err(PyValueError::new_err("Separator should be at least one-byte string")),
            Some(_) => Ok(()),
        }
    }
}

/// What is left of asking once.
pub enum Attempt {
    /// It cannot be answered yet.
    Wait,
    /// Bytes at the beginning of the buffer.
    Take(usize),
    /// Bytes that were collected and no longer are in the buffer.
    Collected(Vec<u8>),
    /// Some bytes were collected, and the transport may go on; ask again.
    Again,
    /// The end came before all that was wanted: everything is taken, and this many were wanted.
    Incomplete(Option<isize>),
    /// The wanted is longer than the limit: the text and how far one may read at least.
    TooLong(&'static str, usize),
    /// As `TooLong`, for lines, where this many bytes are dropped.
    LineTooLong(&'static str, usize),
    /// There are no more lines.
    NoMoreLines,
    /// Nothing was asked for.
    Nothing,
}

impl Request {
    /// What asyncio calls the method in a message.
    pub fn method(&self) -> &'static str {
        match self {
            Self::Read(_) | Self::ReadAll(_) => "read",
            Self::ReadExactly(_) => "readexactly",
            Self::ReadUntil(..) | Self::ReadLine(_) | Self::Next(_) => "readuntil",
            Self::More(_) => "_wait_for_data",
        }
    }

    /// Refuse what cannot be asked for.
    pub fn check(&self, py: Python<'_>) -> PyResult<()> {
        match self {
            Self::ReadExactly(..0) => {
                Err(PyValueError::new_err("readexactly size can not be less than zero"))
            }
            Self::ReadUntil(separators, _) => separators.check(py),
            _ => Ok(()),
        }
    }

    /// Answer from what has come, changing nothing but what was found out about it.
    pub fn attempt(&mut self, py: Python<'_>, buffer: &mut Buffer, limit: usize, ended: bool) -> Attempt {
        match self {
            Self::Read(0) | Self::ReadExactly(0) => Attempt::Take(0),
            Self::Read(_) if buffer.is_empty() && !ended => Attempt::Wait,
            Self::Read(most) => Attempt::Take(buffer.len().min(*most)),
            Self::ReadAll(collected) if buffer.is_empty() => {
                if ended {
                    Attempt::Collected(std::mem::take(collected))
                } else {
                    Attempt::Wait
                }
            }
            Self::ReadAll(collected) => {
                let length = buffer.len().min(limit);
                collected.extend_from_slice(&buffer.bytes()[..length]);
                buffer.consume(length);
                Attempt::Again
            }
            Self::ReadExactly(wanted) if buffer.len() >= wanted.unsigned_abs() => {
                Attempt::Take(wanted.unsigned_abs())
            }
            Self::ReadExactly(wanted) if ended => Attempt::Incomplete(Some(*wanted)),
            Self::ReadExactly(_) => Attempt::Wait,
            Self::ReadUntil(Separators::One(separator), offset) => {
                until(buffer, &[separator.bind(py).as_bytes()], offset, limit, ended)
            }
            Self::ReadUntil(Separators::Several(separators), offset) => {
                until(buffer, separators, offset, limit, ended)
            }
            Self::More(waited) => {
                if std::mem::replace(waited, true) {
                    Attempt::Nothing
                } else {
                    Attempt::Wait
                }
            }
            Self::ReadLine(offset) => line(buffer, offset, limit, ended),
            Self::Next(offset) => match line(buffer, offset, limit, ended) {
                Attempt::Take(0) => Attempt::NoMoreLines,
                attempt => attempt,
            },
        }
    }
}

fn line(buffer: &Buffer, offset: &mut usize, limit: usize, ended: bool) -> Attempt {
    match until(buffer, &[b"\n"], offset, limit, ended) {
        Attempt::Incomplete(_) => Attempt::Take(buffer.len()),
        Attempt::TooLong(text, consumed) => {
            let is_found = buffer.bytes().get(consumed) == Some(&b'\n');
            Attempt::LineTooLong(text, if is_found { consumed + 1 } else { buffer.len() })
        }
        attempt => attempt,
    }
}

/// Look for the separator that ends first; they are sorted by length and not empty.
fn until(
    buffer: &Buffer,
    separators: &[impl AsRef<[u8]>],
    offset: &mut usize,
    limit: usize,
    ended: bool,
) -> Attempt {
    let length =
        |separator: Option<&_>| separator.map_or(0, |separator: &_| AsRef::<[u8]>::as_ref(separator).len());
    let (shortest, longest) = (length(separators.first()), length(separators.last()));
    if buffer.len() - (*offset).min(buffer.len()) >= shortest {
        let mut found: Option<(usize, usize)> = None;
        for separator in separators {
            let separator = separator.as_ref();
            let Some(start) = buffer.find(separator, *offset) else { continue };
            let end = start + separator.len();
            if found.is_none_or(|(_, first)| end < first) {
                found = Some((start, end));
            }
        }
        match found {
            Some((start, _)) if start > limit => {
                return Attempt::TooLong("Separator is found, but chunk is longer than limit", start);
            }
            Some((_, end)) => return Attempt::Take(end),
            None => {}
        }
        // The end of the buffer may be the beginning of a separator.
        *offset = (buffer.len() + 1).saturating_sub(longest);
        if *offset > limit {
            return Attempt::TooLong("Separator is not found, and chunk exceed the limit", *offset);
        }
    }
    if ended { Attempt::Incomplete(None) } else { Attempt::Wait }
}

/// `asyncio.IncompleteReadError(partial, expected)`.
pub fn incomplete(py: Python<'_>, partial: Bound<'_, PyBytes>, expected: Option<isize>) -> PyResult<PyErr> {
    exception(py, "IncompleteReadError", (partial, expected))
}

/// `asyncio.LimitOverrunError(message, consumed)`.
pub fn overrun(py: Python<'_>, message: &str, consumed: usize) -> PyResult<PyErr> {
    exception(py, "LimitOverrunError", (message, consumed))
}

/// What ends `async for`.
pub fn no_more_lines() -> PyErr {
    PyStopAsyncIteration::new_err(())
}

fn exception<'py>(
    py: Python<'py>,
    name: &str,
    arguments: impl pyo3::call::PyCallArgs<'py>,
) -> PyResult<PyErr> {
    let exceptions = py.import(intern!(py, "asyncio.exceptions"))?;
    Ok(PyErr::from_value(exceptions.getattr(name)?.call1(arguments)?))
}
