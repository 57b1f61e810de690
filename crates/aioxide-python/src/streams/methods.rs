//! The methods of our streams that are called once per message, as in [`transports::methods`](crate::transports::methods).

use std::ffi::CStr;

use pyo3::prelude::*;
use pyo3::types::PyType;

use super::reader::StreamReader;
use super::reading::Request;
use super::writer::StreamWriter;
use crate::error::ThinResult;
use crate::ffi::method::{Arguments, FastMethod, PlainMethod, add_method, add_plain_method};

/// Add the methods to the class of readers, or to one derived from it. Called once per class, at import.
pub fn add_to_readers(class: &Bound<'_, PyType>) -> PyResult<()> {
    add_method::<Read>(class)?;
    add_method::<ReadExactly>(class)?;
    add_plain_method::<ReadLine>(class)
}

/// As [`add_to_readers`], for writers.
pub fn add_to_writers(class: &Bound<'_, PyType>) -> PyResult<()> {
    add_method::<Write>(class)?;
    add_plain_method::<Drain>(class)
}

/// `StreamReader.read(n=-1)`.
struct Read;

impl FastMethod for Read {
    type Class = StreamReader;
    const NAME: &'static CStr = c"read";
    const POSITIONAL: &'static [&'static str] = &["n"];
    const DOCUMENTATION: &'static CStr = c"read($self, n=-1)\n--\n\nRead up to `n` bytes, as soon as there are any; all up to the end where `n` is negative.";

    fn call(reader: &Bound<'_, StreamReader>, arguments: &Arguments<'_, '_>) -> ThinResult<Py<PyAny>> {
        arguments.no_keywords("read")?;
        let most = match arguments.at_least("read", 0)? {
            [] => -1,
            _ => arguments.exactly("read", 1)?[0].extract::<isize>()?,
        };
        let request = match usize::try_from(most) {
            Ok(most) => Request::Read(most),
            Err(_) => Request::ReadAll(Vec::new()),
        };
        Ok(StreamReader::request(reader, "StreamReader.read", request)?.into_any())
    }
}

/// `StreamReader.readexactly(n)`.
struct ReadExactly;

impl FastMethod for ReadExactly {
    type Class = StreamReader;
    const NAME: &'static CStr = c"readexactly";
    const POSITIONAL: &'static [&'static str] = &["n"];
    const DOCUMENTATION: &'static CStr = c"readexactly($self, n)\n--\n\nRead exactly `n` bytes; IncompleteReadError where the end comes before.";

    fn call(reader: &Bound<'_, StreamReader>, arguments: &Arguments<'_, '_>) -> ThinResult<Py<PyAny>> {
        let request = Request::ReadExactly(arguments.only("readexactly")?.extract()?);
        Ok(StreamReader::request(reader, "StreamReader.readexactly", request)?.into_any())
    }
}

/// `StreamReader.readline()`.
struct ReadLine;

impl PlainMethod for ReadLine {
    type Class = StreamReader;
    const NAME: &'static CStr = c"readline";
    const DOCUMENTATION: &'static CStr = c"readline($self, /)\n--\n\nRead a line with its end; what is there where the end of the stream comes before.";

    fn call(reader: &Bound<'_, StreamReader>) -> ThinResult<Py<PyAny>> {
        Ok(StreamReader::request(reader, "StreamReader.readline", Request::ReadLine(0))?.into_any())
    }
}

/// `StreamWriter.write(data)`.
struct Write;

impl FastMethod for Write {
    type Class = StreamWriter;
    const NAME: &'static CStr = c"write";
    const POSITIONAL: &'static [&'static str] = &["data"];
    const DOCUMENTATION: &'static CStr =
        c"write($self, data)\n--\n\nSend bytes, now or as soon as there is room.";

    fn call(writer: &Bound<'_, StreamWriter>, arguments: &Arguments<'_, '_>) -> ThinResult<Py<PyAny>> {
        StreamWriter::write(writer, arguments.only("write")?)?;
        Ok(writer.py().None())
    }
}

/// `StreamWriter.drain()`.
struct Drain;

impl PlainMethod for Drain {
    type Class = StreamWriter;
    const NAME: &'static CStr = c"drain";
    const DOCUMENTATION: &'static CStr =
        c"drain($self, /)\n--\n\nWait until what was written has left, or nearly, so that one may write on.";

    fn call(writer: &Bound<'_, StreamWriter>) -> ThinResult<Py<PyAny>> {
        Ok(StreamWriter::drain(writer)?.into_any())
    }
}
