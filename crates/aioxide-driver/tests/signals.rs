//! Clause 3: a signal ends a wait early, and is no error.
//!
//! A process of its own, because it is stopped and continued as a whole: that interrupts system calls
//! (signal(7)) without a handler, whose installation would be unsafe code.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test panics and looks at the clock")]

use std::process::Command;
use std::time::{Duration, Instant};

use aioxide_driver::{Choice, Driver, Options};

#[test]
fn a_signal_ends_a_wait_without_an_error() {
    interrupt(&mut Driver::open(&Options::new(Choice::Epoll)).unwrap());
    match Driver::open(&Options::new(Choice::Uring)) {
        Ok(mut driver) => interrupt(&mut driver),
        Err(error) => eprintln!("skipped: {error}"),
    }
}

fn interrupt(driver: &mut Driver) {
    // The first signals may come before the wait, and one that continues us at once takes back the one that stops
    // us (signal(7)). The script always ends by continuing us.
    let script = "for _ in 1 2 3 4 5 6 7 8 9 10; do sleep 0.1; kill -STOP $0; sleep 0.1; kill -CONT $0; done";
    let own = std::process::id().to_string();
    let mut signaller = Command::new("sh").args(["-c", script, &own]).spawn().unwrap();
    let (started, patience) = (Instant::now(), Duration::from_secs(20));
    let mut completions = Vec::new();
    driver.wait(Some(patience), &mut completions).unwrap();
    assert!(started.elapsed() < patience);
    assert!(completions.is_empty());
    assert!(signaller.wait().unwrap().success());
}
