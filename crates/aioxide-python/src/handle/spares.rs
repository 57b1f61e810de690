//! Handles that ran and that nobody has, kept for the next `call_soon`.
//!
//! Most programs let go of what `call_soon` returns at once. To make an object for each callback and to destroy it
//! afterwards costs as much as to call it; here it is emptied and filled again.
//!
//! # Invariants
//! - A handle in here is empty and not cancelled, known to nobody (no weak references either), and hidden from the
//!   garbage collector.
//! - There is none but while the loop runs: they hold it.

use pyo3::prelude::*;

use super::Scheduled;
use super::record::Record;
use crate::ffi::collector;
use crate::ffi::gil_cell::GilCell;

/// How many are kept.
const CAPACITY: usize = 1024;

/// Empty handles of one class and loop.
pub struct Spares<T> {
    handles: GilCell<Vec<Py<T>>>,
}

impl<T> Default for Spares<T> {
    fn default() -> Self {
        Self { handles: GilCell::new(Vec::new()) }
    }
}

impl<T: Scheduled> Spares<T> {
    /// Take one.
    #[inline]
    pub fn take(&self, py: Python<'_>) -> Option<Py<T>> {
        let handle = self.handles.borrow_mut(py).pop()?;
        Record::count_again();
        Some(handle)
    }

    /// Keep an empty handle that nobody else knows; it comes back where there are enough.
    #[inline]
    pub fn keep(&self, py: Python<'_>, handle: Py<T>) -> Result<(), Py<T>> {
        debug_assert!(!collector::is_known(handle.bind(py)), "somebody would see it change");
        let mut handles = self.handles.borrow_mut(py);
        if handles.len() >= CAPACITY {
            return Err(handle);
        }
        collector::hide(handle.bind(py));
        Record::count_no_more();
        handles.push(handle);
        Ok(())
    }

    /// Let go of all.
    pub fn clear(&self, py: Python<'_>) {
        let handles = std::mem::take(&mut *self.handles.borrow_mut(py));
        for handle in handles {
            Record::count_again();
            drop(handle);
        }
    }
}
