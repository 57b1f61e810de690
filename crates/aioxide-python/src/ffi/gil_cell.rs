//! The state of an object that the GIL protects: what PyO3's own cells are, without their atomic operations, which cost
//! more than most of what is done under them.
//!
//! # Invariants
//! - A cell is opened with the GIL held, which the `Python` token shows. The module declares that it needs the GIL, so a
//!   free-threaded interpreter switches it on.
//! - A guard cannot be sent to another thread. One that is held while the GIL is released keeps the cell closed to
//!   others, and is given back with the GIL.
#![expect(unsafe_code, reason = "shares a RefCell between threads, of which one at a time has the GIL")]

use std::cell::{Cell, Ref, RefCell, RefMut};

use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;

/// Mutable state in a frozen class.
#[derive(Default)]
pub struct GilCell<T> {
    value: RefCell<T>,
}

// SAFETY: the flag of the `RefCell` and its value are touched by the thread that holds the GIL only: see the invariants.
unsafe impl<T: Send> Sync for GilCell<T> {}

impl<T> GilCell<T> {
    /// Wrap a value.
    pub const fn new(value: T) -> Self {
        Self { value: RefCell::new(value) }
    }

    /// Look at the value.
    pub fn borrow<'a>(&'a self, _py: Python<'a>) -> Ref<'a, T> {
        self.value.borrow()
    }

    /// Change the value. The caller calls no Python and drops no Python object meanwhile.
    pub fn borrow_mut<'a>(&'a self, _py: Python<'a>) -> RefMut<'a, T> {
        self.value.borrow_mut()
    }

    /// Open it for `body`, which calls no Python and drops no Python object.
    pub fn with<R>(&self, py: Python<'_>, body: impl FnOnce(&mut T) -> R) -> R {
        body(&mut self.borrow_mut(py))
    }

    /// Look at the value during a traversal of the garbage collector, which holds the GIL; `None` where it is being
    /// changed.
    pub fn look<'a>(&'a self, _visit: &PyVisit<'a>) -> Option<Ref<'a, T>> {
        self.value.try_borrow().ok()
    }

    /// As [`GilCell::look`], at what can be looked at by who could change it only.
    pub fn look_alone<'a>(&'a self, _visit: &PyVisit<'a>) -> Option<RefMut<'a, T>> {
        self.value.try_borrow_mut().ok()
    }

    /// The value, which nobody else can know any more.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

/// As [`GilCell`], for a small value, which is copied: there is nothing to open.
pub struct GilValue<T> {
    value: Cell<T>,
}

// SAFETY: as for `GilCell`.
unsafe impl<T: Send> Sync for GilValue<T> {}

impl<T: Copy> GilValue<T> {
    /// Wrap a value.
    pub const fn new(value: T) -> Self {
        Self { value: Cell::new(value) }
    }

    /// The value at this moment.
    #[inline(always)]
    pub fn get(&self, _py: Python<'_>) -> T {
        self.value.get()
    }

    /// Change the value.
    #[inline(always)]
    pub fn set(&self, _py: Python<'_>, value: T) {
        self.value.set(value);
    }

    /// The value, which nobody else can know any more.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}
