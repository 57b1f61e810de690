//! The interface by which other people's extensions bring their futures: a table of C functions in a capsule. The contract
//! is that of `aioxide-awaitable-abi`; here is our side of it.
//!
//! # Invariants
//! - The table and what it points to are static: extensions keep them.
//! - Nothing unwinds into an extension, and no extension's future is polled or dropped but by its thread, attached.
#![expect(unsafe_code, reason = "gets futures as pointers, and gives objects so")]

use std::ffi::{c_int, c_void};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::ptr;
use std::task::{Context, Poll};
use std::time::Duration;

use aioxide_awaitable_abi::{
    Answers, CAPSULE, Erased, Interface, Payload, RawAnswer, RawFuture, RawName, Status, VERSION, erase,
};
use pyo3::exceptions::PySystemError;
use pyo3::ffi;
use pyo3::prelude::*;

use crate::awaitable::extension;
use crate::error::{ThinErr, ThinResult};

static INTERFACE: Interface =
    Interface { version: VERSION, size: size_of::<Interface>() as u32, awaitable, spawn, sleep };

/// Make the capsule, which is an attribute of the module.
pub fn capsule(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    let table = ptr::from_ref(&INTERFACE).cast_mut().cast();
    // SAFETY: table and name are static; there is nothing to do when the capsule goes.
    let capsule = unsafe { ffi::PyCapsule_New(table, CAPSULE.as_ptr(), None) };
    // SAFETY: a new reference, or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(py, capsule) }
}

/// A future of an extension's: its output is an object or an exception.
pub struct ForeignFuture {
    future: Erased,
}

impl ForeignFuture {
    /// # Safety
    /// As for [`Erased::from_raw`].
    unsafe fn from_raw(future: RawFuture) -> Self {
        // SAFETY: as the caller promises.
        Self { future: unsafe { Erased::from_raw(future) } }
    }
}

impl Future for ForeignFuture {
    type Output = PyResult<Py<PyAny>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_thin(context).map_err(PyErr::from)
    }
}

impl ForeignFuture {
    /// As `poll`, with an error that is passed on cheaply.
    #[inline(always)]
    pub fn poll_thin(&mut self, context: &mut Context<'_>) -> Poll<ThinResult<Py<PyAny>>> {
        Pin::new(&mut self.future).poll(context).map(|RawAnswer { status, value }| {
            // SAFETY: whoever polls it is attached, see the invariants.
            let py = unsafe { Python::assume_attached() };
            match status {
                Status::DONE => {
                    // SAFETY: with this status it is a new reference, or null with an exception set.
                    unsafe { Bound::from_owned_ptr_or_err(py, value.cast()) }
                        .map(Bound::unbind)
                        .map_err(ThinErr::from)
                }
                Status::FAILED => Err(PyErr::fetch(py).into()),
                Status(other) => {
                    Err(PySystemError::new_err(format!("a Rust future answered {other}")).into())
                }
            }
        })
    }
}

/// The text that a name points to.
///
/// # Safety
/// It is one by the interface's contract, for as long as `'a`.
unsafe fn text<'a>(name: RawName) -> &'a str {
    // SAFETY: as the caller promises.
    let bytes = unsafe { std::slice::from_raw_parts(name.data, name.length) };
    // SAFETY: names are UTF-8.
    unsafe { std::str::from_utf8_unchecked(bytes) }
}

/// The reference that a function returns; null, with the exception set, for an error or a panic.
fn returned(py: Python<'_>, make: impl FnOnce() -> PyResult<Py<PyAny>>) -> *mut c_void {
    let made = catch_unwind(AssertUnwindSafe(make));
    match made
        .unwrap_or_else(|_| Err(PySystemError::new_err("aioxide panicked; please report this as a bug")))
    {
        Ok(object) => object.into_ptr().cast(),
        Err(error) => {
            error.restore(py);
            ptr::null_mut()
        }
    }
}

unsafe extern "C" fn awaitable(future: RawFuture, name: RawName) -> *mut c_void {
    // SAFETY: the interface is called by attached threads.
    let py = unsafe { Python::assume_attached() };
    // Made where it stays: a copy of two words that were just written one by one would have to wait for them.
    // SAFETY: the caller gives the future away, and it is taken once: here, or where the awaitable was not made.
    let take = || unsafe { ForeignFuture::from_raw(future) };
    // SAFETY: the name of an awaitable is static.
    let name = unsafe { text(name) };
    returned(py, || match extension::awaitable(py, name, take) {
        Ok(awaitable) => Ok(awaitable.into_any()),
        Err(error) => {
            drop(take());
            Err(error)
        }
    })
}

unsafe extern "C" fn spawn(future: RawFuture, name: RawName) -> c_int {
    // SAFETY: as in `awaitable`.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: as in `awaitable`.
    let future = unsafe { ForeignFuture::from_raw(future) };
    // SAFETY: the name lives as long as the call.
    let name = unsafe { text(name) };
    let spawned = returned(py, || {
        extension::spawn(py, name, future)?;
        Ok(py.None())
    });
    if spawned.is_null() {
        return -1;
    }
    // SAFETY: the reference to None that was made above.
    unsafe { ffi::Py_DECREF(spawned.cast()) };
    0
}

unsafe extern "C" fn sleep(nanoseconds: u64) -> RawFuture {
    let sleep = || erase::<ToNothing, _>(aioxide_runtime::sleep(Duration::from_nanos(nanoseconds)));
    // It panics where no loop runs.
    catch_unwind(sleep).unwrap_or(RawFuture { data: ptr::null_mut(), vtable: ptr::null() })
}

/// Makes null of nothing.
struct ToNothing;

// SAFETY: it asks for no memory that is used again: nothing keeps who sleeps from releasing the interpreter's lock.
unsafe impl Answers<()> for ToNothing {
    const UNDER_ONE_LOCK: bool = false;

    fn answer((): ()) -> RawAnswer {
        RawAnswer { status: Status::DONE, value: ptr::null_mut() }
    }

    fn panicked(_payload: Payload) -> RawAnswer {
        Python::attach(|py| PySystemError::new_err("a Rust timer panicked").restore(py));
        RawAnswer { status: Status::FAILED, value: ptr::null_mut() }
    }
}
