//! The command line: `--name value` pairs, nothing clever.
//!
//! The only caller is the benchmark runner, so a mistake is a bug there: it is named and refused,
//! never corrected.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use crate::failure::Failure;

/// What carries the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A TCP connection.
    Stream,
    /// UDP, one datagram for each message. A datagram that is lost is a failure, as with a stream: on the loopback
    /// that is one which the receiver's buffer had no room for, so little may be in flight.
    Datagrams,
}

/// What to do, validated.
#[derive(Debug)]
pub struct Arguments {
    pub address: SocketAddr,
    pub transport: Transport,
    pub connections: usize,
    pub message_bytes: usize,
    /// Messages kept in flight on each connection.
    pub pipelined: usize,
    pub warm_up: Duration,
    pub duration: Duration,
    /// The server's process, when its CPU time is wanted.
    pub pid: Option<u32>,
    /// The core to run on.
    pub core: Option<usize>,
}

impl Arguments {
    /// Reads `--name value` pairs; `--address` is the only one without a default.
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let mut address = None;
        let mut arguments = Self {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            transport: Transport::Stream,
            connections: 1,
            message_bytes: 1024,
            pipelined: 1,
            warm_up: Duration::from_millis(100),
            duration: Duration::from_secs(1),
            pid: None,
            core: None,
        };
        while let Some(name) = words.next() {
            let value = words.next().ok_or_else(|| Failure::Arguments(format!("{name} needs a value")))?;
            match name.as_str() {
                "--address" => address = Some(parsed(&name, &value)?),
                "--transport" => arguments.transport = transport(&name, &value)?,
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
        if arguments.transport == Transport::Datagrams && arguments.message_bytes > LARGEST_DATAGRAM {
            return Err(Failure::Arguments(format!(
                "--message-bytes: a datagram has at most {LARGEST_DATAGRAM}"
            )));
        }
        arguments.address = address.ok_or_else(|| Failure::Arguments("--address is required".to_owned()))?;
        Ok(arguments)
    }
}

fn transport(name: &str, value: &str) -> Result<Transport, Failure> {
    match value {
        "stream" => Ok(Transport::Stream),
        "datagrams" => Ok(Transport::Datagrams),
        _ => Err(Failure::Arguments(format!("{name}: {value:?} is neither stream nor datagrams"))),
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
            ("--colour red", "--colour"),
        ] {
            let failure = parse(line).expect_err(line).to_string();
            assert!(failure.contains(word), "{line:?} gave {failure:?}");
        }
    }
}
