//! Reference counts as the processor likes them, for what is counted up and down often.
//!
//! CPython 3.12 and 3.13 count up by the lower half of the count, and down by the whole of it. The whole cannot be loaded
//! while the half that was stored last is still on its way to the cache, so an object that is taken up and soon let go
//! of keeps the processor waiting for as long as the rest of a short function takes. Here the half is loaded and the whole
//! is stored, which goes well with whatever was before and comes after.
#![expect(unsafe_code, reason = "reads and writes reference counts, as the interpreter's own macros")]

use pyo3::ffi;
use pyo3::prelude::*;

/// Whether the interpreter counts by halves: then a mortal object's upper half is zero, and an immortal one's lower half
/// negative (CPython `Include/object.h`).
const BY_HALVES: bool = cfg!(all(
    Py_3_12,
    not(Py_3_14),
    not(Py_GIL_DISABLED),
    not(py_sys_config = "Py_REF_DEBUG"),
    target_pointer_width = "64",
    target_endian = "little"
));

/// Another reference to an object, as `clone`.
#[inline(always)]
pub fn another<'py, T>(object: &Bound<'py, T>) -> Bound<'py, T> {
    another_of(object.py(), object.as_unbound()).into_bound(object.py())
}

/// Another reference to an object, as `clone_ref`.
#[inline(always)]
pub fn another_of<T>(py: Python<'_>, object: &Py<T>) -> Py<T> {
    // SAFETY: the object is alive, and the thread attached.
    unsafe { count_up(object.as_ptr()) };
    // SAFETY: the reference that was just counted.
    let another = unsafe { Bound::from_owned_ptr(py, object.as_ptr()) };
    // SAFETY: the same object, of the same type.
    unsafe { another.cast_into_unchecked() }.unbind()
}

/// How many references there are to an object; some big number where it is immortal.
#[inline(always)]
pub fn count<T>(object: &Bound<'_, T>) -> ffi::Py_ssize_t {
    // SAFETY: the object is alive, and the thread attached.
    unsafe { count_of(object.as_ptr()) }
}

/// Let go of an object that others hold, too; one that nobody else holds comes back.
#[inline(always)]
pub fn let_go_of_shared<T>(object: Bound<'_, T>) -> Option<Bound<'_, T>> {
    // SAFETY: the object is alive, the thread attached, and where it is counted down the reference is given up.
    if unsafe { count_down_shared(object.as_ptr()) } {
        std::mem::forget(object);
        None
    } else {
        Some(object)
    }
}

/// The count of a mortal object, where it is in halves; all others are left to the interpreter's own functions. Code that
/// was compiled for an older Python counts immortal objects, too, by the whole: their upper half tells of that.
///
/// # Safety
/// A live object, on an attached thread.
#[inline(always)]
unsafe fn mortal(object: *mut ffi::PyObject) -> Option<i32> {
    if !BY_HALVES {
        return None;
    }
    let halves = object.cast::<i32>();
    // Volatile, that is, not joined into a load of the whole.
    // SAFETY: the count is the object's first field, and nobody else counts meanwhile.
    let lower = unsafe { halves.read_volatile() };
    // SAFETY: as above.
    let upper = unsafe { halves.wrapping_add(1).read_volatile() };
    if lower >= 0 && upper == 0 { Some(lower) } else { None }
}

/// # Safety
/// A live object that [`mortal`] knows, on an attached thread.
#[inline(always)]
unsafe fn store(object: *mut ffi::PyObject, count: i32) {
    // SAFETY: as in `mortal`.
    unsafe { object.cast::<i64>().write(i64::from(count)) }
}

/// # Safety
/// As for [`mortal`].
#[inline(always)]
unsafe fn count_of(object: *mut ffi::PyObject) -> ffi::Py_ssize_t {
    // SAFETY: as the caller promises.
    match unsafe { mortal(object) } {
        Some(count) => count as ffi::Py_ssize_t,
        // SAFETY: as the caller promises.
        None => unsafe { ffi::Py_REFCNT(object) },
    }
}

/// # Safety
/// As for [`mortal`].
#[inline(always)]
unsafe fn count_up(object: *mut ffi::PyObject) {
    // SAFETY: as the caller promises.
    match unsafe { mortal(object) } {
        // SAFETY: as the caller promises.
        Some(count) => unsafe { store(object, count + 1) },
        // SAFETY: as the caller promises.
        None => unsafe { ffi::Py_INCREF(object) },
    }
}

/// Counts down, unless it is the last reference; whether it is not.
///
/// # Safety
/// As for [`mortal`].
#[inline(always)]
unsafe fn count_down_shared(object: *mut ffi::PyObject) -> bool {
    // SAFETY: as the caller promises.
    match unsafe { mortal(object) } {
        Some(1) => return false,
        // SAFETY: as the caller promises.
        Some(count) => unsafe { store(object, count - 1) },
        // SAFETY: as the caller promises.
        None if unsafe { ffi::Py_REFCNT(object) } == 1 => return false,
        // SAFETY: as the caller promises.
        None => unsafe { ffi::Py_DECREF(object) },
    }
    true
}
