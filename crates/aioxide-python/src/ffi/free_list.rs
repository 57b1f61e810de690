//! Free lists: memory of the objects that every callback makes, kept for the next one of the same class.
//!
//! PyO3's own (`#[pyclass(freelist = N)]`) takes a lock and checks the type twice for every object, which costs as much
//! as the allocation that it saves. These rely on the GIL instead; a free-threaded build gets none.
//!
//! # Invariants
//! - A list holds memory of destroyed objects of exactly one class, which has no subclasses.
//! - Only an attached thread touches a list, one at a time: it holds the GIL.
//! - An object from a list is not tracked by the garbage collector, one that is allocated is: whoever makes one of these
//!   classes says which it is to be (`new_hidden`), or the class says that all are.
//! - Memory of an object whose finalizer ran is not kept: the collector would take the next one there for finalized.
#![expect(unsafe_code, reason = "an object's memory is handed out and taken back by C functions of its type")]

use std::cell::UnsafeCell;
use std::ffi::c_void;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::pyclass::PyClass;

/// How many objects of a class are kept.
const CAPACITY: usize = 256;

/// Memory of destroyed objects.
pub struct FreeList {
    objects: UnsafeCell<Vec<*mut ffi::PyObject>>,
}

// SAFETY: touched by the thread that holds the GIL only, see `install`.
unsafe impl Sync for FreeList {}

impl FreeList {
    /// An empty list.
    pub const fn new() -> Self {
        Self { objects: UnsafeCell::new(Vec::new()) }
    }

    /// Run `body` with the list's memory.
    fn with<R>(&self, body: impl FnOnce(&mut Vec<*mut ffi::PyObject>) -> R) -> R {
        // SAFETY: the two callers hold the GIL, and neither body runs Python or comes back here.
        body(unsafe { &mut *self.objects.get() })
    }
}

/// A class whose objects' memory is kept.
pub trait Recycled: PyClass {
    /// Whether the collector is to know every object of the class, also those that Python code makes.
    const TRACKED: bool = false;

    /// The list of this class.
    fn free_list() -> &'static FreeList;
}

/// Give a class its free list, before any object of it is made.
pub fn install<T: Recycled>(py: Python<'_>) {
    if cfg!(Py_GIL_DISABLED) {
        return;
    }
    let class = py.get_type::<T>();
    // SAFETY: the type object lives as long as the interpreter, and nobody else uses it: the module is being made.
    let class = unsafe { &mut *class.as_type_ptr() };
    class.tp_alloc = Some(allocate::<T>);
    class.tp_free = Some(free::<T>);
}

/// The `tp_alloc` of a recycled class.
///
/// # Safety
/// To be called as CPython calls `tp_alloc`, with the GIL held.
unsafe extern "C" fn allocate<T: Recycled>(
    class: *mut ffi::PyTypeObject,
    items: ffi::Py_ssize_t,
) -> *mut ffi::PyObject {
    let Some(object) = T::free_list().with(Vec::pop) else {
        // SAFETY: as the caller promises.
        return unsafe { ffi::PyType_GenericAlloc(class, items) };
    };
    // SAFETY: memory of a destroyed object of this class, with its collector's header, that nobody else has.
    let object = unsafe { ffi::PyObject_Init(object, class) };
    if T::TRACKED {
        let header = size_of::<ffi::PyObject>();
        // SAFETY: the class is alive.
        let size = unsafe { (*class).tp_basicsize }.unsigned_abs();
        // SAFETY: an object of this class, which is of this size.
        let body = unsafe { object.cast::<u8>().add(header) };
        // SAFETY: as above.
        unsafe { body.write_bytes(0, size - header) };
        // SAFETY: it was untracked when it was destroyed; empty, as a new one, it has nothing to traverse.
        unsafe { ffi::PyObject_GC_Track(object.cast()) };
    }
    object
}

/// The `tp_free` of a recycled class.
///
/// # Safety
/// To be called as CPython calls `tp_free`, with the GIL held and an object of this class, which is destroyed.
unsafe extern "C" fn free<T: Recycled>(object: *mut c_void) {
    // SAFETY: the memory of an object that has just been destroyed, with its collector's header.
    let was_finalized = unsafe { ffi::PyObject_GC_IsFinalized(object.cast()) } != 0;
    let is_kept = T::free_list().with(|objects| {
        let has_room = !was_finalized && objects.len() < CAPACITY;
        if has_room {
            objects.push(object.cast());
        }
        has_room
    });
    if !is_kept {
        // SAFETY: memory that came from `PyType_GenericAlloc` for a class with a traverse function.
        unsafe { ffi::PyObject_GC_Del(object) };
    }
}
