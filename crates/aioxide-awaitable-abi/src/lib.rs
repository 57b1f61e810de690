//! How a Rust future crosses from one shared library into another.
//!
//! An extension module and aioxide are compiled apart, perhaps by different compilers, so that nothing of
//! Rust's own ABI may pass between them: no `dyn Future`, no `Waker`, no panic. What passes are the
//! structures below, with C's layout and C's calls. [`erase`] makes a [`RawFuture`] of a future,
//! [`Erased`] is a future made of one; [`waker`] does the same for wakers. `aioxide-awaitable` is this for
//! extensions, which have no use for this crate itself.
//!
//! # The contract
//! 1. An [`Interface`] begins with its version. A version is changed by what is not compatible. What is
//!    new is appended, and shows in `size`; what was there stays as it is, for as long as the version.
//!    So whoever was compiled against a version works with every later table of it that is not smaller
//!    than the one it knows.
//! 2. Whoever gets a [`RawFuture`] owns it: it is polled by one thread, which also drops it. An answer other than
//!    [`Status::PENDING`] has dropped it: it is neither polled nor dropped after that.
//! 3. A [`RawWaker`] that is passed to `poll` is lent for that call; what `clone` returns is owned, and
//!    goes by `wake` or `drop`. Every function of a waker may be called on any thread.
//! 4. No function unwinds. Those of a future and of the interface are called with the interpreter's lock held; a waker's
//!    may be called without.
//! 5. The values of answers are references to Python objects, here opaque. [`Status::FAILED`] has no
//!    value: the exception is the thread's current one.
//! 6. What tables, vtables and names point to lives until the process ends.

mod erased;
mod memory;
pub mod waker;

use std::ffi::{CStr, c_int, c_void};

pub use erased::{Answers, Erased, Payload, RawAnswer, erase};

/// Where the [`Interface`] is found, for `PyCapsule_Import`.
pub const CAPSULE: &CStr = c"aioxide._rust._awaitable_capsule";

/// The version of the interface that this crate knows.
pub const VERSION: u32 = 2;

/// What aioxide offers to extensions.
#[derive(Debug)]
#[repr(C)]
pub struct Interface {
    /// [`VERSION`].
    pub version: u32,
    /// How many bytes the table has.
    pub size: u32,
    /// Makes an awaitable of the running loop. Takes the future over, also where it fails, by null and
    /// an exception.
    pub awaitable: unsafe extern "C" fn(future: RawFuture, name: RawName) -> *mut c_void,
    /// Spawns a task on the running loop; its value is dropped, its exception reported. Takes the future
    /// over, also where it fails, by -1 and an exception.
    pub spawn: unsafe extern "C" fn(future: RawFuture, name: RawName) -> c_int,
    /// Makes a future that is ready, with a null value, after so many nanoseconds. Where no loop polls or
    /// runs a future at this moment, it is all null.
    pub sleep: unsafe extern "C" fn(nanoseconds: u64) -> RawFuture,
}

/// A text in UTF-8.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct RawName {
    /// Its first byte.
    pub data: *const u8,
    /// How many bytes it has.
    pub length: usize,
}

impl RawName {
    /// Points to a text.
    #[must_use]
    pub const fn new(name: &str) -> Self {
        Self { data: name.as_ptr(), length: name.len() }
    }
}

/// A future of the other side.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct RawFuture {
    /// The future itself.
    pub data: *mut c_void,
    /// What can be done with it.
    pub vtable: *const FutureVtable,
}

/// What can be done with a [`RawFuture`].
#[derive(Debug)]
#[repr(C)]
pub struct FutureVtable {
    /// Goes on; where it is done, `value` is written, and the future dropped.
    pub poll:
        unsafe extern "C" fn(data: *mut c_void, waker: *const RawWaker, value: *mut *mut c_void) -> Status,
    /// Drops it, where it has not answered.
    pub drop: unsafe extern "C" fn(data: *mut c_void),
}

/// How a future answered. No enum: the other side may come to know more answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Status(pub u32);

impl Status {
    /// It waits, and will wake.
    pub const PENDING: Self = Self(0);
    /// It is done, with a value.
    pub const DONE: Self = Self(1);
    /// It is done, with an exception.
    pub const FAILED: Self = Self(2);
}

/// A waker of the other side: the beginning of an object that the other side knows the rest of.
#[derive(Debug)]
#[repr(C)]
pub struct RawWaker {
    /// What can be done with it.
    pub vtable: *const WakerVtable,
}

/// What can be done with a [`RawWaker`].
#[derive(Debug)]
#[repr(C)]
pub struct WakerVtable {
    /// Returns another waker of the same future, owned.
    pub clone: unsafe extern "C" fn(waker: *const RawWaker) -> *const RawWaker,
    /// Wakes, and takes an owned one over.
    pub wake: unsafe extern "C" fn(waker: *const RawWaker),
    /// Wakes.
    pub wake_by_ref: unsafe extern "C" fn(waker: *const RawWaker),
    /// Drops an owned one.
    pub drop: unsafe extern "C" fn(waker: *const RawWaker),
}
