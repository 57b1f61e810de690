//! One turn of the loop. Read this first.
//!
//! 1. **How long may we sleep?** Not at all if a callback, a task, a write or mail is ready or the loop is to stop;
//!    else until the earlier of the two halves' deadlines; else for ever.
//!
//!    While nothing but callbacks can be waiting, which one look tells, a turn goes on with 5 at once.
//! 2. **Wait**: the only phase without the GIL. It touches only the driver and a vector of
//!    completions. While callbacks are ready the kernel is asked when the ring says that something came or when it
//!    must be told of new operations. Where there is no ring to look at, or one that does not have all that goes on,
//!    the kernel is asked in every turn, as asyncio does, until it has had nothing [`POLLS_IN_VAIN`] times in a row;
//!    from then on, and with a ring that is silent, only after [`CALLBACKS_PER_POLL`] callbacks.
//! 3. **Collect**: what other threads left in the inbox, then completions, then expired timers; that is
//!    asyncio's order. They become callbacks in the ready queue. Nothing here calls Python.
//! 4. **Run tasks**: runnable Rust futures, a bounded batch.
//! 5. **Run callbacks**: exactly those that were ready when this phase began (asyncio's `ntodo`). In a long turn the
//!    Rust futures that the first [`CALLBACKS_BEFORE_TASKS`] of them woke run before the rest.
//! 6. **Flush**: writes gathered during 4 and 5 leave together.
//!
//! # Invariants
//! - Completions, timers and mail are looked at in every turn or after a bounded number of callbacks, so no
//!   half starves the other.
//! - The cell is closed whenever Python runs.
//! - A child that a callback forked takes no turn with the parent's driver, and none of the parent's callbacks.

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aioxide_driver::{Completion, sys};
use aioxide_runtime::{Deadline, Runtime};
use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;

use super::ready::Batch;
use super::running::RunsHere;
use super::rust_tasks::Failures;
use super::{Core, EventLoop};
use crate::callback::Callback;
use crate::error::{ThinErr, ThinResult, os_error};
use crate::ffi::{call, snapshot, stop_iteration};
use crate::loop_cell::Running;
use crate::tasks::registry;
use crate::transports::datagram::DatagramTransport;
use crate::transports::stream::StreamTransport;
use crate::transports::tls::transport::TlsTransport;

/// After so many callbacks the kernel is asked for news, even when more callbacks are ready.
const CALLBACKS_PER_POLL: usize = 61;

/// After so many polls without news a storm of callbacks is going on, in which the kernel is asked less often.
/// Before that, what one end of a connection writes reaches the other end in the next turn, which programs count on
/// that await `sleep(0)` a few times.
const POLLS_IN_VAIN: usize = 16;

/// After so many callbacks of one turn Rust tasks run, once: a client's server gets the first part of a burst of
/// commands to work at while the rest is made. More often does not pay: each part costs a system call.
const CALLBACKS_BEFORE_TASKS: usize = 61;

/// How many Rust tasks may run before Python's callbacks get their turn.
const TASKS_PER_TURN: usize = 256;

/// Take turns until the loop is stopped or a callback raises what must end it.
pub fn run_turns(event_loop: &Bound<'_, EventLoop>) -> PyResult<()> {
    let this = event_loop.get();
    this._check_closed()?;
    let Some(running) = this.core.begin_running() else {
        return Err(PyRuntimeError::new_err("This event loop is already running"));
    };
    let (runtime, failures) = this.with_core(|core| (Rc::clone(&core.runtime), core.failures.clone()))?;
    if !runtime.is_at_home() {
        let names = runtime.tasks();
        return Err(PyRuntimeError::new_err(format!(
            "another thread has Rust tasks of this loop: {names:?}"
        )));
    }
    let _runs_here = RunsHere::begin(event_loop);
    let entered = Rc::clone(&runtime);
    let _entered = entered.enter();
    let mut turns = Turns {
        event_loop,
        runtime,
        failures,
        cell: running,
        completions: Vec::new(),
        running: Batch::default(),
        callbacks_since_poll: CALLBACKS_PER_POLL,
        polls_in_vain: 0,
    };
    let mut take_turns = || {
        loop {
            turns.take_turn()?;
            if this.stopping.load(Ordering::Relaxed) {
                break Ok(());
            }
        }
    };
    let py = event_loop.py();
    let result = snapshot::shared_in_loop(py, || stop_iteration::lent_to_loop(py, &mut take_turns));
    // What was written or submitted in the last turn must reach the kernel, and what was cancelled must leave it.
    registry::settle(event_loop);
    let flushed = turns.flush();
    let settled = turns.settle();
    this.stopping.store(false, Ordering::Relaxed);
    drop(turns);
    this.kept_handles.clear(py);
    Ok(result.and(flushed).and(settled)?)
}

struct Turns<'a, 'py> {
    event_loop: &'a Bound<'py, EventLoop>,
    /// The Rust half, which works with the cell closed: its tasks may come to call Python.
    runtime: Rc<Runtime>,
    failures: Failures,
    completions: Vec<Completion>,
    /// The callbacks of the present turn.
    running: Batch,
    callbacks_since_poll: usize,
    polls_in_vain: usize,
    /// Dropped last: with it the loop no longer runs.
    cell: Running<'a, Option<Core>>,
}

impl Turns<'_, '_> {
    fn take_turn(&mut self) -> ThinResult<()> {
        if !self.has_callbacks_only() {
            registry::settle(self.event_loop);
            let timeout = self.timeout()?;
            self.wait(timeout)?;
            self.event_loop.py().check_signals()?;
            self.collect()?;
            self.runtime.run_tasks(TASKS_PER_TURN);
        }
        let ran = self.run_callbacks();
        stop_iteration::empty(self.event_loop.py());
        snapshot::end_turn(self.event_loop.py());
        let flushed = self.flush();
        ran.and(flushed)?;
        Ok(EventLoop::report_tasks(self.event_loop, &self.runtime, &self.failures)?)
    }

    /// As [`EventLoop::with_core`].
    fn with_core<R>(&self, body: impl FnOnce(&mut Core) -> R) -> PyResult<R> {
        self.event_loop.get().opened(self.cell.with(|core| core.as_mut().map(body)))
    }

    /// Whether callbacks are ready and nothing else is due: no news of the kernel, no mail, no timers, no Rust tasks.
    /// It is so for [`CALLBACKS_PER_POLL`] callbacks at most, then signals and the kernel are asked again.
    #[inline(always)]
    fn has_callbacks_only(&self) -> bool {
        let this = self.event_loop.get();
        let is_wanted = this.stopping.load(Ordering::Relaxed) || !this.inbox.is_empty();
        if is_wanted || self.callbacks_since_poll >= CALLBACKS_PER_POLL || this.has_own_clock() {
            return false;
        }
        // What keeps the cell closed is told by the other phases.
        let Ok(mut core) = self.cell.open() else { return false };
        let Some(core) = &mut *core else { return false };
        !core.ready.is_empty()
            && !core.has_unflushed()
            && !core.has_deadline()
            && !core.runtime.has_ready()
            && !core.runtime.with_driver(|driver| {
                driver.ready_hint().unwrap_or(self.polls_in_vain < POLLS_IN_VAIN) || driver.has_unsubmitted()
            })
    }

    /// Phase 1: zero, a duration, or `None` for as long as it takes.
    fn timeout(&self) -> PyResult<Option<Duration>> {
        let this = self.event_loop.get();
        let own_time = EventLoop::own_time(self.event_loop)?;
        let is_wanted = this.stopping.load(Ordering::Relaxed) || !this.inbox.is_empty();
        self.with_core(|core| {
            // A protocol that is resumed by a flush writes after it.
            if is_wanted || !core.ready.is_empty() || core.has_unflushed() || core.runtime.has_ready() {
                return Some(Duration::ZERO);
            }
            core.time_left(own_time)
        })
    }

    /// Phase 2.
    fn wait(&mut self, timeout: Option<Duration>) -> ThinResult<()> {
        let py = self.event_loop.py();
        let completions = &mut self.completions;
        let since_poll = &mut self.callbacks_since_poll;
        let in_vain = &mut self.polls_in_vain;
        let result = self.runtime.with_driver(|driver| {
            if timeout != Some(Duration::ZERO) {
                (*since_poll, *in_vain) = (0, 0);
                return py.detach(|| driver.wait(timeout, completions));
            }
            let has_news = driver.ready_hint().unwrap_or(*in_vain < POLLS_IN_VAIN);
            if !has_news && *since_poll < CALLBACKS_PER_POLL && !driver.has_unsubmitted() {
                return Ok(());
            }
            *since_poll = 0;
            let polled = driver.wait(timeout, completions);
            *in_vain = if completions.is_empty() { *in_vain + 1 } else { 0 };
            polled
        });
        result.map_err(|error| os_error(py, &error).into())
    }

    /// Phase 3.
    fn collect(&mut self) -> ThinResult<()> {
        let py = self.event_loop.py();
        let this = self.event_loop.get();
        let completions = &mut self.completions;
        let collect = |core: &mut Core| {
            if !this.inbox.is_empty() {
                this.inbox.take(&mut core.mail);
                core.ready.append(&mut core.mail);
            }
            let clock_needed = !completions.is_empty() || core.has_deadline() || core.runtime.has_ready();
            if !clock_needed {
                return Vec::new();
            }
            let now = Deadline(sys::monotonic_now());
            core.runtime.collect(now, completions);
            let mut finished = Vec::new();
            for completion in completions.drain(..) {
                finished.extend(core.collect(py, completion));
            }
            if !this.has_own_clock() {
                core.timers.expire(now, |handle| core.ready.push(Callback::Timer(handle)));
            }
            finished
        };
        let finished = this.opened(self.cell.with(|core| core.as_mut().map(collect)))?;
        drop(finished);
        Ok(EventLoop::expire_by_own_clock(self.event_loop)?)
    }

    /// Phase 5.
    fn run_callbacks(&mut self) -> ThinResult<()> {
        let event_loop = self.event_loop;
        let this = event_loop.get();
        let running = &mut self.running;
        let swapped = self.cell.with(|core| core.as_mut().map(|core| core.ready.fill(running)));
        this.opened(swapped)?;
        self.callbacks_since_poll += running.len();
        let debug = this.debug();
        let mut until_tasks = CALLBACKS_BEFORE_TASKS;
        while let Some(callback) = running.take() {
            if until_tasks == 0 {
                registry::settle(event_loop);
                self.runtime.run_tasks(TASKS_PER_TURN);
            }
            until_tasks = until_tasks.wrapping_sub(1);
            let ran = if debug { run_watched(event_loop, callback) } else { callback.run(event_loop) };
            // A callback may fork; the child has no business with the parent's other callbacks.
            if ran.is_ok() && !this.core.is_forked() {
                continue;
            }
            // What did not run is first in the next turn.
            let rest = running.rest();
            let put_back = self.with_core(|core| core.ready.prepend(rest));
            ran?;
            this.check_process()?;
            return Ok(put_back?);
        }
        Ok(())
    }

    /// Tell the kernel what is still untold, without sleeping and without running anything.
    fn settle(&mut self) -> ThinResult<()> {
        self.event_loop.get().check_process()?;
        let completions = &mut self.completions;
        let result = self.runtime.with_driver(|driver| {
            if driver.has_unsubmitted() { driver.wait(Some(Duration::ZERO), completions) } else { Ok(()) }
        });
        result.map_err(|error| os_error(self.event_loop.py(), &error))?;
        self.collect()
    }

    /// Phase 6.
    #[inline(always)]
    fn flush(&self) -> ThinResult<()> {
        let is_empty = match self.cell.open() {
            Ok(core) => core.as_ref().is_some_and(|core| !core.has_unflushed()),
            Err(_refused) => false,
        };
        if is_empty { Ok(()) } else { self.flush_all() }
    }

    /// Tells what keeps the cell closed, too.
    fn flush_all(&self) -> ThinResult<()> {
        let py = self.event_loop.py();
        // Protocols may be told that they can write again.
        registry::settle(self.event_loop);
        // First what comes to lie in the plain transports by it.
        let mut result: ThinResult<()> = Ok(());
        for transport in self.with_core(|core| std::mem::take(&mut core.unflushed_tls))? {
            result = result.and(TlsTransport::flush(transport.bind(py)).map_err(ThinErr::from));
        }
        let (transports, datagrams) = self.with_core(|core| {
            (std::mem::take(&mut core.unflushed), std::mem::take(&mut core.unflushed_datagrams))
        })?;
        // What the driver sends, it also completes, which takes a turn of its own: one write is cheaper made
        // at once.
        // Nor may the last turn leave an answer open: what is written outside of turns leaves at once.
        let in_batch = transports.len() > 1 && !self.event_loop.get().stopping.load(Ordering::Relaxed);
        for transport in &transports {
            // One that must end the loop keeps nobody's bytes back.
            result = result.and(StreamTransport::flush(transport.bind(py), in_batch));
        }
        for transport in &datagrams {
            result = result.and(DatagramTransport::flush(transport.bind(py)).map_err(ThinErr::from));
        }
        result
    }
}

/// Run a callback in debug mode: the loop knows which it is, and says so when it was slow.
fn run_watched(event_loop: &Bound<'_, EventLoop>, callback: Callback) -> ThinResult<()> {
    let py = event_loop.py();
    registry::settle(event_loop);
    let described = callback.describe(py);
    let current_handle = intern!(py, "_current_handle");
    // asyncio's exception handler asks the current handle where it was made; only handles know.
    if callback.is_handle() {
        event_loop.setattr(current_handle, &described)?;
    }
    let began = EventLoop::clock(event_loop)?;
    let result = callback.run(event_loop);
    registry::settle(event_loop);
    event_loop.setattr(current_handle, py.None())?;
    result?;
    let seconds = EventLoop::clock(event_loop)? - began;
    let limit = f64::from_bits(event_loop.get().slow_callback_duration.load(Ordering::Relaxed));
    if seconds >= limit {
        call::call_method_of(event_loop, intern!(py, "_report_slow_callback"), (described, seconds))?;
    }
    Ok(())
}
