//! A function of a C module that takes no arguments and is called often: by its pointer, past what the interpreter does
//! around every call.
#![expect(unsafe_code, reason = "calls the C function that a builtin function object describes")]

use pyo3::ffi;
use pyo3::prelude::*;

use super::call::call;

/// A callable that is called without arguments. It does not let other threads run.
pub struct Builtin {
    object: Py<PyAny>,
    /// What it does; `None` where it is no builtin function, or one with arguments.
    function: Option<ffi::PyCFunction>,
}

impl Builtin {
    /// Look at what kind of callable an object is.
    pub fn new(object: Bound<'_, PyAny>) -> Self {
        let function = Self::function_of(&object);
        Self { object: object.unbind(), function }
    }

    fn function_of(object: &Bound<'_, PyAny>) -> Option<ffi::PyCFunction> {
        let object = object.as_ptr();
        // SAFETY: a live object.
        if unsafe { ffi::PyCFunction_CheckExact(object) } == 0 {
            return None;
        }
        // SAFETY: a builtin function, as was just seen.
        if unsafe { ffi::PyCFunction_GetFlags(object) } != ffi::METH_NOARGS {
            return None;
        }
        // SAFETY: as above.
        unsafe { ffi::PyCFunction_GetFunction(object) }
    }

    /// Call it.
    #[inline]
    pub fn call<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let Some(function) = self.function else { return call(self.object.bind_borrowed(py), &[]) };
        // SAFETY: a builtin function, which is alive.
        let receiver = unsafe { ffi::PyCFunction_GetSelf(self.object.as_ptr()) };
        // SAFETY: as the interpreter calls a METH_NOARGS function: with its own `self`, on an attached thread.
        let result = unsafe { function(receiver, std::ptr::null_mut()) };
        // SAFETY: the function returns a new reference or null with an exception set.
        unsafe { Bound::from_owned_ptr_or_err(py, result) }
    }
}
