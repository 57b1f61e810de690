//! Waking, timeouts and signals.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{PATIENCE, on_every_backend};

on_every_backend! {
    /// Clause 5.
    fn a_wake_before_wait_is_not_lost(mut harness: Harness) {
        harness.driver.waker().wake();
        harness.driver.wait(None, &mut Vec::new()).unwrap();
    }

    /// Clause 5: many wakes cost one early return.
    fn many_wakes_end_one_wait(mut harness: Harness) {
        let waker = harness.driver.waker();
        for _ in 0..1000 {
            waker.wake();
        }
        harness.driver.wait(None, &mut Vec::new()).unwrap();
        let started = Instant::now();
        harness.driver.wait(Some(Duration::from_millis(30)), &mut Vec::new()).unwrap();
        assert!(started.elapsed() >= Duration::from_millis(30));
    }

    fn a_wake_from_another_thread_ends_the_sleep(mut harness: Harness) {
        let waker = harness.driver.waker();
        let (go, gone) = mpsc::channel();
        let other = thread::spawn(move || {
            gone.recv().unwrap();
            waker.wake();
        });
        go.send(()).unwrap();
        harness.driver.wait(None, &mut Vec::new()).unwrap();
        other.join().unwrap();
    }

    /// Each number is announced by one wake; a lost one would leave this waiting for ever.
    fn no_wake_is_lost_in_a_race(mut harness: Harness) {
        const COUNT: u64 = 20_000;
        let latest = Arc::new(AtomicU64::new(0));
        let posters: Vec<_> = (0..2)
            .map(|_| {
                let (waker, latest) = (harness.driver.waker(), latest.clone());
                thread::spawn(move || {
                    for _ in 0..COUNT {
                        latest.fetch_add(1, Ordering::Relaxed);
                        waker.wake();
                    }
                })
            })
            .collect();
        while latest.load(Ordering::Relaxed) < 2 * COUNT {
            harness.driver.wait(Some(PATIENCE), &mut Vec::new()).unwrap();
        }
        for poster in posters {
            poster.join().unwrap();
        }
    }

    fn a_waker_outlives_its_driver(harness: Harness) {
        let waker = harness.driver.waker();
        drop(harness);
        waker.wake();
    }

    fn a_wait_lasts_as_long_as_its_timeout(mut harness: Harness) {
        for timeout in [Duration::from_micros(300), Duration::from_millis(20)] {
            let started = Instant::now();
            harness.driver.wait(Some(timeout), &mut Vec::new()).unwrap();
            assert!(started.elapsed() >= timeout);
        }
        let started = Instant::now();
        harness.driver.wait(Some(Duration::ZERO), &mut Vec::new()).unwrap();
        assert!(started.elapsed() < PATIENCE);
    }

    /// A duration that no kernel can count is "for ever", not an error.
    fn the_longest_timeout_can_still_be_woken(mut harness: Harness) {
        let waker = harness.driver.waker();
        let other = thread::spawn(move || waker.wake());
        harness.driver.wait(Some(Duration::MAX), &mut Vec::new()).unwrap();
        other.join().unwrap();
    }
}
