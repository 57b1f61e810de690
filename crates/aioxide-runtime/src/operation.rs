//! A driver operation as a future.
//!
//! | slot      | the future polls  | the driver completes    | the future is dropped      |
//! |-----------|-------------------|-------------------------|----------------------------|
//! | Waiting   | keeps its waker   | Finished, wakes         | Abandoned, op is cancelled |
//! | Finished  | takes the outcome | (impossible)            | outcome dropped            |
//! | Abandoned | (impossible)      | outcome dropped         | (impossible)               |
//!
//! An op that repeats, of which there is one kind, is a [`Watch`](crate::net::watch::Watch)'s; its slot is Watching.
//!
//! # Invariants
//! - A slot is taken from the submission until the op's final completion, so its token is not reused
//!   while in flight (clause 4 of the driver's contract).
//! - Dropping the future cancels the op at once: afterwards the caller may close the descriptor
//!   (clause 8). Lent memory stays with the driver until the final completion (clause 1).

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use aioxide_driver::{Completion, Op, Outcome, Submitted};

use crate::handle::Handle;
use crate::slots::SlotKey;

/// The runtime's side of an operation in flight.
pub(crate) enum Slot {
    Waiting(Option<Waker>),
    Watching { waker: Option<Waker>, is_ready: bool },
    Finished(Outcome),
    Abandoned,
}

/// Resolves to the outcome of one single-shot operation.
#[derive(Debug)]
#[must_use = "an operation is cancelled when its future is dropped"]
pub(crate) struct Operation {
    handle: Handle,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The driver answered at once.
    Answered(Outcome),
    InFlight(SlotKey),
    Taken,
}

impl Operation {
    pub(crate) fn submit(handle: &Handle, op: Op) -> Self {
        let begun = begin(handle, op, Slot::Waiting(None));
        Self { handle: handle.clone(), stage: begun.map_or_else(Stage::Answered, Stage::InFlight) }
    }
}

/// Asks the driver, and has `slot` wait for it. Returns the slot's key, or the answer if it came at once.
pub(crate) fn begin(handle: &Handle, op: Op, slot: Slot) -> Result<SlotKey, Outcome> {
    let key = handle.operations.borrow_mut().insert(slot);
    match handle.submit(op, key.token()) {
        Submitted::Pending => Ok(key),
        Submitted::Done(outcome) => {
            let slot = handle.operations.borrow_mut().remove(key);
            drop(slot);
            Err(outcome)
        }
    }
}

/// Has `context` woken from `place`. Returns whose place it takes, to be dropped when nothing is borrowed.
pub(crate) fn keep_waker(place: &mut Option<Waker>, context: &Context<'_>) -> Option<Waker> {
    match place {
        Some(known) if known.will_wake(context.waker()) => None,
        _ => place.replace(context.waker().clone()),
    }
}

/// Takes in a completion that is not the host's: to be called between borrows.
pub(crate) fn complete(handle: &Handle, key: SlotKey, completion: Completion) {
    let Completion { outcome, more, .. } = completion;
    let mut operations = handle.operations.borrow_mut();
    match operations.get_mut(key) {
        Some(Slot::Watching { waker, is_ready }) if more => {
            let waker = waker.take();
            let is_unread = std::mem::replace(is_ready, true);
            drop(operations);
            if is_unread {
                // Else the driver would report it again and again.
                abandon(handle, key);
            }
            if let Some(waker) = waker {
                waker.wake();
            }
        }
        Some(slot @ (Slot::Waiting(_) | Slot::Watching { .. })) => {
            debug_assert!(!more, "a repeating operation that nobody watches");
            let previous = std::mem::replace(slot, Slot::Finished(outcome));
            drop(operations);
            if let Slot::Waiting(Some(waker)) | Slot::Watching { waker: Some(waker), .. } = previous {
                waker.wake();
            }
        }
        Some(Slot::Abandoned) if more => drop(operations),
        Some(Slot::Abandoned) => {
            let slot = operations.remove(key);
            drop(operations);
            drop((slot, outcome));
        }
        Some(Slot::Finished(_)) => panic!("a second final completion for {:?}", key.token()),
        None => panic!("a completion for {:?}, which is not in flight", key.token()),
    }
}

/// Nobody wants to hear of an operation any more.
pub(crate) fn abandon(handle: &Handle, key: SlotKey) {
    let mut operations = handle.operations.borrow_mut();
    let left = match operations.get_mut(key) {
        Some(slot @ (Slot::Waiting(_) | Slot::Watching { .. })) => {
            let left = std::mem::replace(slot, Slot::Abandoned);
            drop(operations);
            if !handle.cancel(key.token()) {
                let _ = handle.operations.borrow_mut().remove(key);
            }
            Some(left)
        }
        Some(Slot::Finished(_)) => {
            let left = operations.remove(key);
            drop(operations);
            left
        }
        // A watch that was silenced; its last completion is still to come.
        Some(Slot::Abandoned) | None => None,
    };
    drop(left);
}

impl Future for Operation {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        let key = match std::mem::replace(&mut self.stage, Stage::Taken) {
            Stage::Answered(outcome) => return Poll::Ready(outcome),
            Stage::InFlight(key) => key,
            Stage::Taken => panic!("an operation was polled after it finished"),
        };
        let mut operations = self.handle.operations.borrow_mut();
        match operations.get_mut(key) {
            Some(Slot::Waiting(waker)) => {
                let previous = keep_waker(waker, context);
                drop(operations);
                drop(previous);
                self.stage = Stage::InFlight(key);
                Poll::Pending
            }
            Some(Slot::Finished(_)) => {
                let Some(Slot::Finished(outcome)) = operations.remove(key) else {
                    unreachable!("a slot that changed while borrowed");
                };
                Poll::Ready(outcome)
            }
            Some(Slot::Abandoned | Slot::Watching { .. }) => {
                unreachable!("an abandoned operation, or a watch's, whose future lives")
            }
            // The runtime ended and took its operations with it.
            None => Poll::Ready(Outcome::Cancelled),
        }
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        if let Stage::InFlight(key) = self.stage {
            abandon(&self.handle, key);
        }
    }
}

/// Forgets every operation: the runtime ended, and with the driver gone none will complete.
pub(crate) fn clear(handle: &Handle) {
    let keys = handle.operations.borrow().keys();
    for key in keys {
        let slot = handle.operations.borrow_mut().remove(key);
        if let Some(Slot::Waiting(Some(waker)) | Slot::Watching { waker: Some(waker), .. }) = slot {
            waker.wake();
        }
    }
}

/// The result of an op whose success carries nothing.
pub(crate) fn finished(outcome: Outcome) -> io::Result<()> {
    match outcome {
        Outcome::Ready | Outcome::Connected => Ok(()),
        Outcome::Failed(error) => Err(error),
        // Only the runtime's end cancels an operation whose future still lives.
        Outcome::Cancelled => Err(io::Error::other("the operation was cancelled by its runtime's end")),
        other => unreachable!("{other:?} answers another kind of operation"),
    }
}
