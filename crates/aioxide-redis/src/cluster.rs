//! A client of a cluster: each command goes to the node that has the slot of its keys.
//!
//! Who has which slots is read with the first command, and again after a failure. A node's redirections are followed, so
//! many for each command; `ASKING` and the command leave together. A command whose node died is tried again if it cannot
//! have run, after the slots were read anew.

mod keys;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use aioxide_runtime::sleep;

use crate::backoff::Backoff;
use crate::config::{Address, Config};
use crate::connection::session::Retry;
use crate::proto::{Command, FromValue, SLOTS, ServerError, Value};
use crate::{Client, Error};

/// How many redirections a command follows, at least.
const REDIRECTIONS: u32 = 16;

/// A client of a cluster. Clones share its connections, one to each node.
///
/// ```no_run
/// use aioxide_redis::config::Address;
/// use aioxide_redis::{Cluster, Command, Config};
///
/// aioxide_runtime::run(async {
///     let seed = Address::Tcp { host: "10.0.0.1".into(), port: 7000 };
///     let cluster = Cluster::new([seed], Config::default());
///     cluster.run::<()>(&Command::new("SET").arg("greeting").arg("hello")).await
/// })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Cluster {
    shared: Rc<Shared>,
}

#[derive(Debug)]
struct Shared {
    seeds: Vec<Address>,
    config: Config,
    backoff: Backoff,
    reads_from_replicas: bool,
    nodes: RefCell<HashMap<Address, Client>>,
    /// Who has each slot, the master first; empty before it was read.
    slots: RefCell<Vec<Rc<[Address]>>>,
    /// Whether it is to be read (again) before the next command.
    is_stale: Cell<bool>,
    turn: Cell<usize>,
}

impl Cluster {
    /// A client of the cluster that has nodes at `seeds`. `config` holds for each node; its address is not used, and its
    /// back-off is that between attempts to run a command.
    pub fn new(seeds: impl IntoIterator<Item = Address>, config: Config) -> Self {
        let backoff = config.backoff;
        // Another node may have the slot by then: it is here that is tried again.
        let config = Config { backoff: Backoff { retries: 0, ..backoff }, ..config };
        Self {
            shared: Rc::new(Shared {
                seeds: seeds.into_iter().collect(),
                config,
                backoff,
                reads_from_replicas: false,
                nodes: RefCell::default(),
                slots: RefCell::default(),
                is_stale: Cell::new(true),
                turn: Cell::new(0),
            }),
        }
    }

    /// A client that sends commands that only read to the masters and their replicas in turn.
    pub fn reading_from_replicas(seeds: impl IntoIterator<Item = Address>, config: Config) -> Self {
        let mut cluster = Self::new(seeds, Config { read_only: true, ..config });
        if let Some(shared) = Rc::get_mut(&mut cluster.shared) {
            shared.reads_from_replicas = true;
        }
        cluster
    }

    /// Runs a command where its keys are, and converts its reply. Keys in several slots are [`Error::Misuse`].
    pub async fn run<T: FromValue>(&self, command: &Command) -> Result<T, Error> {
        self.send(command, Retry::IfUnsent).await?.convert().map_err(Error::UnexpectedReply)
    }

    /// Runs a command which may run twice: it is sent again where the connection died before the reply.
    pub async fn run_idempotent<T: FromValue>(&self, command: &Command) -> Result<T, Error> {
        self.send(command, Retry::Idempotent).await?.convert().map_err(Error::UnexpectedReply)
    }

    /// Gets the values of keys in any slots: a command for each slot, so not atomic.
    pub async fn get_many<T: FromValue>(&self, keys: &[&[u8]]) -> Result<Vec<T>, Error> {
        let mut places: HashMap<u16, Vec<usize>> = HashMap::new();
        for (place, key) in keys.iter().enumerate() {
            places.entry(crate::proto::slot(key)).or_default().push(place);
        }
        let mut found: Vec<Option<T>> = keys.iter().map(|_| None).collect();
        for places in places.values() {
            let command = Command::new("MGET").args(places.iter().map(|place| keys[*place]));
            let values = self.run_idempotent::<Vec<Value>>(&command).await?;
            for (place, value) in places.iter().zip(values) {
                found[*place] = Some(value.convert().map_err(Error::UnexpectedReply)?);
            }
        }
        Ok(found.into_iter().flatten().collect())
    }

    /// The client of one node, for commands that are for it alone.
    pub fn node(&self, address: &Address) -> Client {
        let make = || Client::new(Config { address: address.clone(), ..self.shared.config.clone() });
        self.shared.nodes.borrow_mut().entry(address.clone()).or_insert_with(make).clone()
    }

    async fn send(&self, command: &Command, retry: Retry) -> Result<Value, Error> {
        let slot = keys::slot_of(command)?;
        let shared = &self.shared;
        let (mut redirections, mut failed) = (0, 0);
        // Where the last answer says that it is, and whether only for this time.
        let mut told: Option<(Address, bool)> = None;
        loop {
            let result = match told.take() {
                Some((address, true)) => self.ask_there(&address, command).await,
                Some((address, false)) => self.node(&address).run(command).await,
                None => match self.owner(slot, command).await {
                    Ok(address) => self.node(&address).run(command).await,
                    Err(error) => Err(error),
                },
            };
            let error = match result {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            if let Error::Server(refusal) = &error
                && let Some((slot, address)) = redirection(refusal)
                && redirections < REDIRECTIONS
            {
                redirections += 1;
                let is_for_once = refusal.code() == "ASK";
                if !is_for_once && let Some(owners) = shared.slots.borrow_mut().get_mut(usize::from(slot)) {
                    *owners = Rc::new([address.clone()]) as Rc<[Address]>;
                }
                told = Some((address, is_for_once));
                continue;
            }
            let may_try_again = match &error {
                Error::Server(refusal) => matches!(refusal.code(), "TRYAGAIN" | "CLUSTERDOWN" | "MASTERDOWN"),
                Error::Network { may_have_run, .. } | Error::Timeout { may_have_run, .. } => {
                    !may_have_run || retry == Retry::Idempotent
                }
                other => other.is_transient(),
            };
            if !matches!(&error, Error::Server(refusal) if refusal.code() == "TRYAGAIN") {
                shared.is_stale.set(shared.is_stale.get() || error.is_transient() || may_try_again);
            }
            if !may_try_again || failed >= shared.backoff.retries {
                return Err(error);
            }
            // Half of the longest wait: callers are many, but the nodes are few.
            sleep(shared.backoff.wait(failed, 0.5)).await;
            failed += 1;
        }
    }

    async fn ask_there(&self, address: &Address, command: &Command) -> Result<Value, Error> {
        let replies = self.node(address).pipeline(&[Command::new("ASKING"), command.clone()]).await?;
        match replies.into_iter().next_back() {
            Some(Value::Error(error)) => Err(Error::Server(error)),
            Some(value) => Ok(value),
            None => unreachable!("two replies were asked for"),
        }
    }

    /// Who gets a command.
    async fn owner(&self, slot: Option<u16>, command: &Command) -> Result<Address, Error> {
        let shared = &self.shared;
        if shared.is_stale.get() {
            self.refresh().await?;
        }
        let turn = shared.turn.get();
        let slots = shared.slots.borrow();
        let owners = &slots[usize::from(slot.unwrap_or((turn % usize::from(SLOTS)) as u16))];
        let choice = if shared.reads_from_replicas && keys::only_reads(command) { owners.len() } else { 1 };
        if choice > 1 || slot.is_none() {
            shared.turn.set(turn.wrapping_add(1));
        }
        owners
            .get(turn % choice.max(1))
            .cloned()
            .ok_or_else(|| Error::Server(ServerError::new(b"CLUSTERDOWN Hash slot not served")))
    }

    /// Reads who has which slots, from the first node that answers.
    async fn refresh(&self) -> Result<(), Error> {
        let shared = &self.shared;
        let known: Vec<_> = shared.nodes.borrow().keys().cloned().collect();
        let mut last = Error::Misuse("a cluster needs the address of a node".into());
        for address in known.into_iter().chain(shared.seeds.iter().cloned()) {
            let answer =
                self.node(&address).run::<Vec<Vec<Value>>>(&Command::new("CLUSTER").arg("SLOTS")).await;
            match answer {
                Ok(ranges) => {
                    let slots = table(ranges, &address);
                    shared
                        .nodes
                        .borrow_mut()
                        .retain(|node, _| slots.iter().any(|owners| owners.contains(node)));
                    shared.slots.replace(slots);
                    shared.is_stale.set(false);
                    return Ok(());
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// Where MOVED or ASK sends a command: the slot and the address.
fn redirection(error: &ServerError) -> Option<(u16, Address)> {
    if !matches!(error.code(), "MOVED" | "ASK") {
        return None;
    }
    let (slot, address) = error.message().split_once(' ')?;
    let (host, port) = address.rsplit_once(':')?;
    Some((slot.parse().ok()?, Address::Tcp { host: host.into(), port: port.parse().ok()? }))
}

/// The owners of every slot, of an answer to CLUSTER SLOTS; a node without a name is the one that was asked.
fn table(ranges: Vec<Vec<Value>>, asked: &Address) -> Vec<Rc<[Address]>> {
    let nobody: Rc<[Address]> = Rc::new([]);
    let mut slots = vec![nobody; usize::from(SLOTS)];
    for range in ranges {
        let mut parts = range.into_iter();
        let mut bound = || parts.next().and_then(|part| part.convert::<u16>().ok());
        let (Some(first), Some(last)) = (bound(), bound()) else { continue };
        let owners: Rc<[Address]> = parts.filter_map(|node| address_of(node, asked)).collect();
        for slot in first..=last.min(SLOTS - 1) {
            slots[usize::from(slot)] = Rc::clone(&owners);
        }
    }
    slots
}

fn address_of(node: Value, asked: &Address) -> Option<Address> {
    let mut parts = node.convert::<Vec<Value>>().ok()?.into_iter();
    let host: Option<String> = parts.next()?.convert().ok()?;
    let port: u16 = parts.next()?.convert().ok()?;
    match (host.filter(|host| !host.is_empty() && host != "?"), asked) {
        (Some(host), _) => Some(Address::Tcp { host, port }),
        (None, Address::Tcp { host, .. }) => Some(Address::Tcp { host: host.clone(), port }),
        (None, unix) => Some(unix.clone()),
    }
}
