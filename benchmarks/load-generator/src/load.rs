//! The load: all connections on one edge-triggered epoll, a bounded span at a time.
//!
//! A span starts by putting the wanted number of messages in flight everywhere and replaces each
//! finished message with a new one. When its time is over nothing new is started, and the span ends
//! with the last echo: no message is half counted, and two spans can follow each other.
//!
//! # Invariants
//! - Between spans nothing is in flight.
//! - A span ends: by its deadline plus the drain, or by [`Failure::Stalled`].

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::EventFlags;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use crate::arguments::{Arguments, Transport};
use crate::client::Client;
use crate::connection::Connection;
use crate::failure::Failure;
use crate::http::Visitor;
use crate::pattern::{Pattern, WINDOW};
use crate::socket::Dialer;

/// Connections to one server, and what they send.
#[derive(Debug)]
pub struct Load {
    epoll: OwnedFd,
    clients: Vec<Client>,
    message_bytes: usize,
    pipelined: usize,
    pattern: Pattern,
    scratch: Scratch,
}

/// What one span yields.
#[derive(Debug)]
pub struct Measurement {
    /// One entry per message.
    pub latencies: Vec<Duration>,
    /// From the first byte sent to the last byte received.
    pub elapsed: Duration,
}

impl Load {
    /// Opens every one of `connections` before anything is sent.
    pub fn connect(arguments: &Arguments, connections: usize) -> Result<Self, Failure> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let dialer = Dialer::new(arguments)?;
        let clients = (0..connections)
            .map(|index| {
                let socket = dialer.open()?;
                let client = match arguments.transport {
                    Transport::Http => Client::Http(Visitor::new(socket, index)),
                    _ => Client::Echo(Connection::new(socket, index)),
                };
                epoll::add(&epoll, &client, epoll::EventData::new_u64(index as u64), INTEREST)?;
                Ok(client)
            })
            .collect::<io::Result<Vec<_>>>()?;
        Ok(Self {
            epoll,
            clients,
            message_bytes: arguments.message_bytes,
            pipelined: arguments.pipelined,
            pattern: Pattern::new(),
            scratch: Scratch::new(),
        })
    }

    /// Loads the server for `duration`, then waits for the last echoes.
    pub fn run(&mut self, duration: Duration) -> Result<Measurement, Failure> {
        let start = Instant::now();
        let deadline = start + duration;
        let mut latencies = Vec::new();
        let mut in_flight = self.clients.len() * self.pipelined;
        for client in &mut self.clients {
            for _ in 0..self.pipelined {
                client.start(self.message_bytes, start);
            }
            client.send(self.message_bytes, &self.pattern)?;
        }
        let mut events = Vec::with_capacity(EVENTS);
        let mut last_byte = start;
        while in_flight > 0 {
            self.wait(&mut events)?;
            let now = Instant::now();
            let refill = now < deadline;
            for event in events.drain(..) {
                let index = event.data.u64() as usize;
                let client = &mut self.clients[index];
                let finished_before = latencies.len();
                let received = client.receive(
                    self.message_bytes,
                    // Copied out: the kernel's struct is packed.
                    { event.flags }.intersects(HUNG_UP),
                    &self.pattern,
                    self.scratch.bytes(),
                    &mut latencies,
                )?;
                if received > 0 {
                    last_byte = now;
                }
                let finished = latencies.len() - finished_before;
                if refill {
                    for _ in 0..finished {
                        client.start(self.message_bytes, Instant::now());
                    }
                } else {
                    in_flight -= finished;
                }
                client.send(self.message_bytes, &self.pattern)?;
            }
            if now - last_byte > STALL {
                let in_flight = self.clients.iter().map(Client::in_flight).sum();
                return Err(Failure::Stalled { in_flight });
            }
        }
        Ok(Measurement { latencies, elapsed: start.elapsed() })
    }

    /// Fills `events`; returns with none after [`PATIENCE`], so that a silent server is noticed.
    fn wait(&self, events: &mut Vec<epoll::Event>) -> Result<(), Failure> {
        match epoll::wait(&self.epoll, spare_capacity(events), Some(&PATIENCE)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Where echoes land: page-aligned, because some CPUs copy ten times slower to an address a few
/// bytes past the start of a page, which is where a large `Vec` begins.
#[derive(Debug)]
struct Scratch {
    memory: Vec<u8>,
    start: usize,
}

impl Scratch {
    fn new() -> Self {
        let memory = vec![0; WINDOW + PAGE];
        let start = memory.as_ptr().align_offset(PAGE).min(PAGE);
        Self { memory, start }
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + WINDOW]
    }
}

/// What each connection tells, once per change.
const INTEREST: EventFlags =
    EventFlags::IN.union(EventFlags::OUT).union(EventFlags::RDHUP).union(EventFlags::ET);
/// The peer sends no more.
const HUNG_UP: EventFlags = EventFlags::RDHUP.union(EventFlags::HUP).union(EventFlags::ERR);
/// Events taken from the kernel at once.
const EVENTS: usize = 1024;
/// How often a silent server is looked at.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// Silence after which a server counts as stuck.
pub const STALL: Duration = Duration::from_secs(5);
const PAGE: usize = 4096;
