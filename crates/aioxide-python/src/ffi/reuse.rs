//! Objects that are over, kept whole for the next ones of their class: to destroy one and to make one costs more than what
//! most of them are made for.
//!
//! What [free lists](super::free_list) keep is memory; what is kept here is an object, which needs only be filled.
//!
//! # Invariants
//! - An object in here is over, unknown to everybody and hidden from the garbage collector; its class has no subclasses,
//!   no weak references and no instance dictionary.
//! - Only an attached thread touches what is kept, one at a time: it holds the GIL. A free-threaded build keeps nothing.
//! - An object whose finalizer ran is not kept: the collector would take the next one there for finalized.
#![expect(unsafe_code, reason = "an object whose last reference is gone is kept instead of destroyed")]

use pyo3::prelude::*;
use pyo3::pyclass::PyClass;
use pyo3::pyclass::boolean_struct::True;
use pyo3::{Borrowed, ffi};

use super::gil_cell::GilCell;

/// How many objects of a class are kept.
const CAPACITY: usize = 256;

unsafe extern "C" {
    fn _Py_NewReference(object: *mut ffi::PyObject);
}

/// Objects of one class.
pub struct Kept {
    contents: GilCell<Contents>,
}

struct Contents {
    objects: Vec<Dead>,
    /// What destroys the others; `None` before [`install`].
    destroy: Option<ffi::destructor>,
}

/// An object without references.
struct Dead(*mut ffi::PyObject);

// SAFETY: nobody else has the object.
unsafe impl Send for Dead {}

impl Kept {
    /// None yet.
    pub const fn new() -> Self {
        Self { contents: GilCell::new(Contents { objects: Vec::new(), destroy: None }) }
    }
}

/// A class whose objects are used again.
pub trait Reused: PyClass<Frozen = True> + Sync {
    /// Those of this class.
    fn kept() -> &'static Kept;

    /// Whether the object holds nothing any more.
    fn is_over(&self, py: Python<'_>) -> bool;
}

/// Have the objects of a class kept, before any of it is made.
pub fn install<T: Reused>(py: Python<'_>) {
    if cfg!(Py_GIL_DISABLED) {
        return;
    }
    let class = py.get_type::<T>();
    // SAFETY: the type object lives as long as the interpreter, and nobody else uses it: the module is being made.
    let class = unsafe { &mut *class.as_type_ptr() };
    T::kept().contents.borrow_mut(py).destroy = class.tp_dealloc;
    class.tp_dealloc = Some(keep_or_destroy::<T>);
}

/// Take an object that is over, to be filled.
#[inline]
pub fn take<T: Reused>(py: Python<'_>) -> Option<Bound<'_, T>> {
    let Dead(object) = T::kept().contents.borrow_mut(py).objects.pop()?;
    // SAFETY: a whole object that nobody has a reference to.
    unsafe { _Py_NewReference(object) };
    // SAFETY: the reference that was just made.
    let object = unsafe { Bound::from_owned_ptr(py, object) };
    // SAFETY: what is kept for a class is of that class.
    Some(unsafe { object.cast_into_unchecked() })
}

/// The `tp_dealloc` of such a class.
///
/// # Safety
/// To be called as CPython calls `tp_dealloc`, with the GIL held.
unsafe extern "C" fn keep_or_destroy<T: Reused>(object: *mut ffi::PyObject) {
    // SAFETY: the interpreter destroys objects on attached threads.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: an object of this class, whose last reference is gone.
    let was_finalized = unsafe { ffi::PyObject_GC_IsFinalized(object) } != 0;
    let is_over = {
        // SAFETY: it is still whole; a borrowed reference counts for nothing.
        let object = unsafe { Borrowed::from_ptr(py, object) };
        // SAFETY: the slot is that of the class, which has no subclasses.
        unsafe { object.cast_unchecked::<T>() }.get().is_over(py)
    };
    let mut contents = T::kept().contents.borrow_mut(py);
    if is_over && !was_finalized && contents.objects.len() < CAPACITY {
        // SAFETY: the class has a traverse function, so the object has a collector's header; untracked it is left so.
        unsafe { ffi::PyObject_GC_UnTrack(object.cast()) };
        contents.objects.push(Dead(object));
        return;
    }
    let destroy = contents.destroy;
    drop(contents);
    if let Some(destroy) = destroy {
        // SAFETY: as the caller promises.
        unsafe { destroy(object) };
    }
}
