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

use crate::handle::Handle;
use crate::operation::{Operation, finished};

/// A socket of std's that belongs to a runtime.
#[derive(Debug)]
pub(crate) struct Socket<S> {
    pub(crate) std: S,
    handle: Handle,
}

#[derive(Clone, Copy)]
enum Interest {
    Readable,
    Writable,
}

impl<S: AsFd> Socket<S> {
    /// Takes a socket into the current runtime.
    #[track_caller]
    pub(crate) fn new(std: S) -> io::Result<Self> {
        SockRef::from(&std).set_nonblocking(true)?;
        Ok(Self { std, handle: Handle::current() })
    }

    /// Calls `attempt` until it no longer would block, waiting for readability in between.
    pub(crate) async fn when_readable<R>(&self, attempt: impl FnMut(&S) -> io::Result<R>) -> io::Result<R> {
        self.when(Interest::Readable, attempt).await
    }

    /// The same for writability.
    pub(crate) async fn when_writable<R>(&self, attempt: impl FnMut(&S) -> io::Result<R>) -> io::Result<R> {
        self.when(Interest::Writable, attempt).await
    }

    async fn when<R>(
        &self,
        interest: Interest,
        mut attempt: impl FnMut(&S) -> io::Result<R>,
    ) -> io::Result<R> {
        spend_patience(&self.handle).await;
        loop {
            match attempt(&self.std) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => return result,
            }
            let descriptor = self.std.as_fd().as_raw_fd();
            let op = match interest {
                Interest::Readable => Op::WaitReadable { descriptor, repeat: false },
                Interest::Writable => Op::WaitWritable { descriptor, repeat: false },
            };
            finished(Operation::submit(&self.handle, op).await)?;
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
