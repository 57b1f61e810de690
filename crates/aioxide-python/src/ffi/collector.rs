//! Handles and the garbage collector.
//!
//! A handle in a queue is reachable from its loop, so the collector has nothing to find there; but looking at
//! a hundred thousand of them, again and again, costs more than running them. So a handle is *hidden* from
//! the collector while it waits, the loop's traversal looks through it, and it is *shown* when it leaves the
//! queue, if somebody else holds it still.
#![expect(unsafe_code, reason = "PyO3 has no wrapper of the collector's functions")]

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::pyclass::PyClass;

use super::references;

/// Make an object that the collector does not look at.
pub fn new_hidden<T: PyClass>(
    py: Python<'_>,
    value: impl Into<pyo3::PyClassInitializer<T>>,
) -> PyResult<Py<T>> {
    let object = Bound::new(py, value)?;
    hide(&object);
    Ok(object.unbind())
}

/// Let the collector look at an object from now on.
pub fn show<T: PyClass>(object: &Bound<'_, T>) {
    // SAFETY: as in `hide`.
    if unsafe { ffi::PyObject_GC_IsTracked(object.as_ptr()) } == 0 {
        // SAFETY: as in `hide`, and it is not tracked yet.
        unsafe { ffi::PyObject_GC_Track(object.as_ptr().cast()) };
    }
}

/// Whether anybody holds the object besides the caller.
#[inline]
pub fn is_shared<T>(object: &Bound<'_, T>) -> bool {
    is_held_by_more_than(object, 1)
}

/// Whether there are more than so many references to the object.
#[inline]
pub fn is_held_by_more_than<T>(object: &Bound<'_, T>, count: ffi::Py_ssize_t) -> bool {
    references::count(object) > count
}

/// Whether anybody besides the caller holds the object, or can come to it by a weak reference.
#[inline]
pub fn is_known<T: PyClass>(object: &Bound<'_, T>) -> bool {
    is_shared(object) || has_weak_references(object)
}

/// Whether anybody can come to the object by a weak reference.
#[inline]
pub fn has_weak_references<T: PyClass>(object: &Bound<'_, T>) -> bool {
    // SAFETY: the object is alive.
    let class = unsafe { ffi::Py_TYPE(object.as_ptr()) };
    // SAFETY: a live object has a live type.
    let offset = unsafe { (*class).tp_weaklistoffset };
    if offset == 0 {
        return false;
    }
    // SAFETY: that many bytes from its start an object of the class has the list of its weak references.
    let list = unsafe { object.as_ptr().byte_offset(offset) }.cast::<*mut ffi::PyObject>();
    // SAFETY: as above; the GIL protects the list.
    !unsafe { list.read() }.is_null()
}

/// Let the collector look at an object no more: nobody but the caller holds it.
#[inline]
pub fn hide<T: PyClass>(object: &Bound<'_, T>) {
    // SAFETY: the object is alive, and its class has a traverse function, so it has a collector's header. One that is
    // not tracked (those from a free list are not) is left as it is.
    unsafe { ffi::PyObject_GC_UnTrack(object.as_ptr().cast()) };
}

/// Let the collector look at an object that anybody holds besides the caller; tells whether somebody does.
pub fn show_if_shared<T: PyClass>(object: &Bound<'_, T>) -> bool {
    let is_shared = is_shared(object);
    if is_shared {
        show(object);
    }
    is_shared
}

/// During a traversal: hand a hidden object that nobody else holds to `visit`, in place of the collector.
pub fn look_through<T: PyClass, E>(object: &Py<T>, visit: impl FnOnce(&T) -> Result<(), E>) -> Result<(), E> {
    // SAFETY: the collector runs on an attached thread; nothing here makes or drops a reference.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: as in `hide`.
    let is_hidden = unsafe { ffi::PyObject_GC_IsTracked(object.as_ptr()) } == 0;
    // SAFETY: the object is alive.
    let is_ours = unsafe { ffi::Py_REFCNT(object.as_ptr()) } == 1;
    match object.try_borrow(py) {
        Ok(value) if is_hidden && is_ours => visit(&value),
        _ => Ok(()),
    }
}

/// Make an object of a class with an instance dictionary.
///
/// PyO3 (0.30) makes the dictionary between the moment the collector learns of the object and the one in which the
/// object's fields are set. Up to Python 3.11 making a dictionary may start a collection, which would
/// then traverse fields that are not there; so the collector waits.
pub fn new_with_dictionary<'py, T: PyClass>(
    py: Python<'py>,
    value: impl Into<pyo3::PyClassInitializer<T>>,
) -> PyResult<Bound<'py, T>> {
    // SAFETY: the thread is attached.
    let was_enabled = unsafe { ffi::PyGC_Disable() };
    let object = Bound::new(py, value);
    if was_enabled != 0 {
        // SAFETY: the thread is attached.
        unsafe { ffi::PyGC_Enable() };
    }
    object
}
