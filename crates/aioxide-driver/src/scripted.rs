//! A backend that plays completions from a script: no kernel, no descriptors, no time.
//!
//! For tests of what stands above: order, faults and rare outcomes happen exactly when the test says.
//! A `wait` notes its timeout and returns at once, so a host's clock can be simulated. A `wait`
//! without a timeout, with nothing to play and no wake, would sleep for ever and fails instead.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::Errno;

use crate::{Completion, Op, Outcome, Statistics, Submitted, Token, Waker};

/// The test's end: says what happens, and tells what was asked.
#[derive(Clone, Debug)]
pub struct Script {
    state: Arc<Mutex<State>>,
}

/// The driver's end.
#[derive(Debug)]
pub(crate) struct Scripted {
    state: Arc<Mutex<State>>,
    waker: Waker,
}

#[derive(Debug, Default)]
struct State {
    /// Submitted, and no final completion played yet.
    in_flight: Vec<(Token, Op)>,
    /// To be played by the next wait.
    due: Vec<Completion>,
    /// Answers for coming submissions, given at once.
    answers: VecDeque<Outcome>,
    /// Errors for coming waits.
    faults: VecDeque<io::Error>,
    /// Every token that a cancel ended, in order.
    cancelled: Vec<Token>,
    /// Every timeout, in order.
    timeouts: Vec<Option<Duration>>,
    counts: Statistics,
}

impl Script {
    /// Lets the next wait report on a token. A final report takes the operation out of flight.
    pub fn complete(&self, token: Token, outcome: Outcome, more: bool) {
        self.state().due.push(Completion { token, outcome, more });
    }

    /// Answers the next submission at once.
    pub fn answer_next(&self, outcome: Outcome) {
        self.state().answers.push_back(outcome);
    }

    /// Makes the next wait fail.
    pub fn fail_wait(&self, error: io::Error) {
        self.state().faults.push_back(error);
    }

    /// The operations in flight, oldest first, seen by `look`.
    pub fn with_in_flight<R>(&self, look: impl FnOnce(&[(Token, Op)]) -> R) -> R {
        look(&self.state().in_flight)
    }

    /// The tokens cancelled so far.
    pub fn cancelled(&self) -> Vec<Token> {
        self.state().cancelled.clone()
    }

    /// The timeouts of the waits so far.
    pub fn timeouts(&self) -> Vec<Option<Duration>> {
        self.state().timeouts.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Scripted {
    pub(crate) fn open() -> io::Result<(Scripted, Script)> {
        let state = Arc::<Mutex<State>>::default();
        Ok((Scripted { state: state.clone(), waker: Waker::new()? }, Script { state }))
    }

    pub(crate) fn submit(&mut self, op: Op, token: Token) -> Submitted {
        let mut state = lock(&self.state);
        state.counts.submitted += 1;
        if let Some(outcome) = state.answers.pop_front() {
            return Submitted::Done(outcome);
        }
        state.in_flight.push((token, op));
        Submitted::Pending
    }

    /// Cancelled operations finish in the next wait, unless the script finishes them first.
    pub(crate) fn cancel(&mut self, token: Token) {
        let mut state = lock(&self.state);
        if state.in_flight.iter().any(|(other, _)| *other == token) {
            let is_ending = state.due.iter().any(|due| due.token == token && !due.more);
            if !is_ending {
                state.cancelled.push(token);
                state.due.push(Completion { token, outcome: Outcome::Cancelled, more: false });
            }
        }
    }

    pub(crate) fn wait(
        &mut self,
        timeout: Option<Duration>,
        completions: &mut Vec<Completion>,
    ) -> io::Result<()> {
        let mut state = lock(&self.state);
        let state = &mut *state;
        state.counts.waits += 1;
        state.timeouts.push(timeout);
        let was_woken = !self.waker.prepare_sleep();
        self.waker.finish();
        if let Some(error) = state.faults.pop_front() {
            return Err(error);
        }
        if timeout.is_none() && state.due.is_empty() && !was_woken {
            return Err(Errno::DEADLK.into());
        }
        for completion in &state.due {
            if !completion.more {
                state.in_flight.retain(|(token, _)| *token != completion.token);
            }
        }
        state.counts.completed += state.due.len() as u64;
        completions.append(&mut state.due);
        Ok(())
    }

    pub(crate) fn is_ready(&self) -> bool {
        !lock(&self.state).due.is_empty()
    }

    pub(crate) fn waker(&self) -> Waker {
        self.waker.clone()
    }

    pub(crate) fn statistics(&self) -> Statistics {
        let state = lock(&self.state);
        Statistics { in_flight: state.in_flight.len(), ..state.counts }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // A test that panicked elsewhere must not hide behind a second panic here.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
