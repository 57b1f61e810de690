//! A native `add` for the `WeakSet` in which asyncio registers tasks.
//!
//! Up to Python 3.13 `asyncio.tasks` keeps the tasks in a `weakref.WeakSet`, and the C code calls its
//! `add`, which is Python code, once per task (CPython `Modules/_asynciomodule.c`, `register_task`). An
//! instance attribute of that name takes its place: the same weak references in the same set, with a
//! native callback that removes them. From 3.14 on that set holds the tasks of other classes than asyncio's only:
//! ours, which do not even call the attribute.
//!
//! # Invariants
//! As in `_weakrefset.py`: while somebody iterates over the set, a dead reference is not removed but put on the
//! list of pending removals, which `WeakSet` works off when the iteration ends.
#![expect(unsafe_code, reason = "built-in functions, and weak references that call them")]

use std::ffi::CStr;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyList, PySet, PyTuple};

use super::call::release;

/// A `WeakSet` that has its native `add`.
pub struct Registry {
    /// What the function `add` gets as its `self`.
    add_state: Py<PyTuple>,
    /// What the function `remove` gets as its `self`.
    remove_state: Py<PyTuple>,
}

impl Registry {
    /// Add an object, as `WeakSet.add`; returns its reference.
    pub fn add(&self, item: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let state = self.add_state.as_ptr();
        // SAFETY: both are live objects, the second callable; null is returned with an exception set.
        let reference = unsafe { ffi::PyWeakref_NewRef(item.as_ptr(), part(state, 1)) };
        // SAFETY: as above, a new reference.
        let reference = unsafe { Bound::from_owned_ptr_or_err(item.py(), reference) }?;
        // SAFETY: the set takes its own reference.
        if unsafe { ffi::PySet_Add(part(state, 0), reference.as_ptr()) } != 0 {
            return Err(PyErr::fetch(item.py()));
        }
        Ok(reference.unbind())
    }

    /// Take out what `add` returned, before its object dies.
    pub fn remove(&self, py: Python<'_>, reference: Py<PyAny>) -> PyResult<()> {
        // SAFETY: the function's own state, and a live object.
        let none = unsafe { remove(self.remove_state.as_ptr(), reference.as_ptr()) };
        // SAFETY: the function returns a new reference or null with an exception set.
        unsafe { Bound::from_owned_ptr_or_err(py, none) }.map(drop)
    }
}

/// Give `weak_set`, a `weakref.WeakSet`, its native `add`.
pub fn accelerate(weak_set: &Bound<'_, PyAny>) -> PyResult<Registry> {
    let py = weak_set.py();
    let data = weak_set.getattr("data")?.cast_into::<PySet>()?;
    let remove_state = match weak_set.getattr_opt("_iterating")? {
        // From 3.14 on, who iterates does it over a copy.
        None => PyTuple::new(py, [data.as_any()])?,
        Some(iterating) => {
            let iterating = iterating.cast_into::<PySet>()?;
            let pending = weak_set.getattr("_pending_removals")?.cast_into::<PyList>()?;
            PyTuple::new(py, [data.as_any(), iterating.as_any(), pending.as_any()])?
        }
    };
    let remove = function(c"_remove", remove, &remove_state)?;
    let add_state = PyTuple::new(py, [data.as_any(), &remove])?;
    let add = function(c"add", add, &add_state)?;
    weak_set.setattr("add", add)?;
    Ok(Registry { add_state: add_state.unbind(), remove_state: remove_state.unbind() })
}

/// Make a built-in function of one argument that gets `state` as its `self`.
fn function<'py>(
    name: &'static CStr,
    implementation: ffi::PyCFunction,
    state: &Bound<'py, PyTuple>,
) -> PyResult<Bound<'py, PyAny>> {
    let definition = Box::leak(Box::new(ffi::PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunction: implementation },
        ml_flags: ffi::METH_O,
        ml_doc: std::ptr::null(),
    }));
    // SAFETY: the definition is leaked, so it outlives the function; the function keeps `state` alive.
    let function = unsafe { ffi::PyCFunction_NewEx(definition, state.as_ptr(), std::ptr::null_mut()) };
    // SAFETY: the call returns a new reference or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(state.py(), function) }
}

/// The parts of the set that `state` holds.
fn part(state: *mut ffi::PyObject, index: ffi::Py_ssize_t) -> *mut ffi::PyObject {
    // SAFETY: `state` is the tuple that `accelerate` made, with an item at each index asked for; the item is
    // borrowed from it.
    unsafe { ffi::PyTuple_GetItem(state, index) }
}

/// `WeakSet.add(item)`. `state` is the set's data and the callback.
unsafe extern "C" fn add(state: *mut ffi::PyObject, item: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: both are live objects, the second callable; null is returned with an exception set.
    let reference = unsafe { ffi::PyWeakref_NewRef(item, part(state, 1)) };
    if reference.is_null() {
        return std::ptr::null_mut();
    }
    // SAFETY: the set takes its own reference.
    let added = unsafe { ffi::PySet_Add(part(state, 0), reference) };
    // SAFETY: interpreter calls happen on attached threads.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: ours, from above.
    release(py, unsafe { Bound::from_owned_ptr(py, reference) }.unbind());
    if added != 0 { std::ptr::null_mut() } else { none() }
}

/// The callback of a reference that died. `state` is the set's data and, up to 3.13, who iterates, and pending removals.
unsafe extern "C" fn remove(state: *mut ffi::PyObject, reference: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a tuple, as `accelerate` made it.
    let iterating = if unsafe { ffi::PyTuple_Size(state) } == 1 {
        0
    } else {
        // SAFETY: a set, as `accelerate` checked.
        unsafe { ffi::PySet_Size(part(state, 1)) }
    };
    let removed = if iterating > 0 {
        // SAFETY: a list, as `accelerate` checked; it takes its own reference.
        unsafe { ffi::PyList_Append(part(state, 2), reference) }
    } else {
        // SAFETY: a set, as `accelerate` checked. It answers 1 or 0 for found or not.
        unsafe { ffi::PySet_Discard(part(state, 0), reference) }.min(0)
    };
    if removed < 0 { std::ptr::null_mut() } else { none() }
}

fn none() -> *mut ffi::PyObject {
    // SAFETY: interpreter calls happen on attached threads.
    let py = unsafe { Python::assume_attached() };
    py.None().into_ptr()
}
