//! The server's CPU time, read from outside its process.
//!
//! `/proc/PID/task/TID/schedstat` (Documentation/scheduler/sched-stats.rst) begins with the
//! nanoseconds the thread has run: user and system time, exact, without sampling. Summed over all
//! threads it is what the server paid, kernel workers of its rings included. The kernel brings the
//! number up to date when a thread stops running, so readings are taken when the server has gone to
//! sleep.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::thread;
use std::time::Duration;

/// The run time of each thread of the server.
#[derive(Debug)]
pub struct ServerTime {
    by_thread: BTreeMap<u32, u64>,
    settled: bool,
}

/// What lies between two readings.
#[derive(Debug)]
pub struct Spent {
    pub time: Duration,
    /// Threads that ended in between: what they ran after the first reading is lost.
    pub threads_ended: usize,
    /// False if the server never went to sleep, and a reading may be late by a scheduler tick.
    pub settled: bool,
}

impl ServerTime {
    /// Reads until nothing changes any more, or for as long as is sensible.
    pub fn read_settled(pid: u32) -> io::Result<Self> {
        let mut before = read(pid)?;
        for _ in 0..ATTEMPTS {
            thread::sleep(PAUSE);
            let now = read(pid)?;
            if now == before {
                return Ok(Self { by_thread: now, settled: true });
            }
            before = now;
        }
        Ok(Self { by_thread: before, settled: false })
    }

    /// The time spent since an earlier reading.
    pub fn since(&self, earlier: &Self) -> Spent {
        let nanoseconds = self
            .by_thread
            .iter()
            .map(|(thread, now)| now.saturating_sub(earlier.by_thread.get(thread).copied().unwrap_or(0)))
            .sum();
        Spent {
            time: Duration::from_nanos(nanoseconds),
            threads_ended: earlier
                .by_thread
                .keys()
                .filter(|thread| !self.by_thread.contains_key(thread))
                .count(),
            settled: self.settled && earlier.settled,
        }
    }
}

/// The nanoseconds each thread of `pid` has run.
fn read(pid: u32) -> io::Result<BTreeMap<u32, u64>> {
    let mut by_thread = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let entry = entry?;
        let Some(thread) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let text = match fs::read_to_string(entry.path().join("schedstat")) {
            Ok(text) => text,
            // The thread ended after the directory was read; a kernel without schedstat has none
            // for the main thread either, and that shows below.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => continue,
            Err(error) => return Err(error),
        };
        by_thread.insert(thread, run_time(&text)?);
    }
    if by_thread.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "no schedstat of the server can be read"));
    }
    Ok(by_thread)
}

/// The first field of a schedstat line.
fn run_time(text: &str) -> io::Result<u64> {
    text.split_whitespace()
        .next()
        .and_then(|field| field.parse().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("strange schedstat: {text:?}")))
}

/// Time between two readings: longer than a loop may spin before it sleeps.
const PAUSE: Duration = Duration::from_millis(2);
/// Readings before a busy server is taken as it is.
const ATTEMPTS: usize = 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_threads_count_in_full_and_ended_ones_are_named() {
        let earlier = ServerTime { by_thread: BTreeMap::from([(1, 100), (2, 50)]), settled: true };
        let later = ServerTime { by_thread: BTreeMap::from([(1, 150), (3, 7)]), settled: true };
        let spent = later.since(&earlier);
        assert_eq!((spent.time, spent.threads_ended, spent.settled), (Duration::from_nanos(57), 1, true));
    }

    #[test]
    fn this_process_has_run_for_some_time() {
        let time = ServerTime::read_settled(std::process::id()).expect("/proc is mounted");
        assert!(time.by_thread.values().sum::<u64>() > 0);
    }

    #[test]
    fn a_strange_line_is_an_error() {
        assert!(run_time("").is_err());
        assert!(run_time("many 1 2").is_err());
        assert!(run_time("12 1 2\n").is_ok_and(|time| time == 12));
    }
}
