//! Loads a server from outside its process and measures it.
//!
//! Opens N connections, keeps P messages in flight on each, compares every echoed byte with what
//! was sent, and prints one line of JSON: messages, seconds, latencies and the CPU time the server
//! spent. A server that answers wrongly, closes early or stops answering is a failure (exit status
//! 1, the reason on stderr), never a slow result. Other jobs: `memory` tells what a connection costs
//! the server while nothing happens, `peer` is the server that a measured client talks to.
//!
//! The measured span begins and ends with nothing in flight and the server asleep: every counted
//! message was received, answered and paid for inside it.

mod arguments;
mod client;
mod connection;
mod failure;
mod http;
mod load;
mod memory;
mod pattern;
mod peer;
mod server_time;
mod socket;
mod visits;

use std::process::ExitCode;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_setaffinity};

use crate::arguments::{Address, Arguments, Job, Transport};
use crate::failure::Failure;
use crate::load::{Load, Measurement};
use crate::server_time::ServerTime;

fn main() -> ExitCode {
    match Arguments::parse(std::env::args().skip(1)).and_then(|arguments| run(&arguments)) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("load-generator: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Does the job and returns the line to print.
fn run(arguments: &Arguments) -> Result<String, Failure> {
    if let Some(core) = arguments.core {
        let mut cores = CpuSet::new();
        cores.set(core);
        sched_setaffinity(None, &cores)?;
    }
    match (arguments.job, arguments.transport, &arguments.address) {
        (Job::Peer, ..) => peer::serve().map(|()| String::new()),
        (Job::Memory, ..) => measure_memory(arguments),
        (Job::Load, Transport::Visits, Address::Internet(address)) => {
            measure(arguments, |duration| visits::run(*address, arguments.connections, duration))
        }
        (Job::Load, ..) => {
            let mut load = Load::connect(arguments, arguments.connections)?;
            measure(arguments, |duration| load.run(duration))
        }
    }
}

/// Warms the server up, then measures it.
fn measure(
    arguments: &Arguments,
    mut load: impl FnMut(Duration) -> Result<Measurement, Failure>,
) -> Result<String, Failure> {
    load(arguments.warm_up)?;
    let before = arguments.pid.map(ServerTime::read_settled).transpose()?;
    let measurement = load(arguments.duration)?;
    let after = arguments.pid.map(ServerTime::read_settled).transpose()?;
    let spent = before.zip(after).map(|(before, after)| after.since(&before));
    Ok(line(arguments, measurement, spent.as_ref()))
}

/// Compares the server's memory before and after all connections are open, each having done its first exchange. As
/// many are open before that: they take what the server has at hand, and what it needs only once.
fn measure_memory(arguments: &Arguments) -> Result<String, Failure> {
    let pid = arguments.pid.unwrap_or_default();
    let open = |count| {
        let mut load = Load::connect(arguments, count)?;
        load.run(Duration::ZERO)?;
        ServerTime::read_settled(pid)?;
        Ok::<_, Failure>((memory::resident(pid)?, load))
    };
    let (before, _first) = open(arguments.connections)?;
    let (after, _rest) = open(arguments.connections)?;
    Ok(format!(
        "{{\"connections\": {}, \"message_bytes\": {}, \"resident_before\": {before}, \"resident_after\": {after}}}",
        arguments.connections, arguments.message_bytes,
    ))
}

/// The result as JSON: numbers only, so nothing needs escaping.
fn line(arguments: &Arguments, mut measurement: Measurement, spent: Option<&server_time::Spent>) -> String {
    measurement.latencies.sort_unstable();
    let server = spent.map_or_else(String::new, |spent| {
        format!(
            ", \"server_cpu_seconds\": {:.9}, \"server_threads_ended\": {}, \"server_settled\": {}",
            spent.time.as_secs_f64(),
            spent.threads_ended,
            spent.settled,
        )
    });
    format!(
        "{{\"connections\": {}, \"message_bytes\": {}, \"pipelined\": {}, \"messages\": {}, \"seconds\": {:.9}, \
         \"latency_p50_us\": {:.3}, \"latency_p99_us\": {:.3}{server}}}",
        arguments.connections,
        arguments.message_bytes,
        arguments.pipelined,
        measurement.latencies.len(),
        measurement.elapsed.as_secs_f64(),
        percentile(&measurement.latencies, 50),
        percentile(&measurement.latencies, 99),
    )
}

/// The value below which `percent` of the sorted latencies lie, in microseconds.
fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    let index = sorted.len() * percent / 100;
    sorted.get(index.min(sorted.len().saturating_sub(1))).map_or(0.0, |latency| latency.as_secs_f64() * 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_taken_from_the_sorted_latencies() {
        let sorted: Vec<Duration> = (1..=100).map(Duration::from_micros).collect();
        assert!((percentile(&sorted, 50) - 51.0).abs() < 1e-6);
        assert!((percentile(&sorted, 99) - 100.0).abs() < 1e-6);
        assert!((percentile(&sorted[..1], 99) - 1.0).abs() < 1e-6);
        assert!(percentile(&[], 50).abs() < 1e-6);
    }
}
