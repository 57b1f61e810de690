//! A client for Rust programs: one shared connection, commands in, values out.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use crate::Error;
use crate::config::Config;
use crate::connection::Connection;
use crate::connection::receiver::{Locator, Receiver};
use crate::connection::session::{Retry, Unit};
use crate::proto::{Command, FromValue, Value, ValueBuilder};

/// A client. Clones share its connection, which is closed when the last of them is dropped.
///
/// All its methods take `&self`; commands issued together leave in one write. A future that is dropped abandons its
/// reply and nothing else.
///
/// ```no_run
/// use aioxide_redis::{Client, Command, Config};
///
/// aioxide_runtime::run(async {
///     let client = Client::new(Config::default());
///     client.run::<()>(&Command::new("SET").arg("greeting").arg("hello")).await?;
///     let greeting: Option<String> = client.run(&Command::new("GET").arg("greeting")).await?;
///     assert_eq!(greeting.as_deref(), Some("hello"));
///     Ok::<(), aioxide_redis::Error>(())
/// })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    connection: Connection<ValueBuilder>,
}

impl Client {
    /// Makes a client of the current runtime. It connects with the first command.
    ///
    /// # Panics
    /// Outside of a runtime.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { connection: Connection::new(config, None, ValueBuilder::default()) }
    }

    /// Makes a client whose server is looked for before each attempt to connect, as with
    /// [`Sentinel`](crate::Sentinel).
    #[must_use]
    pub fn located(config: Config, locator: Locator) -> Self {
        Self { connection: Connection::new(config, Some(locator), ValueBuilder::default()) }
    }

    /// Runs a command and converts its reply; an error reply is [`Error::Server`].
    pub async fn run<T: FromValue>(&self, command: &Command) -> Result<T, Error> {
        let value = self.send(command, Retry::IfUnsent).await?;
        value.convert().map_err(Error::UnexpectedReply)
    }

    /// Runs a command which may run twice: it is sent again where the connection died before the reply.
    pub async fn run_idempotent<T: FromValue>(&self, command: &Command) -> Result<T, Error> {
        let value = self.send(command, Retry::Idempotent).await?;
        value.convert().map_err(Error::UnexpectedReply)
    }

    /// Runs commands in one write; the replies in order, error replies as [`Value::Error`].
    pub async fn pipeline(&self, commands: &[Command]) -> Result<Vec<Value>, Error> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let mut encoded = Vec::new();
        commands.iter().for_each(|command| command.encode_into(&mut encoded));
        self.ask(&encoded, Unit::Pipeline(commands.len()), Retry::IfUnsent).await
    }

    /// Runs commands as one transaction (MULTI, EXEC). An error while they are queued runs none of them.
    pub async fn transaction(&self, commands: &[Command]) -> Result<Vec<Value>, Error> {
        let mut encoded = Vec::new();
        Command::new("MULTI").encode_into(&mut encoded);
        commands.iter().for_each(|command| command.encode_into(&mut encoded));
        Command::new("EXEC").encode_into(&mut encoded);
        let unit = Unit::Transaction(commands.len() + 2);
        let mut values = self.ask(&encoded, unit, Retry::IfUnsent).await?;
        match values.pop() {
            Some(Value::Array(results)) => Ok(results),
            // The first that was refused says more than EXECABORT.
            Some(Value::Error(aborted)) => {
                let first = values.into_iter().find_map(|value| match value {
                    Value::Error(error) => Some(error),
                    _ => None,
                });
                Err(Error::Server(first.unwrap_or(aborted)))
            }
            other => Err(other
                .unwrap_or(Value::Null)
                .convert::<Vec<Value>>()
                .map_or_else(Error::UnexpectedReply, |_| unreachable!("arrays are matched above"))),
        }
    }

    /// Closes the connection; who waits gets [`Error::Closed`].
    pub fn close(&self) {
        self.connection.close();
    }

    async fn send(&self, command: &Command, retry: Retry) -> Result<Value, Error> {
        let mut encoded = Vec::new();
        command.encode_into(&mut encoded);
        let mut values = self.ask(&encoded, Unit::Single, retry).await?;
        match values.pop() {
            Some(Value::Error(error)) => Err(Error::Server(error)),
            Some(value) => Ok(value),
            None => unreachable!("one reply was asked for"),
        }
    }

    async fn ask(&self, encoded: &[u8], unit: Unit, retry: Retry) -> Result<Vec<Value>, Error> {
        self.connection.room().await;
        let waiting = Rc::new(Waiting::new(unit.replies()));
        if self.connection.send(encoded, unit, retry, Rc::clone(&waiting)).is_err() {
            return Err(Error::Closed);
        }
        waiting.values().await
    }
}

/// Somebody waits for so many replies.
#[derive(Debug)]
pub struct Waiting {
    state: RefCell<State>,
}

#[derive(Debug)]
struct State {
    missing: usize,
    values: Vec<Value>,
    failed: Option<Error>,
    waker: Option<Waker>,
}

impl Waiting {
    fn new(missing: usize) -> Self {
        let state =
            State { missing, values: Vec::with_capacity(missing.min(1024)), failed: None, waker: None };
        Self { state: RefCell::new(state) }
    }

    /// Changes it, and wakes who waits if that was the last thing missing.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let waker = {
            let state = &mut *self.state.borrow_mut();
            change(state);
            if state.missing == 0 { state.waker.take() } else { None }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    async fn values(&self) -> Result<Vec<Value>, Error> {
        poll_fn(|context| {
            let mut state = self.state.borrow_mut();
            if state.missing > 0 {
                state.waker = Some(context.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(match state.failed.take() {
                Some(error) => Err(error),
                None => Ok(std::mem::take(&mut state.values)),
            })
        })
        .await
    }
}

/// Values go to waiting futures.
impl Receiver for ValueBuilder {
    type Slot = Rc<Waiting>;

    fn begin(&mut self, _slot: Option<&Self::Slot>) {}

    fn deliver(&mut self, slot: &mut Self::Slot, reply: Value) {
        slot.change(|state| {
            state.values.push(reply);
            state.missing -= 1;
        });
    }

    fn fail(&mut self, slot: Self::Slot, error: Error) {
        slot.change(|state| {
            state.missing = 0;
            state.failed = Some(error);
        });
    }

    fn push(&mut self, _message: Value) {}
}
