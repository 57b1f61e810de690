//! One connection that many callers share, kept alive by one task.
//!
//! Commands are queued by [`Connection::send`], from anywhere on the loop's thread, and leave together when the task
//! runs next; replies come back in order (see [`session`]). The task begins with the first command. Where the connection
//! dies, commands that cannot have run go out on the next one; when it cannot be made again, within
//! [`Backoff`](crate::Backoff), who waits is told, and the next command tries anew. An idle connection that the server
//! closes is made again when it is needed, and nobody notices.
//!
//! # Invariants
//! - No borrow of the session is held while replies are made, delivered or dropped.
//! - Whoever waits is told: by a reply, by an error, or because the runtime ended and dropped the slot.

pub(crate) mod handshake;
pub mod receiver;
pub mod session;
mod task;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use aioxide_runtime::spawn;

use self::receiver::{Locator, Receiver, Role};
use self::session::{Retry, Session, Unit};
use crate::config::Config;
use crate::signal::Signal;

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// There is none, and none is needed.
    Idle,
    /// It is being made.
    Connecting,
    /// Commands and replies flow.
    Ready,
    /// It was closed here, for good.
    Closed,
}

/// A handle to a connection. The connection is closed when the last one is dropped.
pub struct Connection<R: Receiver> {
    shared: Rc<Shared<R>>,
    handles: Rc<()>,
}

/// What handles and the task share.
struct Shared<R: Receiver> {
    config: Config,
    locator: Option<Locator>,
    /// What the server was taken for when it was located.
    role: Cell<Option<Role>>,
    session: RefCell<Session<Option<R::Slot>>>,
    stage: Cell<Stage>,
    /// There is something to do for the task.
    wanted: Signal,
    /// Those who wait until there is room.
    crowd: RefCell<VecDeque<Waker>>,
    /// The present connection is not to be used any more.
    is_broken: Cell<bool>,
    /// The present connection is given up when what was written has its replies: its server is not the master any more.
    is_retiring: Cell<bool>,
    stall_timeout: Cell<Option<Duration>>,
    stall_changed: Signal,
    /// A reply is awaited, after none was.
    awaited: Signal,
    /// The receiver has room again.
    resumed: Signal,
}

impl<R: Receiver> Connection<R> {
    /// Makes a handle to a connection that is made when it is needed, on the current runtime.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn new(config: Config, locator: Option<Locator>, receiver: R) -> Self {
        let shared = Rc::new(Shared {
            stall_timeout: Cell::new(config.stall_timeout),
            config,
            locator,
            role: Cell::new(None),
            session: RefCell::default(),
            stage: Cell::new(Stage::Idle),
            wanted: Signal::default(),
            crowd: RefCell::default(),
            is_broken: Cell::new(false),
            is_retiring: Cell::new(false),
            stall_changed: Signal::default(),
            awaited: Signal::default(),
            resumed: Signal::default(),
        });
        drop(spawn(task::run(Rc::clone(&shared), receiver)));
        Self { shared, handles: Rc::new(()) }
    }

    /// Queues encoded commands; `slot` gets the replies. They are kept while there is no connection. A closed connection
    /// gives the slot back.
    pub fn send(&self, encoded: &[u8], unit: Unit, retry: Retry, slot: R::Slot) -> Result<(), R::Slot> {
        if self.shared.stage.get() == Stage::Closed {
            return Err(slot);
        }
        let is_first = {
            let mut session = self.shared.session.borrow_mut();
            session.send(encoded, unit, retry, Some(slot));
            session.waiting() == 1
        };
        self.shared.wanted.set();
        if is_first {
            self.shared.awaited.set();
        }
        Ok(())
    }

    /// Whether callers should wait with [`Connection::room`] before they send.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.shared.is_full()
    }

    /// Waits until there is room for more commands.
    pub async fn room(&self) {
        poll_fn(|context| {
            if !self.wait_for_room(context.waker()) {
                return Poll::Ready(());
            }
            Poll::Pending
        })
        .await;
    }

    /// Has `waker` called when there is room, if there is none now; tells which.
    pub fn wait_for_room(&self, waker: &Waker) -> bool {
        let is_full = self.is_full();
        if is_full {
            self.shared.crowd.borrow_mut().push_back(waker.clone());
        }
        is_full
    }

    /// How long the server may say nothing while a reply is awaited, from the next look at it.
    pub fn set_stall_timeout(&self, timeout: Option<Duration>) {
        if self.shared.stall_timeout.replace(timeout) != timeout {
            self.shared.stall_changed.set();
        }
    }

    /// Reads again, after the receiver was full.
    pub fn resume_reading(&self) {
        self.shared.resumed.set();
    }

    /// Gives up the present TCP connection, as if the network had ended it.
    pub fn disconnect(&self) {
        self.shared.is_broken.set(true);
        self.shared.wanted.set();
    }

    /// Closes it for good. Who waits is told.
    pub fn close(&self) {
        self.shared.close();
    }

    /// Where it is in its life.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.shared.stage.get()
    }

    /// How many units of commands wait for replies or to be written, and how many bytes wait to be written.
    #[must_use]
    pub fn load(&self) -> (usize, usize) {
        let session = self.shared.session.borrow();
        (session.waiting(), session.unwritten())
    }
}

impl<R: Receiver> Shared<R> {
    fn is_full(&self) -> bool {
        let session = self.session.borrow();
        session.unwritten() >= self.config.high_water || session.waiting() >= self.config.outstanding
    }

    /// Lets as many callers go on as there is room for.
    fn let_in(&self) {
        if self.crowd.borrow().is_empty() || self.is_full() {
            return;
        }
        let waiting = self.session.borrow().waiting();
        // Some of them may have given up. Where no reply is to come that would let in others, all of them are asked.
        let room = if waiting == 0 { usize::MAX } else { self.config.outstanding - waiting };
        let room = room.min(self.crowd.borrow().len());
        let invited: Vec<_> = self.crowd.borrow_mut().drain(..room).collect();
        for waker in invited {
            waker.wake();
        }
    }

    fn close(&self) {
        self.stage.set(Stage::Closed);
        self.wanted.set();
        self.resumed.set();
    }
}

impl<R: Receiver> Clone for Connection<R> {
    fn clone(&self) -> Self {
        Self { shared: Rc::clone(&self.shared), handles: Rc::clone(&self.handles) }
    }
}

impl<R: Receiver> Drop for Connection<R> {
    fn drop(&mut self) {
        if Rc::strong_count(&self.handles) == 1 {
            self.shared.close();
        }
    }
}

impl<R: Receiver> std::fmt::Debug for Connection<R> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Connection")
            .field("address", &self.shared.config.address)
            .field("stage", &self.stage())
            .finish_non_exhaustive()
    }
}
