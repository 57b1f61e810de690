//! A standing interest in readability: a socket that is read again and again asks the driver once.
//!
//! The driver repeats its report for as long as the socket stays readable (clause 9 of its contract). So whoever
//! has read everything need not try once more to be told that nothing is left: what comes later is reported.
//!
//! | slot              | a report comes                       | the socket was read to its end | the watch is dropped |
//! |-------------------|--------------------------------------|--------------------------------|----------------------|
//! | Watching, unready | ready, wakes                         | nothing                        | the op is cancelled  |
//! | Watching, ready   | Abandoned, op is cancelled           | unready                        | the op is cancelled  |
//! | none or Abandoned | (outcome dropped)                    | nothing                        | nothing              |
//!
//! # Invariants
//! - While the slot is Watching and unready, a report comes once there is something to read; else nobody knows.
//! - A socket that nobody reads costs two reports: the second one ends the op, until somebody waits again. Who was
//!   woken by the first and has not run yet tries the socket: it was ready.
//! - The op is cancelled before the descriptor is closed: a watch is dropped before its socket.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::os::fd::RawFd;
use std::task::{Context, Poll, Waker};

use aioxide_driver::{Op, Outcome};

use crate::handle::Handle;
use crate::operation::{self, Operation, Slot, finished, keep_waker};
use crate::slots::SlotKey;

/// See the module's docs.
#[derive(Debug)]
pub(crate) struct Watch {
    handle: Handle,
    key: Cell<Option<SlotKey>>,
    /// Whether somebody waits for the report.
    is_claimed: Cell<bool>,
}

impl Watch {
    /// One that has not begun: nothing is known of the socket.
    pub(crate) fn new(handle: Handle) -> Self {
        Self { handle, key: Cell::new(None), is_claimed: Cell::new(false) }
    }

    /// The runtime that watches.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Whether there is something to read, as far as anybody knows.
    pub(crate) fn may_be_ready(&self) -> bool {
        self.with_slot(|slot| if let Slot::Watching { is_ready, .. } = slot { *is_ready } else { true })
            .unwrap_or(true)
    }

    /// Nothing is left to read.
    pub(crate) fn note_drained(&self) {
        self.with_slot(|slot| {
            if let Slot::Watching { is_ready, .. } = slot {
                *is_ready = false;
            }
        });
    }

    /// Waits until there is something to read.
    pub(crate) async fn wait(&self, descriptor: RawFd) -> io::Result<()> {
        if self.is_claimed.get() {
            // Several tasks accept from one listener, say: the others ask for themselves.
            let op = Op::WaitReadable { descriptor, repeat: false };
            return finished(Operation::submit(&self.handle, op).await);
        }
        let _claim = Claim::new(self);
        let mut has_waited = false;
        poll_fn(|context| {
            let polled = self.poll(descriptor, has_waited, context);
            has_waited = true;
            polled
        })
        .await
    }

    fn poll(&self, descriptor: RawFd, has_waited: bool, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        enum Seen {
            Ready,
            Waiting(Option<Waker>),
            Over,
            Nothing,
        }
        let seen = self.with_slot(|slot| match slot {
            Slot::Watching { is_ready: true, .. } => Seen::Ready,
            Slot::Watching { waker, .. } => Seen::Waiting(keep_waker(waker, context)),
            Slot::Finished(_) => Seen::Over,
            Slot::Waiting(_) | Slot::Abandoned => Seen::Nothing,
        });
        match seen {
            Some(Seen::Ready) => Poll::Ready(Ok(())),
            Some(Seen::Waiting(previous)) => {
                drop(previous);
                Poll::Pending
            }
            Some(Seen::Over) => match self.take_outcome() {
                // A shutdown while nobody waited concerns nobody.
                Some(Outcome::Cancelled) if !has_waited => self.begin(descriptor, context),
                outcome => Poll::Ready(outcome.map_or(Ok(()), finished)),
            },
            // Silenced while we were on our way: it was ready, twice. To begin anew would be to wait again.
            Some(Seen::Nothing) | None if has_waited => Poll::Ready(Ok(())),
            Some(Seen::Nothing) | None => self.begin(descriptor, context),
        }
    }

    fn begin(&self, descriptor: RawFd, context: &Context<'_>) -> Poll<io::Result<()>> {
        let slot = Slot::Watching { waker: Some(context.waker().clone()), is_ready: false };
        match operation::begin(&self.handle, Op::WaitReadable { descriptor, repeat: true }, slot) {
            Ok(key) => {
                self.key.set(Some(key));
                Poll::Pending
            }
            Err(outcome) => Poll::Ready(finished(outcome)),
        }
    }

    /// How the op ended by itself: it failed, or its runtime has ended.
    fn take_outcome(&self) -> Option<Outcome> {
        let key = self.key.take()?;
        let slot = self.handle.operations.borrow_mut().remove(key);
        if let Some(Slot::Finished(outcome)) = slot { Some(outcome) } else { None }
    }

    /// Look at the slot, if there still is one; `visit` calls and drops nothing foreign.
    fn with_slot<R>(&self, visit: impl FnOnce(&mut Slot) -> R) -> Option<R> {
        let key = self.key.get()?;
        self.handle.operations.borrow_mut().get_mut(key).map(visit)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(key) = self.key.get() {
            operation::abandon(&self.handle, key);
        }
    }
}

/// Who waits for the report; a waiter that is dropped is not woken.
struct Claim<'watch>(&'watch Watch);

impl<'watch> Claim<'watch> {
    fn new(watch: &'watch Watch) -> Self {
        watch.is_claimed.set(true);
        Self(watch)
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.0.is_claimed.set(false);
        let waker = self
            .0
            .with_slot(|slot| if let Slot::Watching { waker, .. } = slot { waker.take() } else { None });
        drop(waker);
    }
}
