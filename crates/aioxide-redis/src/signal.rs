//! Waking one future of this thread.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// Something happened: remembered until who waits has seen it.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    is_set: Cell<bool>,
    waiter: RefCell<Option<Waker>>,
}

impl Signal {
    /// Lets the future that waits, or will, go on.
    pub(crate) fn set(&self) {
        if !self.is_set.replace(true) {
            let waiter = self.waiter.borrow_mut().take();
            if let Some(waiter) = waiter {
                waiter.wake();
            }
        }
    }

    /// Waits until it is set, and unsets it. One future at a time waits.
    pub(crate) async fn wait(&self) {
        poll_fn(|context| {
            if self.is_set.take() {
                return Poll::Ready(());
            }
            let previous = self.waiter.borrow_mut().replace(context.waker().clone());
            drop(previous);
            Poll::Pending
        })
        .await;
    }
}
