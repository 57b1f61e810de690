//! Threads for what cannot be awaited: name resolution, and whatever a user hands over.
//!
//! The pool grows with demand up to a bound, and a thread that found nothing to do for a while ends.
//!
//! # Invariants
//! - `idle` counts the threads inside `Condvar::wait_timeout`, `threads` those that will yet look at
//!   `jobs`; both change only under the lock, and no job runs or is dropped under it.
//! - After `close` no job is accepted. Jobs that run are not waited for: they own all they touch.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

use crate::handle::Handle;
use crate::tasks::{self, JoinHandle};

/// Runs `job` on a thread of the runtime's pool. Aborting the handle or dropping it does not stop a job
/// that has begun.
///
/// # Panics
/// Outside of a runtime.
///
/// ```
/// let sum = aioxide_runtime::run(async {
///     aioxide_runtime::spawn_blocking(|| (1..=10).sum::<u32>()).await
/// })?;
/// assert_eq!(sum.ok(), Some(55));
/// # Ok::<(), std::io::Error>(())
/// ```
#[track_caller]
pub fn spawn_blocking<T, F>(job: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    spawn(&Handle::current(), job)
}

pub(crate) fn spawn<T, F>(handle: &Handle, job: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let parcel = Arc::new(Mutex::new(Parcel::Awaited(None)));
    let sender = Sender(Arc::clone(&parcel));
    let job = move || sender.send(catch_unwind(AssertUnwindSafe(job)));
    let accepted = handle.pool.submit(Box::new(job));
    tasks::spawn(handle, tasks::default_name::<F>(), async move {
        if let Err(error) = accepted {
            panic!("no thread for a blocking job: {error}");
        }
        receive(&parcel).await.unwrap_or_else(|payload| resume_unwind(payload))
    })
}

/// The result of a job on its way between two threads.
enum Parcel<T> {
    Awaited(Option<Waker>),
    Sent(thread::Result<T>),
    /// The result was taken, or its job was dropped without being run.
    Gone,
}

struct Sender<T>(Arc<Mutex<Parcel<T>>>);

impl<T> Sender<T> {
    fn send(self, result: thread::Result<T>) {
        self.replace(Parcel::Sent(result));
    }

    fn replace(&self, next: Parcel<T>) {
        let mut parcel = lock(&self.0);
        if let Parcel::Awaited(_) = &*parcel {
            let previous = std::mem::replace(&mut *parcel, next);
            drop(parcel);
            if let Parcel::Awaited(Some(waker)) = previous {
                waker.wake();
            }
        }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.replace(Parcel::Gone);
    }
}

fn receive<T>(parcel: &Mutex<Parcel<T>>) -> impl Future<Output = thread::Result<T>> {
    poll_fn(|context| {
        let mut state = lock(parcel);
        let (next, is_pending) = match &*state {
            Parcel::Awaited(_) => (Parcel::Awaited(Some(context.waker().clone())), true),
            Parcel::Sent(_) | Parcel::Gone => (Parcel::Gone, false),
        };
        let previous = std::mem::replace(&mut *state, next);
        drop(state);
        match previous {
            _ if is_pending => Poll::Pending,
            Parcel::Sent(result) => Poll::Ready(result),
            Parcel::Awaited(_) | Parcel::Gone => panic!("the pool was closed before the job began"),
        }
    })
}

type Job = Box<dyn FnOnce() + Send>;

/// The threads of one runtime.
pub(crate) struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    has_work: Condvar,
    patience: Duration,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
    is_closed: bool,
}

/// asyncio's default executor grows to at most this many threads (`concurrent/futures/thread.py`).
const MAXIMUM_THREADS: usize = 32;

/// How long a thread waits for another job before it ends.
const IDLE_TIME: Duration = Duration::from_secs(5);

impl Pool {
    pub(crate) fn new() -> Self {
        Self::with_patience(IDLE_TIME)
    }

    fn with_patience(patience: Duration) -> Self {
        let shared = Shared { state: Mutex::default(), has_work: Condvar::new(), patience };
        Self { shared: Arc::new(shared) }
    }

    /// Queues a job, and starts a thread for it unless one is idle or there are enough.
    fn submit(&self, job: Job) -> io::Result<()> {
        let mut state = lock(&self.shared.state);
        if state.is_closed {
            return Err(io::Error::other("the runtime was shut down"));
        }
        let needs_thread = state.jobs.len() >= state.idle && state.threads < MAXIMUM_THREADS;
        if needs_thread {
            let shared = Arc::clone(&self.shared);
            #[expect(clippy::disallowed_methods, reason = "this is the one home of threads")]
            let started = thread::Builder::new().name("aioxide-blocking".into()).spawn(move || work(&shared));
            match started {
                Ok(_) => state.threads += 1,
                // The job can wait for a thread that is busy now.
                Err(_) if state.threads > 0 => {}
                Err(error) => return Err(error),
            }
        }
        state.jobs.push_back(job);
        drop(state);
        self.shared.has_work.notify_one();
        Ok(())
    }

    /// Refuses further jobs, drops those that have not begun and lets the threads end.
    pub(crate) fn close(&self) {
        let mut state = lock(&self.shared.state);
        state.is_closed = true;
        let jobs = std::mem::take(&mut state.jobs);
        drop(state);
        self.shared.has_work.notify_all();
        drop(jobs);
    }

    /// How many threads live.
    pub(crate) fn threads(&self) -> usize {
        lock(&self.shared.state).threads
    }
}

fn work(shared: &Shared) {
    let mut state = lock(&shared.state);
    loop {
        if let Some(job) = state.jobs.pop_front() {
            drop(state);
            // A job delivers its own panic; what is left is one of a destructor, which the panic hook has
            // reported and which must not end this thread uncounted.
            let _ = catch_unwind(AssertUnwindSafe(job));
            state = lock(&shared.state);
            continue;
        }
        if state.is_closed {
            break;
        }
        state.idle += 1;
        let waited = shared.has_work.wait_timeout(state, shared.patience);
        let (guard, result) = waited.unwrap_or_else(PoisonError::into_inner);
        state = guard;
        state.idle -= 1;
        if result.timed_out() && state.jobs.is_empty() {
            break;
        }
    }
    state.threads -= 1;
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No foreign code runs under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(all(test, not(miri)))]
mod tests {
    use std::sync::{Arc, Barrier, mpsc};
    use std::thread;
    use std::time::Duration;

    use super::{MAXIMUM_THREADS, Pool};

    #[test]
    fn the_pool_grows_to_its_bound_and_shrinks_to_nothing() {
        let pool = Pool::with_patience(Duration::from_millis(1));
        let everybody = Arc::new(Barrier::new(MAXIMUM_THREADS + 1));
        let (sender, receiver) = mpsc::channel();
        for number in 0..2 * MAXIMUM_THREADS {
            let (everybody, sender) = (Arc::clone(&everybody), sender.clone());
            pool.submit(Box::new(move || {
                if number < MAXIMUM_THREADS {
                    everybody.wait();
                }
                sender.send(number).unwrap();
            }))
            .unwrap();
        }
        assert_eq!(pool.threads(), MAXIMUM_THREADS);
        everybody.wait();
        drop(sender);
        assert_eq!(receiver.iter().count(), 2 * MAXIMUM_THREADS);
        while pool.threads() > 0 {
            thread::yield_now();
        }
    }

    #[test]
    fn an_idle_thread_is_used_again() {
        let pool = Pool::with_patience(Duration::from_secs(60));
        let (sender, receiver) = mpsc::channel();
        for _ in 0..10 {
            let sender = sender.clone();
            pool.submit(Box::new(move || sender.send(thread::current().id()).unwrap())).unwrap();
            receiver.recv().unwrap();
            while super::lock(&pool.shared.state).idle == 0 {
                thread::yield_now();
            }
        }
        assert_eq!(pool.threads(), 1);
        pool.close();
        assert!(pool.submit(Box::new(|| {})).is_err());
        while pool.threads() > 0 {
            thread::yield_now();
        }
    }
}
