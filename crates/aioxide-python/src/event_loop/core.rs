//! What belongs to the thread that runs the loop: the Rust runtime and the Python half's queue, timers and
//! interests.

use std::collections::HashMap;
use std::io;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::time::Duration;

use aioxide_driver::{Completion, Datagrams, Op, Options, Outcome, Submitted, Token, sys};
use aioxide_runtime::{Deadline, Runtime, Timers};
use pyo3::PyTraverseError;
use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;

use super::clock::OWN_CLOCK_PAUSE;
use super::interests::{Interest, Interests};
use super::ready::Ready;
use super::rust_tasks::Failures;
use super::watchers::Watchers;
use crate::callback::Callback;
use crate::ffi::collector::look_through;
use crate::handle::{Scheduled, TimerHandle};
use crate::transports::datagram::{self, DatagramTransport};
use crate::transports::scratch::Scratch;
use crate::transports::spare_buffers::SpareBuffers;
use crate::transports::stream::{Event, StreamTransport};
use crate::transports::tls::scratch::TlsScratch;
use crate::transports::tls::transport::TlsTransport;

/// The loop's own state. See [`EventLoop::with_core`](super::EventLoop::with_core) for the rule of access.
pub struct Core {
    /// The Rust half, and the driver in it.
    pub runtime: Rc<Runtime>,
    /// How Rust tasks failed.
    pub failures: Failures,
    /// Callbacks that are ready to run.
    pub ready: Ready,
    /// Mail on its way from the inbox to the ready queue.
    pub mail: Vec<Callback>,
    /// Callbacks that wait for their time.
    pub timers: Timers<Py<TimerHandle>>,
    /// Who waits for which operation.
    pub interests: Interests,
    /// The tokens of `add_reader` and `add_writer` by descriptor.
    pub watchers: HashMap<RawFd, Watchers>,
    /// The tokens of listening sockets by descriptor.
    pub listeners: HashMap<RawFd, Token>,
    /// Transports with writes that leave at the end of the turn.
    pub unflushed: Vec<Py<StreamTransport>>,
    /// TLS connections with writes that are enciphered at the end of the turn.
    pub unflushed_tls: Vec<Py<TlsTransport>>,
    /// Memory for small writes.
    pub spare_buffers: SpareBuffers,
    /// Memory for direct reads.
    pub scratch: Scratch,
    /// Memory for deciphered records, made at the first.
    pub tls_scratch: Option<TlsScratch>,
    /// Memory for enciphered records, while no connection uses it.
    pub tls_memory: Vec<u8>,
    /// Transports with datagrams that leave at the end of the turn.
    pub unflushed_datagrams: Vec<Py<DatagramTransport>>,
    /// Memory for datagrams; `None` before the first use and while one transport delivers what is in it.
    pub datagrams: Option<Box<Datagrams>>,
}

/// What a loop held when it was closed.
pub struct Contents {
    callbacks: Vec<Callback>,
    _interests: Vec<Interest>,
    _unflushed: Vec<Py<StreamTransport>>,
    _unflushed_tls: Vec<Py<TlsTransport>>,
    _tls_scratch: Option<TlsScratch>,
    _unflushed_datagrams: Vec<Py<DatagramTransport>>,
}

impl Contents {
    /// Let go of everything.
    pub fn forget(self, py: Python<'_>) {
        for callback in self.callbacks {
            callback.forget(py);
        }
    }
}

/// What became of an operation that was handed to the driver.
#[must_use]
pub enum Submission {
    /// The interest gets completions of this token.
    Pending(Token),
    /// It was answered at once, and there is no more interest in it.
    Done(Outcome, Option<Interest>),
}

impl Core {
    /// Open the driver and make empty containers.
    pub fn open(options: &Options) -> io::Result<Self> {
        Ok(Self {
            runtime: Rc::new(Runtime::new(options)?),
            failures: Failures::default(),
            ready: Ready::default(),
            mail: Vec::new(),
            timers: Timers::new(),
            interests: Interests::default(),
            watchers: HashMap::new(),
            listeners: HashMap::new(),
            unflushed: Vec::new(),
            unflushed_tls: Vec::new(),
            spare_buffers: SpareBuffers::default(),
            scratch: Scratch::default(),
            tls_scratch: None,
            tls_memory: Vec::new(),
            unflushed_datagrams: Vec::new(),
            datagrams: None,
        })
    }

    /// Submit an operation for `interest`.
    pub fn submit(&mut self, op: Op, interest: Interest) -> Submission {
        let token = self.interests.insert(interest);
        match self.runtime.with_driver(|driver| driver.submit(op, token)) {
            Submitted::Pending => Submission::Pending(token),
            Submitted::Done(outcome) => Submission::Done(outcome, self.interests.remove(token)),
        }
    }

    /// Cancel an operation and lose interest in it; its completion is dropped when it comes.
    #[must_use]
    pub fn cancel(&mut self, token: Token) -> Option<Interest> {
        self.runtime.with_driver(|driver| driver.cancel(token));
        self.interests.remove(token)
    }

    /// Cancel an operation whose last completions are still wanted.
    pub fn cancel_and_wait(&mut self, token: Token) {
        self.runtime.with_driver(|driver| driver.cancel(token));
    }

    /// Move the callbacks of a completion to the ready queue. Returns what is no longer needed, to be
    /// dropped after the cell is closed.
    #[must_use]
    pub fn collect(&mut self, py: Python<'_>, completion: Completion) -> Option<Interest> {
        let Completion { token, outcome, more } = completion;
        let callback = match self.interests.find(token)? {
            Interest::Watcher(handle) => match outcome {
                Outcome::Cancelled => None,
                _ => Some(Callback::Handle(handle.clone_ref(py))),
            },
            Interest::Call(waiter) => match outcome {
                Outcome::Cancelled => None,
                // Failed or ready: who waits tries again, and sees.
                _ => Some(Callback::Wake(waiter.clone_ref(py))),
            },
            Interest::Reading(transport) => {
                let event = match outcome {
                    Outcome::Received(buffer) => Event::Received { buffer, last: !more },
                    Outcome::Ready => Event::ReadReady,
                    Outcome::Failed(error) => Event::ReadFailed(error),
                    _ => Event::ReadingEnded,
                };
                Some(Callback::Transport(transport.clone_ref(py), event))
            }
            Interest::Writing(transport) => {
                let event = match outcome {
                    Outcome::Sent { buffer, length } => {
                        match StreamTransport::note_sent_in_passing(transport.bind(py), buffer, length) {
                            Ok(buffer) => {
                                self.spare_buffers.keep(buffer);
                                None
                            }
                            Err(buffer) => Some(Event::Sent { buffer, length }),
                        }
                    }
                    Outcome::Ready => Some(Event::WriteReady),
                    Outcome::Failed(error) => Some(Event::WriteFailed(error)),
                    _ => Some(Event::WritingEnded),
                };
                event.map(|event| Callback::Transport(transport.clone_ref(py), event))
            }
            Interest::DatagramReading(transport) => {
                let event = match outcome {
                    Outcome::Ready => datagram::Event::ReadReady,
                    Outcome::Failed(error) => datagram::Event::WaitFailed(error),
                    _ => datagram::Event::WaitEnded,
                };
                Some(Callback::Datagram(transport.clone_ref(py), event))
            }
            Interest::DatagramWriting(transport) => {
                let event = match outcome {
                    Outcome::Ready => datagram::Event::WriteReady,
                    Outcome::Failed(error) => datagram::Event::WaitFailed(error),
                    _ => datagram::Event::WaitEnded,
                };
                Some(Callback::Datagram(transport.clone_ref(py), event))
            }
            Interest::Listener(listener) => match outcome {
                Outcome::Accepted(connection) => Some(Callback::Accepted(listener.clone_ref(py), connection)),
                Outcome::Failed(error) => Some(Callback::AcceptFailed(listener.clone_ref(py), error)),
                _ => None,
            },
        };
        if let Some(callback) = callback {
            self.ready.push(callback);
        }
        if more { None } else { self.interests.remove(token) }
    }

    /// Whether a transport has something to send at the end of the turn.
    #[inline(always)]
    pub fn has_unflushed(&self) -> bool {
        !(self.unflushed.is_empty() && self.unflushed_tls.is_empty() && self.unflushed_datagrams.is_empty())
    }

    /// Whether either half waits for a time.
    #[inline(always)]
    pub fn has_deadline(&mut self) -> bool {
        self.timers.next_deadline().is_some() || self.runtime.next_deadline().is_some()
    }

    /// How long it is until the earlier of the two halves' deadlines. `own` is the time of a clock that the program
    /// put in place of the kernel's, for the Python half.
    pub fn time_left(&mut self, own: Option<Deadline>) -> Option<Duration> {
        let (ours, theirs) = (self.timers.next_deadline(), self.runtime.next_deadline());
        if ours.is_none() && theirs.is_none() {
            return None;
        }
        let now = Deadline(sys::monotonic_now());
        let until =
            |deadline: Deadline, now: Deadline| Duration::from_nanos(deadline.0.saturating_sub(now.0));
        let ours = ours.map(|deadline| match own {
            None => until(deadline, now),
            Some(own) if deadline <= own => Duration::ZERO,
            Some(own) => until(deadline, own).max(OWN_CLOCK_PAUSE),
        });
        ours.into_iter().chain(theirs.map(|deadline| until(deadline, now))).min()
    }

    /// The objects that stand for the callbacks in the ready queue.
    pub fn describe_ready(&self, py: Python<'_>) -> Vec<Py<PyAny>> {
        self.ready.iter().map(|callback| callback.describe(py)).collect()
    }

    /// The timers in the heap, in no order.
    pub fn describe_timers(&self, py: Python<'_>) -> Vec<Py<TimerHandle>> {
        let mut timers = Vec::with_capacity(self.timers.len());
        self.timers.for_each(|handle| timers.push(handle.clone_ref(py)));
        timers
    }

    /// Take out every Python object, to be dropped after the cell is closed.
    #[must_use]
    pub fn take_contents(&mut self) -> Contents {
        self.watchers.clear();
        self.listeners.clear();
        let timers = self.timers.clear().map(Callback::Timer);
        Contents {
            callbacks: self.ready.take().into_iter().chain(timers).collect(),
            _interests: self.interests.clear(),
            _unflushed: std::mem::take(&mut self.unflushed),
            _unflushed_tls: std::mem::take(&mut self.unflushed_tls),
            _tls_scratch: self.tls_scratch.take(),
            _unflushed_datagrams: std::mem::take(&mut self.unflushed_datagrams),
        }
    }

    /// Show the garbage collector what the containers keep alive.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        let mut result = Ok(());
        let mut keep = |visited: Result<(), PyTraverseError>| {
            if result.is_ok() {
                result = visited;
            }
        };
        self.ready.iter().for_each(|callback| keep(callback.traverse(visit)));
        self.timers.for_each(|handle| {
            keep(visit.call(handle));
            keep(look_through(handle, |handle| handle.common().traverse(visit)));
        });
        for interest in self.interests.iter() {
            keep(match interest {
                Interest::Watcher(handle) => visit.call(handle),
                Interest::Call(waiter) => visit.call(waiter),
                Interest::Reading(transport) | Interest::Writing(transport) => visit.call(transport),
                Interest::DatagramReading(transport) | Interest::DatagramWriting(transport) => {
                    visit.call(transport)
                }
                Interest::Listener(listener) => visit.call(listener),
            });
        }
        for transport in &self.unflushed_datagrams {
            keep(visit.call(transport));
        }
        for transport in &self.unflushed {
            keep(visit.call(transport));
        }
        for transport in &self.unflushed_tls {
            keep(visit.call(transport));
        }
        result
    }
}
