//! A finalizer that sees the object alive, which PyO3 does not offer, and classes that nobody derives from.
//!
//! # Invariants
//! - Slots are set once, when the module is imported and before an instance exists. No class of these is a base class of
//!   anybody else's, so nothing inherits them.
//! - A finalizer runs at most once for each object, on an object that is alive (PEP 442).
#![expect(unsafe_code, reason = "sets fields of type objects, whose functions get raw pointers")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use pyo3::exceptions::PySystemError;
use pyo3::prelude::*;
use pyo3::types::PyType;
use pyo3::{Borrowed, PyClass, ffi};

/// A class whose objects have something to say when they go.
pub trait Finalized: PyClass {
    /// Whether the finalizer has anything to do.
    fn has_last_words(object: &Bound<'_, Self>) -> bool;
    /// Say it; nothing is raised.
    fn finalize(object: &Bound<'_, Self>);
    /// Where the class's own deallocator is kept.
    fn deallocator() -> &'static OnceLock<ffi::destructor>;
}

/// Have the finalizer of `F` run.
pub fn make_finalized<F: Finalized>(class: &Bound<'_, PyType>) {
    let object_type = class.as_type_ptr();
    // SAFETY: a type object of this module's own, which nobody uses yet.
    let deallocate = unsafe { (*object_type).tp_dealloc };
    if let Some(deallocate) = deallocate {
        F::deallocator().get_or_init(|| deallocate);
    }
    // SAFETY: as above.
    unsafe { (*object_type).tp_finalize = Some(finalize::<F>) };
    // SAFETY: as above.
    unsafe { (*object_type).tp_dealloc = Some(deallocate_finalized::<F>) };
}

/// Refuse classes derived from `class` from now on.
pub fn make_final(class: &Bound<'_, PyType>) {
    let object_type = class.as_type_ptr();
    // SAFETY: a type object of this module's own, which nobody uses yet.
    unsafe { (*object_type).tp_flags &= !ffi::Py_TPFLAGS_BASETYPE };
}

/// The `tp_finalize` slot.
unsafe extern "C" fn finalize<F: Finalized>(object: *mut ffi::PyObject) {
    // SAFETY: the interpreter calls slots on attached threads.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: the object is alive during the call.
    let borrowed = unsafe { Borrowed::from_ptr(py, object) };
    // SAFETY: the slot is set for F, which is final.
    let finalized = unsafe { borrowed.cast_unchecked::<F>() };
    // Objects go at any moment, also while an exception is on its way.
    let pending = PyErr::take(py);
    let finished = catch_unwind(AssertUnwindSafe(|| F::finalize(&finalized)));
    if finished.is_err() {
        PySystemError::new_err("aioxide panicked; please report this as a bug").write_unraisable(py, None);
    }
    if let Some(pending) = pending {
        pending.restore(py);
    }
}

/// The `tp_dealloc` slot of a class with a finalizer.
unsafe extern "C" fn deallocate_finalized<F: Finalized>(object: *mut ffi::PyObject) {
    let has_last_words = {
        // SAFETY: the interpreter calls slots on attached threads.
        let py = unsafe { Python::assume_attached() };
        // SAFETY: nobody has a reference any more, but the object is whole until the deallocator below; the borrowed
        // one makes none.
        let borrowed = unsafe { Borrowed::from_ptr(py, object) };
        // SAFETY: the slot is set for F, which is final.
        let finalized = unsafe { borrowed.cast_unchecked::<F>() };
        F::has_last_words(&finalized)
    };
    if has_last_words {
        // SAFETY: called by a deallocator, with its object, before anything of it is gone.
        let resurrected = unsafe { ffi::PyObject_CallFinalizerFromDealloc(object) };
        if resurrected < 0 {
            return;
        }
    }
    if let Some(deallocate) = F::deallocator().get() {
        // SAFETY: the class's own deallocator, which this one takes the place of.
        unsafe { deallocate(object) };
    }
}
