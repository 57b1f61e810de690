//! The functions of the aioxide that is installed, found when the first future is made.
#![expect(unsafe_code, reason = "calls C functions that a capsule points to")]

use std::future::Future;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::time::Duration;

use aioxide_awaitable_abi::{self as abi, Answers, CAPSULE, Erased, RawName, VERSION, erase};
use pyo3::exceptions::{PyImportError, PyModuleNotFoundError};
use pyo3::ffi;
use pyo3::prelude::*;

use crate::answer::ToPython;

/// A table of a version and size that we know.
pub struct Interface {
    table: &'static abi::Interface,
}

/// The table, once it was found.
static TABLE: AtomicPtr<abi::Interface> = AtomicPtr::new(ptr::null_mut());

impl Interface {
    /// Finds it.
    pub fn get(py: Python<'_>) -> PyResult<Self> {
        match Self::loaded() {
            Some(interface) => Ok(interface),
            None => Self::load(py),
        }
    }

    /// It, where it was found before.
    pub fn loaded() -> Option<Self> {
        // SAFETY: null, or a table that lives until the process ends.
        let table = unsafe { TABLE.load(Ordering::Acquire).as_ref() };
        table.map(|table| Self { table })
    }

    #[cold]
    fn load(py: Python<'_>) -> PyResult<Self> {
        let aioxide = py.import("aioxide").map_err(|error| {
            match error.is_instance_of::<PyModuleNotFoundError>(py) {
                true => refusal(
                    py,
                    "Rust futures need aioxide, which is not installed: pip install aioxide",
                    Some(error),
                ),
                false => error,
            }
        })?;
        // SAFETY: the thread is attached; the name is a C string.
        let table = unsafe { ffi::PyCapsule_Import(CAPSULE.as_ptr(), 0) }.cast::<abi::Interface>();
        let version =
            || aioxide.getattr("__version__").map_or_else(|_| "?".into(), |version| version.to_string());
        if table.is_null() {
            // First of all: nothing of Python may run while an exception is set.
            let cause = PyErr::take(py);
            let text =
                format!("aioxide {} is too old for this extension's Rust futures: upgrade it", version());
            return Err(refusal(py, &text, cause));
        }
        // SAFETY: a table begins with its version, in every version.
        let found = unsafe { (*table).version };
        if found != VERSION {
            let text = format!(
                "aioxide {} has version {found} of the interface for Rust futures, this extension was built for \
                 {VERSION}: {}",
                version(),
                if found < VERSION {
                    "upgrade aioxide"
                } else {
                    "the extension needs a newer aioxide-awaitable"
                },
            );
            return Err(refusal(py, &text, None));
        }
        // SAFETY: of this version, and so followed by its size.
        let size = unsafe { (*table).size } as usize;
        if size < size_of::<abi::Interface>() {
            let text =
                format!("aioxide {} lacks what this extension's Rust futures need: upgrade it", version());
            return Err(refusal(py, &text, None));
        }
        TABLE.store(table, Ordering::Release);
        // SAFETY: it has the version and at least the size of what we know, and lives until the process ends.
        Ok(Self { table: unsafe { &*table } })
    }

    /// Makes an awaitable.
    pub fn awaitable<'py, F>(
        self,
        py: Python<'py>,
        name: &'static str,
        future: F,
    ) -> PyResult<Bound<'py, PyAny>>
    where
        F: Future + 'static,
        ToPython: Answers<F::Output>,
    {
        // SAFETY: the thread is attached; the future is made for this, and given away; a static name lives for ever.
        let object = unsafe { (self.table.awaitable)(erase::<ToPython, _>(future), RawName::new(name)) };
        // SAFETY: a new reference, or null with an exception set.
        unsafe { Bound::from_owned_ptr_or_err(py, object.cast::<ffi::PyObject>()) }
    }

    /// Spawns a task.
    pub fn spawn<F>(self, py: Python<'_>, name: &str, future: F) -> PyResult<()>
    where
        F: Future + 'static,
        ToPython: Answers<F::Output>,
    {
        // SAFETY: the thread is attached; the future is made for this, and given away; the name is copied.
        match unsafe { (self.table.spawn)(erase::<ToPython, _>(future), RawName::new(name)) } {
            0 => Ok(()),
            _ => Err(PyErr::fetch(py)),
        }
    }

    /// Makes a future that is ready after some time, unless no loop runs this code.
    pub fn sleep(self, duration: Duration) -> Option<Erased> {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        // SAFETY: this is called while a future is polled, and so with the thread attached.
        let future = unsafe { (self.table.sleep)(nanoseconds) };
        if future.data.is_null() {
            return None;
        }
        // SAFETY: it was made for us, and nobody else has it.
        Some(unsafe { Erased::from_raw(future) })
    }
}

/// Why there is no interface, with what led to that.
fn refusal(py: Python<'_>, text: &str, cause: Option<PyErr>) -> PyErr {
    let error = PyImportError::new_err(text.to_owned());
    error.set_cause(py, cause);
    error
}
