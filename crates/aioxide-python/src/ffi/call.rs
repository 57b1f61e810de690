//! Calling Python with arguments that lie in Rust memory: no tuple is built. And letting a coroutine go on.
//!
//! Up to Python 3.13 a daemon thread that wants the GIL back while the interpreter ends is ended by pthread_exit(3),
//! which unwinds its stack; that aborts the process when it comes to Rust's frames. A loop on such a thread is most
//! likely inside Python code at that moment, so the calls here are declared to unwind, and stop the thread for good
//! instead, as CPython itself does from 3.14 on. PyO3's own calls do not: whatever a running loop calls that may let
//! another thread have the GIL (code in Python, the `ssl` module) is called from here.
#![expect(unsafe_code, reason = "PyO3 offers vectorcall for tuples only")]

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};
use pyo3::{Borrowed, ffi};

use super::references::let_go_of_shared;
use crate::error::ThinResult;

type Vectorcall = unsafe extern "C-unwind" fn(
    *mut ffi::PyObject,
    *const *mut ffi::PyObject,
    usize,
    *mut ffi::PyObject,
) -> *mut ffi::PyObject;

type Call = unsafe extern "C-unwind" fn(
    *mut ffi::PyObject,
    *mut ffi::PyObject,
    *mut ffi::PyObject,
) -> *mut ffi::PyObject;

unsafe extern "C-unwind" {
    fn Py_DecRef(object: *mut ffi::PyObject);

    fn PyObject_Vectorcall(
        callable: *mut ffi::PyObject,
        arguments: *const *mut ffi::PyObject,
        count: usize,
        keyword_names: *mut ffi::PyObject,
    ) -> *mut ffi::PyObject;

    fn PyObject_Call(
        callable: *mut ffi::PyObject,
        arguments: *mut ffi::PyObject,
        keywords: *mut ffi::PyObject,
    ) -> *mut ffi::PyObject;

    fn PyObject_VectorcallMethod(
        name: *mut ffi::PyObject,
        arguments: *const *mut ffi::PyObject,
        count: usize,
        keyword_names: *mut ffi::PyObject,
    ) -> *mut ffi::PyObject;

    fn PyIter_Send(
        iterator: *mut ffi::PyObject,
        argument: *mut ffi::PyObject,
        result: *mut *mut ffi::PyObject,
    ) -> ffi::PySendResult;
}

/// Keeps a thread that is being ended where it is; it does not hold the GIL then.
struct StayHere;

impl Drop for StayHere {
    fn drop(&mut self) {
        loop {
            std::thread::park();
        }
    }
}

/// Call `callable`, or the method of that name, with `positional` of the `arguments` by place and the others by the
/// names given.
///
/// # Safety
/// `function` is one of the two above, whose arguments are pointers to live objects, the names a tuple or null; the
/// thread is attached.
#[inline]
unsafe fn vectorcall(
    function: Vectorcall,
    callable: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    positional: usize,
    keyword_names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    let stay = StayHere;
    // Hidden from link-time optimisation, which would take PyO3's word that this function does not unwind.
    let function = std::hint::black_box(function);
    // SAFETY: as the caller promises.
    let result = unsafe { function(callable, arguments, positional, keyword_names) };
    std::mem::forget(stay);
    result
}

/// Let go of an object, which may run a finalizer: of a protocol, a task or what these alone keep alive.
#[inline]
pub fn release<T>(py: Python<'_>, object: Py<T>) {
    if let Some(last) = let_go_of_shared(object.into_bound(py)) {
        release_last(last.into_ptr());
    }
}

/// Let go of an object that nobody else holds.
fn release_last(object: *mut ffi::PyObject) {
    let stay = StayHere;
    // Hidden as in `vectorcall`.
    let function = std::hint::black_box(Py_DecRef as unsafe extern "C-unwind" fn(*mut ffi::PyObject));
    // SAFETY: the thread is attached; the reference is ours, and the caller gave it away.
    unsafe { function(object) };
    std::mem::forget(stay);
}

/// Call `callable(*arguments, **keywords)`, with arguments of any kind and number, for what is not called often.
pub fn call_object<'py>(
    callable: &Bound<'py, PyAny>,
    arguments: impl IntoPyObject<'py, Target = PyTuple, Output = Bound<'py, PyTuple>, Error: Into<PyErr>>,
    keywords: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = callable.py();
    let arguments = arguments.into_pyobject(py).map_err(Into::into)?;
    let keywords = keywords.map_or(std::ptr::null_mut(), Bound::as_ptr);
    let stay = StayHere;
    // Hidden as in `vectorcall`.
    let function = std::hint::black_box(PyObject_Call as Call);
    // SAFETY: a live object, a live tuple, a live dictionary or null; the thread is attached.
    let result = unsafe { function(callable.as_ptr(), arguments.as_ptr(), keywords) };
    std::mem::forget(stay);
    // SAFETY: the call returns a new reference or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(py, result) }
}

/// Call `object.name(*arguments)`, as `call_object` does.
pub fn call_method_of<'py>(
    object: &Bound<'py, PyAny>,
    name: &Bound<'py, PyString>,
    arguments: impl IntoPyObject<'py, Target = PyTuple, Output = Bound<'py, PyTuple>, Error: Into<PyErr>>,
) -> PyResult<Bound<'py, PyAny>> {
    call_object(&object.getattr(name)?, arguments, None)
}

/// Call `callable(*arguments)` by vectorcall.
#[inline]
pub fn call<'py>(callable: Borrowed<'_, 'py, PyAny>, arguments: &[Py<PyAny>]) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: the call returns a new reference or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(callable.py(), call_raw(callable, arguments)) }
}

/// As [`call()`], for what the callable does.
#[inline]
pub fn run(callable: Borrowed<'_, '_, PyAny>, arguments: &[Py<PyAny>]) -> ThinResult<()> {
    let py = callable.py();
    // SAFETY: as in `call`.
    match unsafe { Bound::from_owned_ptr_or_opt(py, call_raw(callable, arguments)) } {
        Some(result) => {
            release(py, result.unbind());
            Ok(())
        }
        None => Err(PyErr::fetch(py).into()),
    }
}

#[inline]
fn call_raw(callable: Borrowed<'_, '_, PyAny>, arguments: &[Py<PyAny>]) -> *mut ffi::PyObject {
    // SAFETY: `Py<PyAny>` is a transparent pointer to a live object, so the slice is an array of
    // `arguments.len()` valid object pointers; no offset flag is claimed.
    unsafe {
        vectorcall(
            PyObject_Vectorcall,
            callable.as_ptr(),
            arguments.as_ptr().cast(),
            arguments.len(),
            std::ptr::null_mut(),
        )
    }
}

/// Call `object.name(*arguments)`, with at most two arguments.
pub fn call_method<'py>(
    object: Borrowed<'_, 'py, PyAny>,
    name: &Bound<'py, PyString>,
    arguments: &[Borrowed<'_, 'py, PyAny>],
) -> PyResult<Bound<'py, PyAny>> {
    let mut pointers = [object.as_ptr(), std::ptr::null_mut(), std::ptr::null_mut()];
    let Some(places) = pointers[1..].get_mut(..arguments.len()) else {
        return Err(pyo3::exceptions::PySystemError::new_err(
            "a protocol's method takes two arguments at most",
        ));
    };
    for (place, argument) in places.iter_mut().zip(arguments) {
        *place = argument.as_ptr();
    }
    // SAFETY: the name is a string; the object and its arguments are pointers to live objects.
    let result = unsafe {
        vectorcall(
            PyObject_VectorcallMethod,
            name.as_ptr(),
            pointers.as_ptr(),
            1 + arguments.len(),
            std::ptr::null_mut(),
        )
    };
    // SAFETY: the call returns a new reference or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(object.py(), result) }
}

/// Call `callable(*arguments[..positional], **keywords)`, the values of `keyword_names` being the rest of
/// `arguments`.
pub fn call_with_keywords<'py>(
    callable: Borrowed<'_, 'py, PyAny>,
    arguments: &[Borrowed<'_, 'py, PyAny>],
    keyword_names: &Bound<'py, PyTuple>,
) -> PyResult<Bound<'py, PyAny>> {
    let Some(positional) = arguments.len().checked_sub(keyword_names.len()) else {
        return Err(pyo3::exceptions::PySystemError::new_err("more keyword names than arguments"));
    };
    // SAFETY: `Borrowed` is a transparent pointer to a live object; the slice holds `positional`
    // arguments followed by one value for each keyword name, as vectorcall wants.
    let result = unsafe {
        vectorcall(
            PyObject_Vectorcall,
            callable.as_ptr(),
            arguments.as_ptr().cast(),
            positional,
            keyword_names.as_ptr(),
        )
    };
    // SAFETY: the call returns a new reference or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(callable.py(), result) }
}

/// How a coroutine answered.
pub enum Sent<'py> {
    /// It waits for this.
    Yielded(Bound<'py, PyAny>),
    /// It is done.
    Returned(Bound<'py, PyAny>),
}

/// Call `coroutine.send(None)`, without an exception for the value that it returns.
pub fn send_none<'py>(coroutine: Borrowed<'_, 'py, PyAny>) -> ThinResult<Sent<'py>> {
    let py = coroutine.py();
    let mut result = std::ptr::null_mut();
    let none = py.None();
    let stay = StayHere;
    // Hidden from link-time optimisation, as in `vectorcall`.
    let send = std::hint::black_box(
        PyIter_Send
            as unsafe extern "C-unwind" fn(
                *mut ffi::PyObject,
                *mut ffi::PyObject,
                *mut *mut ffi::PyObject,
            ) -> ffi::PySendResult,
    );
    // SAFETY: both are live objects; the result is a new reference, or null with an exception set.
    let answer = unsafe { send(coroutine.as_ptr(), none.as_ptr(), &raw mut result) };
    std::mem::forget(stay);
    // SAFETY: as above.
    let result = unsafe { Bound::from_owned_ptr_or_err(py, result) }?;
    Ok(if answer == ffi::PySendResult::PYGEN_NEXT { Sent::Yielded(result) } else { Sent::Returned(result) })
}
