//! Objects that are over, kept whole for the next ones of their class: to destroy one and to make one costs more than what
//! most of them are made for.
//!
//! What [free lists](super::free_list) keep is memory; what is kept here is an object, which needs only be filled.
//!
//! # Invariants
//! - An object in here is over, unknown to everybody (no weak references either) and hidden from the garbage collector; its
//!   class has no subclasses and no instance dictionary.
//! - A free-threaded build keeps nothing.
//! - An object whose finalizer ran is not kept: the collector would take the next one there for finalized.
#![expect(unsafe_code, reason = "an object whose last reference is gone is kept instead of destroyed")]

use std::sync::OnceLock;

use pyo3::prelude::*;
use pyo3::pyclass::PyClass;
use pyo3::pyclass::boolean_struct::True;
use pyo3::{Borrowed, ffi};

use super::gil_cell::GilCell;
use super::{call, collector};

/// How many objects of a class are kept in one place.
const CAPACITY: usize = 1024;

unsafe extern "C" {
    fn _Py_NewReference(object: *mut ffi::PyObject);
}

/// A class whose objects are used again.
pub trait Reused: PyClass<Frozen = True> + Sync {
    /// Where objects such as this one are kept at the moment, if anywhere.
    fn kept(&self) -> Option<&Kept<Self>>;

    /// Whether the object holds nothing any more.
    fn is_over(&self, py: Python<'_>) -> bool;

    /// Takes note that it is kept, or that it is no longer.
    fn note_kept(&self, _is_kept: bool) {}

    /// What destroys the others: the class's own deallocator.
    fn deallocator() -> &'static OnceLock<ffi::destructor>;
}

/// Objects of one class, each with the one reference from here.
pub struct Kept<T> {
    objects: GilCell<Vec<Py<T>>>,
}

impl<T: Reused> Kept<T> {
    /// None yet.
    pub const fn new() -> Self {
        Self { objects: GilCell::new(Vec::new()) }
    }

    /// Take an object, to be filled.
    #[inline]
    pub fn take(&self, py: Python<'_>) -> Option<Py<T>> {
        let object = self.objects.borrow_mut(py).pop()?;
        object.get().note_kept(false);
        Some(object)
    }

    /// Destroy all. Nothing is to be kept here any more.
    pub fn clear(&self, py: Python<'_>) {
        let objects = std::mem::take(&mut *self.objects.borrow_mut(py));
        for object in objects {
            object.get().note_kept(false);
            drop(object);
        }
    }
}

/// Let go of an object: as dropping it, but cheaper where it is kept.
#[inline]
pub fn release<T: Reused>(py: Python<'_>, object: Py<T>) {
    let bound = object.bind(py);
    if !cfg!(Py_GIL_DISABLED)
        && !collector::is_shared(bound)
        && let Some(kept) = place_for(bound)
    {
        put(kept, bound.clone());
    }
    call::release(py, object);
}

/// Have the objects of a class kept, before any of it is made.
pub fn install<T: Reused>(py: Python<'_>) {
    if cfg!(Py_GIL_DISABLED) {
        return;
    }
    let class = py.get_type::<T>();
    // SAFETY: the type object lives as long as the interpreter, and nobody else uses it: the module is being made.
    let class = unsafe { &mut *class.as_type_ptr() };
    if let Some(deallocate) = class.tp_dealloc.replace(keep_or_destroy::<T>) {
        T::deallocator().get_or_init(|| deallocate);
    }
}

/// The `tp_dealloc` of such a class.
///
/// # Safety
/// To be called as CPython calls `tp_dealloc`, with the GIL held.
unsafe extern "C" fn keep_or_destroy<T: Reused>(object: *mut ffi::PyObject) {
    // SAFETY: the interpreter destroys objects on attached threads.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: it is still whole; a borrowed reference counts for nothing.
    let borrowed = unsafe { Borrowed::from_ptr(py, object) };
    // SAFETY: the slot is that of the class, which has no subclasses.
    let borrowed = unsafe { borrowed.cast_unchecked::<T>() };
    if let Some(kept) = place_for(&borrowed) {
        // SAFETY: an object whose last reference is gone, and that gets one again.
        unsafe { _Py_NewReference(object) };
        // SAFETY: the reference that was just made.
        let revived = unsafe { Bound::from_owned_ptr(py, object) };
        // SAFETY: as above.
        put(kept, unsafe { revived.cast_into_unchecked() });
    } else if let Some(deallocate) = T::deallocator().get() {
        // SAFETY: as the caller promises.
        unsafe { deallocate(object) };
    }
}

/// Where an object that nobody else has may be kept, if it may and there is room.
#[inline]
fn place_for<'a, T: Reused>(object: &'a Bound<'_, T>) -> Option<&'a Kept<T>> {
    let this = object.get();
    if was_finalized(object) || !this.is_over(object.py()) || collector::has_weak_references(object) {
        return None;
    }
    this.kept().filter(|kept| kept.objects.borrow(object.py()).len() < CAPACITY)
}

/// Whether the collector called the object's finalizer.
#[inline]
fn was_finalized<T: PyClass>(object: &Bound<'_, T>) -> bool {
    // SAFETY: the object is whole.
    let class = unsafe { ffi::Py_TYPE(object.as_ptr()) };
    // SAFETY: an object's type lives as long as it does.
    let finalizer = unsafe { (*class).tp_finalize };
    // SAFETY: as above.
    finalizer.is_some() && unsafe { ffi::PyObject_GC_IsFinalized(object.as_ptr()) } != 0
}

#[inline]
fn put<T: Reused>(kept: &Kept<T>, object: Bound<'_, T>) {
    collector::hide(&object);
    object.get().note_kept(true);
    kept.objects.borrow_mut(object.py()).push(object.unbind());
}
