//! The methods that every class of handles has.

use std::sync::atomic::Ordering::Relaxed;

use pyo3::prelude::*;

use super::Scheduled;
use super::record::Record;

/// What the kinds of handle have in common, in methods that PyO3 cannot inherit.
macro_rules! handle_methods {
    ($class:ident, $asyncio_class:ident, [$($extra:tt)*]) => {
        #[pymethods]
        impl $class {
            /// The class that the handle is an instance of, for `isinstance`.
            #[getter]
            fn __class__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
                Ok($crate::imports::imports(py)?.$asyncio_class.bind(py).clone())
            }

            #[getter]
            fn _callback(&self, py: Python<'_>) -> Option<Py<PyAny>> {
                self.common.record.borrow(py).content(py).map(|(callback, _)| callback)
            }

            #[getter]
            fn _args<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, pyo3::types::PyTuple>>> {
                let content = self.common.record.borrow(py).content(py);
                content.map(|(_, arguments)| pyo3::types::PyTuple::new(py, arguments.as_slice())).transpose()
            }

            #[getter]
            fn _context(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
                $crate::handle::record::Record::leave_snapshot(&self.common.record, py)?;
                Ok(self.common.record.borrow(py).context(py))
            }

            #[getter]
            fn _loop(&self, py: Python<'_>) -> Py<$crate::event_loop::EventLoop> {
                self.common.event_loop.clone_ref(py)
            }

            #[getter]
            fn _cancelled(&self) -> bool {
                self.common.cancelled.load(std::sync::atomic::Ordering::Relaxed)
            }

            #[getter]
            fn _source_traceback(&self, py: Python<'_>) -> Option<Py<PyAny>> {
                self.common.record.borrow(py).source_traceback(py)
            }

            #[getter]
            fn _repr(&self, py: Python<'_>) -> Option<String> {
                self.common.record.borrow(py).cancelled_repr()
            }

            fn _repr_info<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
                let class = $crate::imports::imports(slf.py())?.$asyncio_class.bind(slf.py());
                $crate::ffi::call::call_method_of(class, pyo3::intern!(slf.py(), "_repr_info"), (slf,))
            }

            /// Return the context the callback runs in (Python 3.12).
            fn get_context(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
                self._context(py)
            }

            fn __repr__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
                let class = $crate::imports::imports(slf.py())?.$asyncio_class.bind(slf.py());
                $crate::ffi::call::call_method_of(class, pyo3::intern!(slf.py(), "__repr__"), (slf,))
            }

            fn __traverse__(&self, visit: pyo3::pyclass::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
                self.common.traverse(&visit)
            }

            fn __clear__(&self) {
                Python::attach(|py| $crate::handle::record::Record::let_go(&self.common.record, py));
            }

            $($extra)*
        }
    };
}

/// Cancel a callback; `false` where it was cancelled before. In debug mode the handle keeps its repr.
pub fn cancel<T: Scheduled>(handle: &Bound<'_, T>) -> PyResult<bool> {
    let (py, common) = (handle.py(), handle.get().common());
    if common.cancelled.load(Relaxed) {
        return Ok(false);
    }
    common.cancelled.store(true, Relaxed);
    if common.event_loop.get().debug() {
        let repr = handle.as_any().repr()?.to_string();
        common.record.borrow_mut(py).set_cancelled_repr(repr);
    }
    Record::let_go(&common.record, py);
    Ok(true)
}
