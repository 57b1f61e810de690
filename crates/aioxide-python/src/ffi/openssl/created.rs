//! Which session did Python just make? OpenSSL calls `made` within `SSL_new`, and `freed` within `SSL_free`, so for the
//! time in which Python makes an object it is known which sessions this thread made that live still. The right one names
//! the Python object that owns it as its application data, as CPython needs in its own callbacks.
//!
//! # Invariants
//! - A session in the list is alive while the list is locked: OpenSSL calls `freed` before it frees the memory.
//! - `COUNT` is the list's length. Nothing is locked while that is zero, which is nearly always: a process may fork at any
//!   moment.
#![expect(unsafe_code, reason = "OpenSSL calls these functions and is asked about sessions by pointer")]

use std::cell::Cell;
use std::ffi::{c_int, c_long, c_void};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;

use super::library::{Library, Ssl};

/// The index of a session's application data (`SSL_get_app_data`).
const APPLICATION_DATA: c_int = 0;

/// A session that was made while somebody observed.
struct Made {
    observer: u64,
    session: *mut Ssl,
}

// SAFETY: the pointer is only compared, and used while the list is locked, where it is valid on every thread.
unsafe impl Send for Made {}

static MADE: Mutex<Vec<Made>> = Mutex::new(Vec::new());
static COUNT: AtomicUsize = AtomicUsize::new(0);
static OBSERVERS: AtomicU64 = AtomicU64::new(NOBODY);
const NOBODY: u64 = 0;

thread_local! {
    static OBSERVER: Cell<u64> = const { Cell::new(NOBODY) };
}

/// Change the list.
fn change(body: impl FnOnce(&mut Vec<Made>)) {
    let mut list = list();
    body(&mut list);
    COUNT.store(list.len(), Ordering::Release);
}

fn list() -> MutexGuard<'static, Vec<Made>> {
    MADE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// OpenSSL made a session.
pub unsafe extern "C" fn made(
    session: *mut Ssl,
    _value: *mut c_void,
    _values: *mut c_void,
    _index: c_int,
    _number: c_long,
    _pointer: *mut c_void,
) {
    // A thread that ends observes nothing.
    let observer = OBSERVER.try_with(Cell::get).unwrap_or(NOBODY);
    if observer != NOBODY {
        change(|list| list.push(Made { observer, session }));
    }
}

/// OpenSSL is about to free a session.
pub unsafe extern "C" fn freed(
    session: *mut Ssl,
    _value: *mut c_void,
    _values: *mut c_void,
    _index: c_int,
    _number: c_long,
    _pointer: *mut c_void,
) {
    // Whoever frees a session that another thread made was told of it by that thread, after it was counted.
    if COUNT.load(Ordering::Acquire) > 0 {
        change(|list| list.retain(|made| made.session != session));
    }
}

/// Notes the sessions that this thread makes until it is dropped.
pub struct Observer {
    number: u64,
    previous: u64,
}

impl Observer {
    /// Begin to observe.
    pub fn begin() -> Self {
        let number = OBSERVERS.fetch_add(1, Ordering::Relaxed) + 1;
        Self { number, previous: OBSERVER.replace(number) }
    }

    /// The session that was made since then and belongs to `owner`.
    pub fn find(&self, library: &Library, owner: &Bound<'_, PyAny>) -> Option<NonNull<Ssl>> {
        let list = list();
        let ours = list.iter().filter(|made| made.observer == self.number);
        let mut found = ours.map(|made| made.session).filter(|session| {
            // SAFETY: sessions in the list are alive while it is locked.
            let data = unsafe { (library.functions.SSL_get_ex_data)(*session, APPLICATION_DATA) };
            data.cast() == owner.as_ptr()
        });
        found.next().and_then(NonNull::new)
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        OBSERVER.set(self.previous);
        change(|list| list.retain(|made| made.observer != self.number));
    }
}
