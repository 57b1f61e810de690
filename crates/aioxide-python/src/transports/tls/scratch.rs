//! Memory that records are deciphered into, one piece for all connections of a loop.

use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyMemoryView, PySlice};

use super::engine::SIZE;
use crate::event_loop::EventLoop;
use crate::ffi::buffer::Contiguous;

/// Some CPUs copy ten times slower where memory begins a little past a page's start, as large objects do.
const PAGE: usize = 4096;

/// A writable, page-aligned memoryview.
pub struct TlsScratch(Py<PyMemoryView>);

impl TlsScratch {
    /// Take the loop's, or make one: also for a callback that runs the loop within itself.
    pub fn take(event_loop: &EventLoop, py: Python<'_>) -> PyResult<Self> {
        let kept = event_loop.with_core(|core| core.tls_scratch.take())?;
        if let Some(kept) = kept {
            return Ok(kept);
        }
        let memory = PyByteArray::new_with(py, SIZE + PAGE, |_| Ok(()))?;
        let start = Contiguous::of(&memory)?.read(|memory| memory.as_ptr().align_offset(PAGE));
        let view = PyMemoryView::from(&memory)?;
        Ok(Self(slice(&view, start, start + SIZE)?.cast_into::<PyMemoryView>()?.unbind()))
    }

    /// Leave it for the next one.
    pub fn give_back(self, event_loop: &EventLoop) -> PyResult<()> {
        let superfluous = event_loop.with_core(|core| core.tls_scratch.replace(self))?;
        drop(superfluous);
        Ok(())
    }

    /// The memory from `start` on.
    pub fn from<'py>(&self, py: Python<'py>, start: usize) -> PyResult<Bound<'py, PyAny>> {
        let view = self.0.bind(py);
        if start == 0 { Ok(view.clone().into_any()) } else { slice(view, start, SIZE) }
    }

    /// Lend the first `length` bytes to `read`, which must not call Python.
    pub fn read<R>(&self, py: Python<'_>, length: usize, read: impl FnOnce(&[u8]) -> R) -> PyResult<R> {
        Ok(Contiguous::of(self.0.bind(py))?.read(|memory| read(&memory[..length])))
    }
}

/// `view[start:end]`.
pub fn slice<'py>(view: &Bound<'py, PyMemoryView>, start: usize, end: usize) -> PyResult<Bound<'py, PyAny>> {
    view.get_item(PySlice::new(view.py(), start as isize, end as isize, 1))
}
