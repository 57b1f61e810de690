//! Native `StreamReader` and `StreamWriter` (asyncio docs, "Streams").
//!
//! The Python classes of `aioxide._streams` inherit them and asyncio's own, which contributes what runs once per
//! connection. Here is what runs for every message: bytes go from the transport into the reader's memory and from there
//! into one `bytes` object, and what need not wait makes neither a task nor a future.

mod buffer;
pub mod methods;
pub mod operation;
pub mod reader;
mod reading;
pub mod writer;

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

/// The classes of `aioxide._streams`.
struct Classes {
    reader: Py<PyType>,
    protocol: Py<PyType>,
}

fn classes(py: Python<'_>) -> PyResult<&'static Classes> {
    static CLASSES: PyOnceLock<Classes> = PyOnceLock::new();
    CLASSES.get_or_try_init(py, || {
        let module = py.import("aioxide._streams")?;
        let class = |name| PyResult::Ok(module.getattr(name)?.cast_into::<PyType>()?.unbind());
        Ok(Classes { reader: class("StreamReader")?, protocol: class("StreamReaderProtocol")? })
    })
}

/// Whether an object is exactly the protocol of our streams, of which all is known.
pub fn is_our_protocol(object: &Bound<'_, PyAny>) -> bool {
    classes(object.py()).is_ok_and(|classes| object.get_type().is(&classes.protocol))
}

/// Whether an object is exactly our reader, of which all is known.
pub fn is_our_reader(object: &Bound<'_, PyAny>) -> bool {
    classes(object.py()).is_ok_and(|classes| object.get_type().is(&classes.reader))
}
