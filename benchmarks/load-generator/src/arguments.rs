//! The command line: `--name value` pairs, nothing clever.
//!
//! The only caller is the benchmark runner, so a mistake is a bug there: it is named and refused,
//! never corrected.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::failure::Failure;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// Load a server and measure time.
    Load,
    /// Open connections and measure the server's memory.
    Memory,
    /// Be the server of a measured client.
    Peer,
}

/// Where the server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Internet(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// What carries the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A TCP connection, or that of a Unix socket.
    Stream,
    /// A TCP connection with TLS; `--authority` names the file that the server's certificate is checked with.
    Tls,
    /// HTTP/1.1, a request at a time.
    Http,
    /// No messages: each connection is opened and closed again.
    Visits,
    /// UDP, one datagram for each message. A datagram that is lost is a failure, as with a stream: on the loopback
    /// that is one which the receiver's buffer had no room for, so little may be in flight.
    Datagrams,
}

/// What to do, validated.
#[derive(Debug)]
pub struct Arguments {
    pub job: Job,
    pub address: Address,
    pub transport: Transport,
    pub connections: usize,
    pub message_bytes: usize,
    /// Messages kept in flight on each connection.
    pub pipelined: usize,
    pub warm_up: Duration,
    pub duration: Duration,
    /// The certificate of the authority that signed the server's, as PEM.
    pub authority: Option<PathBuf>,
    /// The server's process, when its CPU time or memory is wanted.
    pub pid: Option<u32>,
    /// The core to run on.
    pub core: Option<usize>,
}

impl Arguments {
    /// Reads `--name value` pairs; `--address` is the only one without a default.
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let mut address = None;
        let mut arguments = Self {
            job: Job::Load,
            address: Address::Internet(SocketAddr::from(([127, 0, 0, 1], 0))),
            transport: Transport::Stream,
            connections: 1,
            message_bytes: 1024,
            pipelined: 1,
            warm_up: Duration::from_millis(100),
            duration: Duration::from_secs(1),
            authority: None,
            pid: None,
            core: None,
        };
        while let Some(name) = words.next() {
            let value = words.next().ok_or_else(|| Failure::Arguments(format!("{name} needs a value")))?;
            match name.as_str() {
                "--job" => arguments.job = job(&name, &value)?,
                "--address" => address = Some(Address::Internet(parsed(&name, &value)?)),
                "--path" => address = Some(Address::Unix(value.into())),
                "--transport" => arguments.transport = transport(&name, &value)?,
                "--authority" => arguments.authority = Some(value.into()),
                "--connections" => arguments.connections = at_least_one(&name, &value)?,
                "--message-bytes" => arguments.message_bytes = at_least_one(&name, &value)?,
                "--pipelined" => arguments.pipelined = at_least_one(&name, &value)?,
                "--warm-up" => arguments.warm_up = seconds(&name, &value)?,
                "--seconds" => arguments.duration = seconds(&name, &value)?,
                "--pid" => arguments.pid = Some(parsed(&name, &value)?),
                "--core" => arguments.core = Some(core(&name, &value)?),
                _ => return Err(Failure::Arguments(format!("unknown argument {name}"))),
            }
        }
        arguments.check(address)
    }

    /// Refuses what does not fit together.
    fn check(mut self, address: Option<Address>) -> Result<Self, Failure> {
        let refuse = |problem: String| Err(Failure::Arguments(problem));
        if self.job == Job::Peer {
            return Ok(self);
        }
        let Some(address) = address else { return refuse("--address or --path is required".to_owned()) };
        self.address = address;
        let is_internet = matches!(self.address, Address::Internet(_));
        match self.transport {
            Transport::Datagrams if self.message_bytes > LARGEST_DATAGRAM => {
                refuse(format!("--message-bytes: a datagram has at most {LARGEST_DATAGRAM}"))
            }
            Transport::Tls if self.authority.is_none() => {
                refuse("--transport tls needs --authority".to_owned())
            }
            Transport::Http if self.pipelined > 1 => {
                refuse("--pipelined: HTTP asks once at a time".to_owned())
            }
            Transport::Visits | Transport::Datagrams | Transport::Tls if !is_internet => {
                refuse("--path is for streams".to_owned())
            }
            _ if self.job == Job::Memory && self.pid.is_none() => {
                refuse("--job memory needs --pid".to_owned())
            }
            _ => Ok(self),
        }
    }
}

fn job(name: &str, value: &str) -> Result<Job, Failure> {
    match value {
        "load" => Ok(Job::Load),
        "memory" => Ok(Job::Memory),
        "peer" => Ok(Job::Peer),
        _ => Err(Failure::Arguments(format!("{name}: {value:?} is none of load, memory, peer"))),
    }
}

fn transport(name: &str, value: &str) -> Result<Transport, Failure> {
    match value {
        "stream" => Ok(Transport::Stream),
        "datagrams" => Ok(Transport::Datagrams),
        "tls" => Ok(Transport::Tls),
        "http" => Ok(Transport::Http),
        "visits" => Ok(Transport::Visits),
        _ => Err(Failure::Arguments(format!(
            "{name}: {value:?} is none of stream, datagrams, tls, http, visits"
        ))),
    }
}

fn parsed<T: FromStr>(name: &str, value: &str) -> Result<T, Failure> {
    value.parse().map_err(|_| Failure::Arguments(format!("{name}: {value:?} makes no sense")))
}

fn at_least_one(name: &str, value: &str) -> Result<usize, Failure> {
    match parsed(name, value)? {
        0 => Err(Failure::Arguments(format!("{name} must be at least 1"))),
        number => Ok(number),
    }
}

fn core(name: &str, value: &str) -> Result<usize, Failure> {
    let number = parsed(name, value)?;
    if number < rustix::thread::CpuSet::MAX_CPU {
        Ok(number)
    } else {
        Err(Failure::Arguments(format!("{name}: there is no core {number}")))
    }
}

fn seconds(name: &str, value: &str) -> Result<Duration, Failure> {
    Duration::try_from_secs_f64(parsed(name, value)?)
        .ok()
        .filter(|duration| *duration <= LONGEST)
        .ok_or_else(|| Failure::Arguments(format!("{name}: {value} is not a sensible number of seconds")))
}

/// Every run is bounded: latencies are kept one by one, and nobody waits longer for a table.
const LONGEST: Duration = Duration::from_secs(300);

/// What UDP over IPv4 can carry.
const LARGEST_DATAGRAM: usize = 65_507;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, Failure> {
        Arguments::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn a_full_command_line_is_understood() {
        let arguments = parse(
            "--address 127.0.0.1:80 --connections 3 --message-bytes 9 --pipelined 2 \
             --warm-up 0 --seconds 0.5 --pid 7 --core 1 --transport datagrams",
        )
        .expect("the line is well formed");
        assert_eq!((arguments.connections, arguments.message_bytes, arguments.pipelined), (3, 9, 2));
        assert_eq!((arguments.warm_up, arguments.duration), (Duration::ZERO, Duration::from_millis(500)));
        assert_eq!((arguments.pid, arguments.core), (Some(7), Some(1)));
        assert_eq!(arguments.transport, Transport::Datagrams);
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for (line, word) in [
            ("", "--address"),
            ("--address nowhere", "--address"),
            ("--address 127.0.0.1:80 --connections 0", "--connections"),
            ("--address 127.0.0.1:80 --seconds -1", "--seconds"),
            ("--address 127.0.0.1:80 --seconds 1e9", "--seconds"),
            ("--address 127.0.0.1:80 --core 100000000", "--core"),
            ("--address 127.0.0.1:80 --pid", "--pid"),
            ("--address 127.0.0.1:80 --transport pigeons", "--transport"),
            ("--address 127.0.0.1:80 --transport datagrams --message-bytes 65508", "--message-bytes"),
            ("--address 127.0.0.1:80 --transport tls", "--authority"),
            ("--address 127.0.0.1:80 --transport http --pipelined 2", "--pipelined"),
            ("--path socket --transport visits", "--path"),
            ("--address 127.0.0.1:80 --job memory", "--pid"),
            ("--job nap", "--job"),
            ("--colour red", "--colour"),
        ] {
            let failure = parse(line).expect_err(line).to_string();
            assert!(failure.contains(word), "{line:?} gave {failure:?}");
        }
    }
}
