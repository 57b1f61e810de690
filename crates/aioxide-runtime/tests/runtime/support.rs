//! The same test on every driver this machine has, with the counters at zero when it ends.

use std::time::Duration;

use aioxide_driver::{Backend, Choice, Driver, Options, Script};
use aioxide_runtime::{Clock, Runtime, Statistics};

/// Calls `test` with a runtime on io_uring and one on epoll. Where the driver says that this machine
/// refuses io_uring, only on epoll.
pub fn on_every_driver(test: impl Fn(&Runtime)) {
    let epoll = Runtime::new(&Options::new(Choice::Epoll)).expect("epoll is always there");
    check(&epoll, &test);
    let best = Runtime::new(&Options::new(Choice::Auto)).expect("epoll is always there");
    match best.with_driver(|driver| (driver.backend(), driver.reason().to_owned())) {
        (Backend::Uring, _) => check(&best, &test),
        (_, reason) => eprintln!("on epoll only: {reason}"),
    }
}

fn check(runtime: &Runtime, test: &impl Fn(&Runtime)) {
    test(runtime);
    // Cancelled operations end within a few turns.
    let mut completions = Vec::new();
    while runtime.statistics().operations > 0 {
        runtime
            .with_driver(|driver| driver.wait(Some(Duration::from_secs(5)), &mut completions))
            .expect("the driver waits");
        assert!(!completions.is_empty(), "an operation never ended: {:?}", runtime.statistics());
        runtime.collect(aioxide_runtime::Deadline(0), &mut completions);
    }
    runtime.shutdown();
    let statistics = Statistics { blocking_threads: 0, ..runtime.statistics() };
    assert_eq!(statistics, Statistics::default());
    assert_eq!(runtime.with_driver(|driver| driver.statistics().in_flight), 0);
}

/// A runtime without a kernel, in simulated time.
pub fn simulated() -> (Runtime, Script) {
    let (driver, script) = Driver::scripted().expect("an eventfd can be had");
    (Runtime::from_driver(driver, Clock::Simulated), script)
}

/// Lets the driver answer, and wakes whom it answers.
pub fn take_turn(runtime: &Runtime) {
    let mut completions = Vec::new();
    runtime.with_driver(|driver| driver.wait(None, &mut completions)).expect("the script says what happens");
    runtime.collect(aioxide_runtime::Deadline(0), &mut completions);
    assert!(completions.is_empty());
}
