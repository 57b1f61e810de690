//! The changing state of a Python object, borrowed as a `RefCell` is, by whoever holds the GIL.
//!
//! PyO3 counts the borrows of a class atomically, twice for each: some twenty borrows for each message of a transport
//! cost as much as all the rest of our work. A class that is `frozen` and keeps its state in here does without.
//!
//! # Invariants
//! - A borrow comes with a `Python` token and ends before the GIL is given away: nothing calls Python while a state is
//!   borrowed. So the GIL's holder finds no borrow of another thread; a second one of its own panics, as with `RefCell`.
//! - Without the GIL there is no such protection: a loop refuses to be made where a free-threaded Python runs without it.
#![expect(unsafe_code, reason = "a RefCell whose borrows the GIL keeps on one thread at a time")]

use std::cell::{Ref, RefCell, RefMut};

use pyo3::Python;

/// A value inside a Python object.
#[derive(Default)]
pub struct SharedState<T>(RefCell<T>);

// SAFETY: borrowed with the GIL held only, and not across anything that gives the GIL away.
unsafe impl<T: Send> Sync for SharedState<T> {}

impl<T> SharedState<T> {
    /// Put a value in.
    pub const fn new(value: T) -> Self {
        Self(RefCell::new(value))
    }

    /// Look at it.
    pub fn borrow<'a>(&'a self, _py: Python<'a>) -> Ref<'a, T> {
        self.0.borrow()
    }

    /// Change it.
    pub fn borrow_mut<'a>(&'a self, _py: Python<'a>) -> RefMut<'a, T> {
        self.0.borrow_mut()
    }

    /// The value, which nobody else can know any more.
    pub fn get_mut(&mut self) -> &mut T {
        self.0.get_mut()
    }

    /// Look at it for the garbage collector, which runs with the GIL held, and never while a state is borrowed;
    /// `None` if it should be.
    pub fn visit<R>(&self, visit: impl FnOnce(&T) -> R) -> Option<R> {
        self.0.try_borrow().ok().map(|value| visit(&value))
    }
}
