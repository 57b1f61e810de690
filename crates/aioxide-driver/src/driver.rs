//! The driver: one of the backends, chosen when it is opened.
//!
//! Dispatch is a closed enum and a `match`, so the reader sees every backend there is and the
//! compiler sees through every call.

use std::io;
use std::time::Duration;

use crate::choice::{Backend, Choice, Options};
use crate::epoll::Epoll;
#[cfg(feature = "testing")]
use crate::scripted::{Script, Scripted};
use crate::uring::Uring;
use crate::{Completion, Op, Outcome, Token, Waker};

/// Operations go in, completions come out. See the crate's docs for the contract.
///
/// ```
/// use std::os::fd::AsRawFd;
/// use aioxide_driver::{Driver, Op, Options, Outcome, Submitted, Token};
///
/// # fn main() -> std::io::Result<()> {
/// let mut driver = Driver::open(&Options::default())?;
/// let (near, far) = std::os::unix::net::UnixStream::pair()?;
/// let readable = Op::WaitReadable { descriptor: near.as_raw_fd(), repeat: false };
/// assert!(matches!(driver.submit(readable, Token(1)), Submitted::Pending));
///
/// std::io::Write::write_all(&mut &far, b"hello")?;
/// let mut completions = Vec::new();
/// while completions.is_empty() {
///     driver.wait(None, &mut completions)?;
/// }
/// assert_eq!(completions[0].token, Token(1));
/// assert!(matches!(completions[0].outcome, Outcome::Ready));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Driver {
    backend: Backends,
    reason: String,
}

#[derive(Debug)]
enum Backends {
    Epoll(Box<Epoll>),
    #[cfg(feature = "testing")]
    Scripted(Box<Scripted>),
    Uring(Box<Uring>),
}

/// Calls one method on whichever backend it is.
macro_rules! each {
    ($driver:expr, $backend:ident => $call:expr) => {
        match $driver {
            Backends::Epoll($backend) => $call,
            #[cfg(feature = "testing")]
            Backends::Scripted($backend) => $call,
            Backends::Uring($backend) => $call,
        }
    };
}

impl Driver {
    /// Opens the backend of `options.choice`.
    pub fn open(options: &Options) -> io::Result<Driver> {
        let epoll = |reason| Ok(Driver { backend: Backends::Epoll(Box::new(Epoll::open()?)), reason });
        let uring = |uring, reason: &str| Driver {
            backend: Backends::Uring(Box::new(uring)),
            reason: reason.to_owned(),
        };
        match options.choice {
            Choice::Epoll => epoll("epoll was asked for".to_owned()),
            Choice::Uring => Ok(uring(Uring::open(options)?, "io_uring was asked for")),
            Choice::Auto => match Uring::open(options) {
                Ok(opened) => Ok(uring(opened, "the kernel allows io_uring")),
                Err(error) => epoll(error.to_string()),
            },
        }
    }

    /// A driver that answers from a script, and the script.
    #[cfg(feature = "testing")]
    pub fn scripted() -> io::Result<(Driver, Script)> {
        let (scripted, script) = Scripted::open()?;
        let backend = Backends::Scripted(Box::new(scripted));
        Ok((Driver { backend, reason: "a script was asked for".to_owned() }, script))
    }

    /// Which backend was opened.
    pub fn backend(&self) -> Backend {
        match self.backend {
            Backends::Epoll(_) => Backend::Epoll,
            #[cfg(feature = "testing")]
            Backends::Scripted(_) => Backend::Scripted,
            Backends::Uring(_) => Backend::Uring,
        }
    }

    /// Why this backend, for a person to read.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Starts an operation. It may be answered at once; else its completions carry `token`.
    pub fn submit(&mut self, op: Op, token: Token) -> Submitted {
        each!(&mut self.backend, backend => backend.submit(op, token))
    }

    /// Asks for an operation to end. Its final completion still comes from a later `wait`; it says
    /// [`Outcome::Cancelled`] unless the operation was faster. A token that is not in flight is
    /// ignored.
    pub fn cancel(&mut self, token: Token) {
        each!(&mut self.backend, backend => backend.cancel(token));
    }

    /// Submits what is queued, waits for at least one completion, a wake or the timeout (`None`: for
    /// ever), and appends the completions. Returns early for no visible reason at times (clause 3).
    pub fn wait(&mut self, timeout: Option<Duration>, completions: &mut Vec<Completion>) -> io::Result<()> {
        each!(&mut self.backend, backend => backend.wait(timeout, completions))
    }

    /// Whether the kernel has yet to see new operations or cancels, or to be asked about new operations;
    /// the next `wait` does it. A host that skips waits while it is busy must not skip this one: what
    /// a short-lived operation would have found might never be found. One that repeats is new once.
    #[inline]
    pub fn has_unsubmitted(&self) -> bool {
        match &self.backend {
            Backends::Epoll(epoll) => epoll.has_unasked(),
            #[cfg(feature = "testing")]
            Backends::Scripted(_) => false,
            Backends::Uring(uring) => uring.has_unsubmitted(),
        }
    }

    /// Whether a `wait` would find completions, as far as memory tells without a syscall. `None`:
    /// only the kernel knows. A wake is no completion; who wakes says so elsewhere.
    #[inline]
    pub fn ready_hint(&self) -> Option<bool> {
        match &self.backend {
            Backends::Epoll(epoll) => epoll.has_early().then_some(true),
            #[cfg(feature = "testing")]
            Backends::Scripted(scripted) => Some(scripted.is_ready()),
            Backends::Uring(uring) => uring.ready_hint(),
        }
    }

    /// Ends a `wait` from any thread.
    pub fn waker(&self) -> Waker {
        each!(&self.backend, backend => backend.waker())
    }

    /// What is in flight, and what was done so far.
    pub fn statistics(&self) -> Statistics {
        each!(&self.backend, backend => backend.statistics())
    }
}

/// What [`Driver::submit`] did with an operation.
#[derive(Debug)]
#[must_use = "an operation that was answered at once has no completion"]
pub enum Submitted {
    /// It is in flight; completions will tell.
    Pending,
    /// This is the answer, and the only one.
    Done(Outcome),
}

/// Plain counters. The first two return to zero when everything was finished and given back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Operations whose final completion has not been collected.
    pub in_flight: usize,
    /// Blocks of receive memory that the host holds, as [`Buffer`](crate::Buffer).
    pub buffers_lent: usize,
    /// Operations submitted so far.
    pub submitted: u64,
    /// Completions delivered so far.
    pub completed: u64,
    /// Waits so far.
    pub waits: u64,
}

/// A host may move its driver between threads.
const _: () = {
    const fn is_send<T: Send>() {}
    is_send::<Driver>();
    is_send::<Completion>();
};
