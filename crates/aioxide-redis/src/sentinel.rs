//! Finding the master of a replicated group, or one of its replicas, by asking sentinels.
//!
//! A [`Sentinel`] is a [`Locate`]: a connection asks it before every attempt. It asks one sentinel after the other until
//! one knows; that one is the first to be asked the next time, and one that did not answer the last. What the server is
//! by now is for the connection to verify (`ROLE`), so that a master which was replaced is not used.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::pin::Pin;

use crate::Error;
use crate::config::{Address, Config};
use crate::connection::handshake::{Dialogue, within};
use crate::connection::receiver::{Locate, Located, Role};
use crate::proto::{Command, Value};
use crate::stream::Stream;

/// The sentinels of a service.
///
/// ```no_run
/// use std::rc::Rc;
///
/// use aioxide_redis::config::Address;
/// use aioxide_redis::{Client, Command, Config, Role, Sentinel};
///
/// aioxide_runtime::run(async {
///     let addresses = ["10.0.0.1", "10.0.0.2"].map(|host| Address::Tcp { host: host.into(), port: 26379 });
///     let sentinel = Sentinel::new(addresses, "mymaster", Role::Master);
///     let client = Client::located(Config::default(), Rc::new(sentinel));
///     client.run::<()>(&Command::new("SET").arg("greeting").arg("hello")).await
/// })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Sentinel {
    /// Whom to ask, the next one first.
    addresses: RefCell<VecDeque<Address>>,
    service: String,
    role: Role,
    config: Config,
    fewest_others: u32,
    forced_host: Option<String>,
    /// How many replicas were handed out.
    turn: Cell<usize>,
}

impl Sentinel {
    /// Sentinels at `addresses`, of which one is wanted that is `role` for `service`.
    pub fn new(addresses: impl IntoIterator<Item = Address>, service: impl Into<String>, role: Role) -> Self {
        // Not every client begins with the same replica.
        let start = RandomState::new().build_hasher().finish();
        Self {
            addresses: RefCell::new(addresses.into_iter().collect()),
            service: service.into(),
            role,
            config: Config { library: None, ..Config::default() },
            fewest_others: 0,
            forced_host: None,
            turn: Cell::new(start as usize),
        }
    }

    /// How the sentinels are talked to: who we are there, and how patient we are with each. The address is not used.
    #[must_use]
    pub fn with_config(self, config: Config) -> Self {
        Self { config, ..self }
    }

    /// Believe only a sentinel that knows so many others.
    #[must_use]
    pub fn with_fewest_others(self, fewest_others: u32) -> Self {
        Self { fewest_others, ..self }
    }

    /// Connect to this host, whatever the sentinels call the master's; the port is theirs.
    #[must_use]
    pub fn with_forced_host(self, host: Option<String>) -> Self {
        Self { forced_host: host, ..self }
    }

    /// Asks the sentinels in turn.
    async fn ask(&self) -> Result<Located, Error> {
        let mut last = Error::NotFound { role: self.role };
        let count = self.addresses.borrow().len();
        for _ in 0..count {
            // Whatever becomes of this question, the next one is for another, unless it is answered.
            let address = {
                let mut addresses = self.addresses.borrow_mut();
                let Some(address) = addresses.pop_front() else { break };
                addresses.push_back(address.clone());
                address
            };
            let question = self.ask_one(&address);
            match within(self.config.connect_timeout, "asking a sentinel", question).await {
                Ok(Some(located)) => {
                    let mut addresses = self.addresses.borrow_mut();
                    if let Some(place) = addresses.iter().position(|other| *other == address)
                        && let Some(known) = addresses.remove(place)
                    {
                        addresses.push_front(known);
                    }
                    return Ok(located);
                }
                Ok(None) => {}
                Err(error) => last = error,
            }
        }
        // Who looks for a server learns that there is none, unless we are not let in to ask.
        Err(if last.is_transient() { Error::NotFound { role: self.role } } else { last })
    }

    /// What one sentinel knows.
    async fn ask_one(&self, address: &Address) -> Result<Option<Located>, Error> {
        let config = Config { address: address.clone(), ..self.config.clone() };
        let stream = Stream::connect(&config).await?;
        let mut dialogue = Dialogue::new(&stream);
        dialogue.greet(&config).await?;
        if self.role == Role::Replica
            && let Some(address) = self.replica(&mut dialogue).await?
        {
            return Ok(Some(Located { address, role: Some(Role::Replica) }));
        }
        // Where there are no replicas, the master is read from.
        let master = self.master(&mut dialogue).await?;
        Ok(master.map(|address| Located { address, role: Some(Role::Master) }))
    }

    async fn master(&self, dialogue: &mut Dialogue<'_>) -> Result<Option<Address>, Error> {
        if self.fewest_others > 0 {
            let state = self.question(dialogue, "MASTER").await?;
            let state: HashMap<String, String> = state.convert().unwrap_or_default();
            let others = state.get("num-other-sentinels").and_then(|number| number.parse().ok());
            if others.unwrap_or(0) < self.fewest_others {
                return Ok(None);
            }
        }
        let answer = self.question(dialogue, "GET-MASTER-ADDR-BY-NAME").await?;
        let Ok(Some((host, port))) = answer.convert::<Option<(String, u16)>>() else { return Ok(None) };
        Ok(Some(Address::Tcp { host: self.forced_host.clone().unwrap_or(host), port }))
    }

    /// The next of the replicas that are up.
    async fn replica(&self, dialogue: &mut Dialogue<'_>) -> Result<Option<Address>, Error> {
        let answer = self.question(dialogue, "REPLICAS").await?;
        let replicas: Vec<HashMap<String, String>> = answer.convert().unwrap_or_default();
        let mut up: Vec<_> = replicas.iter().filter_map(address_of_one_that_is_up).collect();
        if up.is_empty() {
            return Ok(None);
        }
        // Every sentinel has an order of its own.
        up.sort_unstable();
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        let (host, port) = up[turn % up.len()];
        Ok(Some(Address::Tcp { host: host.into(), port }))
    }

    async fn question(&self, dialogue: &mut Dialogue<'_>, what: &str) -> Result<Value, Error> {
        let command = Command::new("SENTINEL").arg(what).arg(self.service.as_str());
        match dialogue.ask(&command).await? {
            // It does not know the service.
            Value::Error(error) if error.code() == "ERR" => Ok(Value::Null),
            Value::Error(error) => Err(Error::Refused(error)),
            answer => Ok(answer),
        }
    }
}

impl Locate for Sentinel {
    fn locate(&self) -> Pin<Box<dyn Future<Output = Result<Located, Error>> + '_>> {
        Box::pin(self.ask())
    }
}

fn address_of_one_that_is_up(state: &HashMap<String, String>) -> Option<(&str, u16)> {
    let is_down = state.get("flags")?.split(',').any(|flag| matches!(flag, "s_down" | "o_down"));
    if is_down {
        return None;
    }
    Some((state.get("ip")?, state.get("port")?.parse().ok()?))
}
