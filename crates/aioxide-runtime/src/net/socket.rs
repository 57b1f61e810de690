//! A non-blocking socket and its readiness.
//!
//! # Invariants
//! - The futures borrow the socket, so an operation is cancelled before its descriptor is closed.
//! - A socket that never blocks does not keep its task running: after
//!   [`PATIENCE`](crate::handle::PATIENCE) operations that succeeded at once, the next one yields.

use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::task::Poll;

use aioxide_driver::Op;
use socket2::SockRef;

use super::watch::Watch;
use crate::handle::Handle;
use crate::operation::{Operation, finished};

/// A socket of std's that belongs to a runtime.
#[derive(Debug)]
pub(crate) struct Socket<S> {
    /// Dropped before the socket.
    readability: Watch,
    pub(crate) std: S,
}

impl<S: AsFd> Socket<S> {
    /// Takes a socket into the current runtime.
    #[track_caller]
    pub(crate) fn new(std: S) -> io::Result<Self> {
        SockRef::from(&std).set_nonblocking(true)?;
        Ok(Self { readability: Watch::new(Handle::current()), std })
    }

    /// Calls `attempt` until it no longer would block, waiting for readability in between.
    pub(crate) async fn when_readable<R>(
        &self,
        mut attempt: impl FnMut(&S) -> io::Result<R>,
    ) -> io::Result<R> {
        spend_patience(self.readability.handle()).await;
        loop {
            if self.readability.may_be_ready() {
                match attempt(&self.std) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.readability.note_drained()
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    result => return result,
                }
            }
            self.readability.wait(self.std.as_fd().as_raw_fd()).await?;
        }
    }

    /// A stream gave less than there was room for: all that it had.
    pub(crate) fn note_drained(&self) {
        self.readability.note_drained();
    }

    /// Calls `attempt` until it no longer would block, waiting for writability in between.
    pub(crate) async fn when_writable<R>(
        &self,
        mut attempt: impl FnMut(&S) -> io::Result<R>,
    ) -> io::Result<R> {
        let handle = self.readability.handle();
        spend_patience(handle).await;
        loop {
            match attempt(&self.std) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => return result,
            }
            // Seldom, other than reading: no standing interest.
            let op = Op::WaitWritable { descriptor: self.std.as_fd().as_raw_fd(), repeat: false };
            finished(Operation::submit(handle, op).await)?;
        }
    }
}

/// Yields if the task has succeeded at once too often; its next run restores the patience.
fn spend_patience(handle: &Handle) -> impl Future<Output = ()> {
    poll_fn(|context| match handle.patience.get().checked_sub(1) {
        Some(left) => {
            handle.patience.set(left);
            Poll::Ready(())
        }
        None => {
            context.waker().wake_by_ref();
            Poll::Pending
        }
    })
}
