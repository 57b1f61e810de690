//! The life of a connection: wait until it is needed, make it, serve it, and again.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use aioxide_runtime::{now, sleep, timeout};

use super::handshake::{Dialogue, within};
use super::receiver::{Located, Receiver, Role};
use super::session::{Entry, Retry, Unit};
use super::{Shared, Stage};
use crate::Error;
use crate::backoff::Jitter;
use crate::config::Config;
use crate::proto::{Command, Decoded, Decoder, Limits, ProtocolError};
use crate::stream::Stream;

/// How much is read at once, bytes.
const READ_SIZE: usize = 64 * 1024;

/// The body of the task; ends when the connection is closed for good.
pub(super) async fn run<R: Receiver>(shared: Rc<Shared<R>>, receiver: R) {
    let receiver = RefCell::new(receiver);
    // Any number does that other processes do not have.
    let mut jitter = Jitter::new(now().0 ^ u64::from(std::process::id()) << 32);
    while let Stage::Idle = wait_until_needed(&shared).await {
        shared.stage.set(Stage::Connecting);
        shared.is_broken.set(false);
        shared.is_retiring.set(false);
        match connect(&shared, &mut jitter).await {
            Ok(stream) => {
                if shared.stage.get() == Stage::Closed {
                    break;
                }
                shared.stage.set(Stage::Ready);
                let error = serve(&shared, &receiver, &stream).await;
                drop(stream);
                rest(&shared);
                receiver.borrow_mut().disconnected(&error);
                let lost = shared.session.borrow_mut().handle_lost();
                for entry in lost {
                    fail(&receiver, entry, error.share(true));
                }
                shared.let_in();
            }
            Err(error) => {
                rest(&shared);
                receiver.borrow_mut().disconnected(&error);
                end(&shared, &receiver, &error);
            }
        }
    }
    end(&shared, &receiver, &Error::Closed);
}

/// There is no connection at the moment.
fn rest<R: Receiver>(shared: &Shared<R>) {
    if shared.stage.get() != Stage::Closed {
        shared.stage.set(Stage::Idle);
    }
}

/// Tells everybody who waits.
fn end<R: Receiver>(shared: &Shared<R>, receiver: &RefCell<R>, error: &Error) {
    let everybody = shared.session.borrow_mut().handle_end();
    for (entry, may_have_run) in everybody {
        fail(receiver, entry, error.share(may_have_run));
    }
    shared.let_in();
}

fn fail<R: Receiver>(receiver: &RefCell<R>, entry: Entry<Option<R::Slot>>, error: Error) {
    if let Some(slot) = entry.slot {
        receiver.borrow_mut().fail(slot, error);
    }
}

/// Waits until there is something to send, or the connection is closed. Returns the stage then.
async fn wait_until_needed<R: Receiver>(shared: &Shared<R>) -> Stage {
    loop {
        let stage = shared.stage.get();
        if stage == Stage::Closed || shared.session.borrow().unwritten() > 0 {
            return stage;
        }
        shared.wanted.wait().await;
    }
}

/// Makes a connection, in as many attempts as are allowed.
async fn connect<R: Receiver>(shared: &Shared<R>, jitter: &mut Jitter) -> Result<Stream, Error> {
    let backoff = shared.config.backoff;
    let mut failed = 0;
    loop {
        let error = match attempt(shared).await {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        if shared.stage.get() == Stage::Closed || !error.is_transient() || failed >= backoff.retries {
            return Err(error);
        }
        sleep(backoff.wait(failed, jitter.next())).await;
        failed += 1;
    }
}

/// One attempt. Finding the server takes the time it takes, connecting what the settings allow.
async fn attempt<R: Receiver>(shared: &Shared<R>) -> Result<Stream, Error> {
    let Some(locator) = &shared.locator else { return connect_to(&shared.config, None).await };
    let Located { address, role } = locator.locate().await?;
    shared.role.set(role);
    connect_to(&Config { address, ..shared.config.clone() }, role).await
}

async fn connect_to(config: &Config, role: Option<Role>) -> Result<Stream, Error> {
    let attempt = async {
        let stream = Stream::connect(config).await?;
        let mut dialogue = Dialogue::new(&stream);
        dialogue.greet(config).await?;
        if let Some(role) = role {
            dialogue.verify(role).await?;
        }
        Ok(stream)
    };
    within(config.connect_timeout, "connecting to the server", attempt).await
}

/// Lets commands and replies flow until the connection is over; returns why.
async fn serve<R: Receiver>(shared: &Shared<R>, receiver: &RefCell<R>, stream: &Stream) -> Error {
    let traffic = Traffic::default();
    let mut reading = pin!(read(shared, receiver, stream, &traffic));
    let mut writing = pin!(write(shared, stream));
    let mut watching = pin!(watch(shared, &traffic));
    poll_fn(|context| {
        // What can be read is read before a failed write ends it all.
        if let Poll::Ready(error) = reading.as_mut().poll(context) {
            return Poll::Ready(error);
        }
        if let Poll::Ready(error) = writing.as_mut().poll(context) {
            return Poll::Ready(error);
        }
        watching.as_mut().poll(context)
    })
    .await
}

/// What the parts of [`serve`] tell each other.
#[derive(Default)]
struct Traffic {
    /// How often something was read.
    reads: Cell<u64>,
}

/// Writes what is queued, whenever something is.
async fn write<R: Receiver>(shared: &Shared<R>, stream: &Stream) -> Error {
    loop {
        if shared.stage.get() == Stage::Closed {
            return Error::Closed;
        }
        if shared.is_broken.get() {
            return io::Error::from(io::ErrorKind::ConnectionAborted).into();
        }
        let (bytes, from) = if shared.is_retiring.get() {
            let session = shared.session.borrow();
            if session.is_drained() {
                return Error::NotFound { role: Role::Master };
            }
            session.to_finish()
        } else {
            shared.session.borrow_mut().to_write()
        };
        if bytes.len() == from {
            drop(bytes);
            shared.wanted.wait().await;
            continue;
        }
        match stream.write(&bytes[from..]).await {
            Ok(0) => return io::Error::from(io::ErrorKind::WriteZero).into(),
            Ok(count) => shared.session.borrow_mut().handle_written(count),
            Err(error) => return error.into(),
        }
        drop(bytes);
        shared.let_in();
    }
}

/// Reads and delivers.
async fn read<R: Receiver>(
    shared: &Shared<R>,
    receiver: &RefCell<R>,
    stream: &Stream,
    traffic: &Traffic,
) -> Error {
    let mut decoder = Decoder::new(Limits::default());
    let mut buffer = Buffer::new();
    let mut next = NextEntry { shared, entry: None };
    loop {
        while receiver.borrow().is_full() {
            shared.resumed.wait().await;
        }
        match stream.read(buffer.room(decoder.wanted())).await {
            Ok(0) => return io::Error::from(io::ErrorKind::UnexpectedEof).into(),
            Ok(count) => buffer.handle_filled(count),
            Err(error) => return error.into(),
        }
        traffic.reads.set(traffic.reads.get() + 1);
        if buffer.filled().len() < decoder.wanted() {
            continue;
        }
        match deliver(receiver, &mut decoder, &mut buffer, &mut next) {
            Ok(is_demoted) if is_demoted && shared.role.get() == Some(Role::Master) => {
                shared.is_retiring.set(true)
            }
            Ok(_) => {}
            Err(error) => return error.into(),
        }
        if shared.is_retiring.get() {
            shared.wanted.set();
        }
        shared.let_in();
    }
}

/// Delivers every whole reply in the buffer; tells whether one says that the server takes no writes (any more).
fn deliver<R: Receiver>(
    receiver: &RefCell<R>,
    decoder: &mut Decoder<R::Reply>,
    buffer: &mut Buffer,
    next: &mut NextEntry<'_, R>,
) -> Result<bool, ProtocolError> {
    let receiver = &mut *receiver.borrow_mut();
    let mut rest = buffer.filled();
    let before = rest.len();
    let mut is_demoted = false;
    let result = loop {
        if rest.is_empty() {
            break Ok(is_demoted);
        }
        receiver.begin(next.slot());
        let says_demoted = rest.starts_with(b"-READONLY");
        match decoder.decode(&mut rest, receiver) {
            Ok(None) => break Ok(is_demoted),
            Ok(Some(Decoded::Push(message))) => receiver.push(message),
            Ok(Some(Decoded::Reply(reply))) => match next.entry.as_mut() {
                Some(entry) => {
                    is_demoted |= says_demoted;
                    if let Some(slot) = &mut entry.slot {
                        receiver.deliver(slot, reply);
                    }
                    entry.replies -= 1;
                    if entry.replies == 0 {
                        next.finish();
                    }
                }
                // In RESP2 a subscription's messages look like replies.
                None => receiver.push(reply),
            },
            Err(error) => break Err(error),
        }
    };
    let consumed = before - rest.len();
    buffer.consume(consumed);
    result
}

/// The entry whose replies come next; given back to the session when the reading ends.
struct NextEntry<'a, R: Receiver> {
    shared: &'a Shared<R>,
    entry: Option<Entry<Option<R::Slot>>>,
}

impl<R: Receiver> NextEntry<'_, R> {
    /// Who waits for the next reply.
    fn slot(&mut self) -> Option<&R::Slot> {
        if self.entry.is_none() {
            self.entry = self.shared.session.borrow_mut().take_next();
        }
        self.entry.as_ref().and_then(|entry| entry.slot.as_ref())
    }

    /// It got its last reply.
    fn finish(&mut self) {
        let answered = self.entry.take();
        self.shared.session.borrow_mut().handle_answered();
        drop(answered);
    }
}

impl<R: Receiver> Drop for NextEntry<'_, R> {
    fn drop(&mut self) {
        if let Some(entry) = self.entry.take() {
            self.shared.session.borrow_mut().put_back(entry);
        }
    }
}

/// Gives up on a server that says nothing, and pings one that nobody asks anything.
async fn watch<R: Receiver>(shared: &Shared<R>, traffic: &Traffic) -> Error {
    let mut silence = Duration::ZERO;
    let mut idle = Duration::ZERO;
    loop {
        let stall = shared.stall_timeout.get();
        let health = shared.config.health_check;
        let is_awaited = shared.session.borrow().waiting() > 0;
        let watched = stall.filter(|_| is_awaited).into_iter().chain(health).min();
        let Some(shortest) = watched else {
            if is_awaited { &shared.stall_changed } else { &shared.awaited }.wait().await;
            continue;
        };
        // Late by a quarter at most, and no timer per command.
        let pause = (shortest / LOOKS).max(Duration::from_millis(1));
        let before = traffic.reads.get();
        if timeout(pause, shared.stall_changed.wait()).await.is_ok() {
            silence = Duration::ZERO;
            continue;
        }
        let has_moved = traffic.reads.get() != before;
        silence = if has_moved || !is_awaited { Duration::ZERO } else { silence + pause };
        idle = if has_moved || is_awaited { Duration::ZERO } else { idle + pause };
        if stall.is_some_and(|stall| silence >= stall) {
            return Error::Timeout { what: "waiting for a reply of the server", may_have_run: true };
        }
        if health.is_some_and(|health| idle >= health) {
            idle = Duration::ZERO;
            let mut ping = Vec::new();
            Command::new("PING").encode_into(&mut ping);
            shared.session.borrow_mut().send(&ping, Unit::Single, Retry::IfUnsent, None);
            shared.wanted.set();
        }
    }
}

/// How often it is looked within the time that is watched.
const LOOKS: u32 = 4;

/// Received bytes that are not decoded yet.
struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    fn new() -> Self {
        Self { bytes: vec![0; READ_SIZE], start: 0, end: 0 }
    }

    /// Room behind what is there, so that `wanted` bytes fit in all.
    fn room(&mut self, wanted: usize) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.bytes.len() > READ_SIZE && wanted <= READ_SIZE {
                self.bytes = vec![0; READ_SIZE];
            }
        }
        let held = self.end - self.start;
        let needed = wanted.max(held + READ_SIZE / 4);
        if self.bytes.len() - self.start < needed {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, held);
            if self.bytes.len() < needed {
                // Doubling: a peer that announces much has to send it, too.
                let length = needed.min(self.bytes.len() * 2).max(held + READ_SIZE / 4);
                self.bytes.resize(length, 0);
            }
        }
        &mut self.bytes[self.end..]
    }

    fn handle_filled(&mut self, count: usize) {
        self.end += count;
    }

    fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    fn consume(&mut self, count: usize) {
        self.start += count;
    }
}
