//! Waiting for time to pass, and for one's turn.

use std::error::Error;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use crate::handle::Handle;
use crate::{Deadline, TimerKey};

/// The current runtime's time.
///
/// # Panics
/// Outside of a runtime, like everything in this file.
#[track_caller]
#[must_use]
pub fn now() -> Deadline {
    Handle::current().now()
}

/// Completes after `duration`, counted from this call. It always takes a turn, even if it is zero.
///
/// ```
/// # use std::time::Duration;
/// aioxide_runtime::run(async {
///     aioxide_runtime::sleep(Duration::from_millis(1)).await;
/// })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[track_caller]
pub fn sleep(duration: Duration) -> Sleep {
    let handle = Handle::current();
    let deadline = handle.now().after(duration);
    Sleep { handle, deadline, stage: Stage::New }
}

/// Completes when the runtime's time has come to `deadline`.
#[track_caller]
pub fn sleep_until(deadline: Deadline) -> Sleep {
    Sleep { handle: Handle::current(), deadline, stage: Stage::New }
}

/// What [`sleep`] returns.
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct Sleep {
    handle: Handle,
    deadline: Deadline,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    New,
    /// The timer is gone from the timers once it expired (or its runtime ended).
    Waiting(TimerKey),
    Elapsed,
}

impl Sleep {
    /// When it completes.
    #[must_use]
    pub fn deadline(&self) -> Deadline {
        self.deadline
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        match self.stage {
            Stage::New => {
                let waker = context.waker().clone();
                let key = self.handle.timers.borrow_mut().insert(self.deadline, waker);
                self.stage = Stage::Waiting(key);
                Poll::Pending
            }
            Stage::Waiting(key) => {
                let mut timers = self.handle.timers.borrow_mut();
                let Some(waker) = timers.get_mut(key) else {
                    drop(timers);
                    self.stage = Stage::Elapsed;
                    return Poll::Ready(());
                };
                if !waker.will_wake(context.waker()) {
                    let previous = std::mem::replace(waker, context.waker().clone());
                    drop(timers);
                    drop(previous);
                }
                Poll::Pending
            }
            Stage::Elapsed => Poll::Ready(()),
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Stage::Waiting(key) = self.stage {
            let waker = self.handle.timers.borrow_mut().cancel(key);
            drop(waker);
        }
    }
}

/// Gives `future` this long, counted from this call; then drops it.
///
/// ```
/// # use std::time::Duration;
/// let result = aioxide_runtime::run(async {
///     aioxide_runtime::timeout(Duration::from_millis(1), std::future::pending::<()>()).await
/// })?;
/// assert!(result.is_err());
/// # Ok::<(), std::io::Error>(())
/// ```
#[track_caller]
pub fn timeout<F: Future>(
    duration: Duration,
    future: F,
) -> impl Future<Output = Result<F::Output, Elapsed>> + use<F> {
    let sleep = sleep(duration);
    async move {
        let mut future = pin!(future);
        let mut sleep = pin!(sleep);
        poll_fn(|context| {
            // A result that is there when the time is up counts.
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                return Poll::Ready(Ok(output));
            }
            sleep.as_mut().poll(context).map(|()| Err(Elapsed))
        })
        .await
    }
}

/// The time was up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;

impl fmt::Display for Elapsed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("timed out")
    }
}

impl Error for Elapsed {}

impl From<Elapsed> for io::Error {
    fn from(elapsed: Elapsed) -> Self {
        Self::new(io::ErrorKind::TimedOut, elapsed)
    }
}

/// Lets every other runnable task run once.
pub async fn yield_now() {
    let mut has_yielded = false;
    poll_fn(|context| {
        if std::mem::replace(&mut has_yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
