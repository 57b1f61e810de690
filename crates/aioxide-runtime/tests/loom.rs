//! The inbox under the model checker: every interleaving of producers and a consumer that sleeps.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p aioxide-runtime --release --test loom`.
#![cfg(loom)]

use aioxide_runtime::Inbox;
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

/// What the driver's waker is to the consumer: a wake before the sleep is not lost.
struct Alarm {
    rung: Mutex<bool>,
    bell: Condvar,
}

impl Alarm {
    fn wake(&self) {
        *self.rung.lock().unwrap() = true;
        self.bell.notify_one();
    }

    fn sleep(&self) {
        let mut rung = self.rung.lock().unwrap();
        while !*rung {
            rung = self.bell.wait(rung).unwrap();
        }
        *rung = false;
    }
}

/// Producers with this many letters each; the consumer sleeps whenever the inbox is empty.
fn everything_arrives(letters: &'static [usize]) {
    let mut builder = loom::model::Builder::new();
    // Three threads interleave in millions of ways; bugs of this size show within three preemptions.
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let inbox = Arc::new(Inbox::new());
        let alarm = Arc::new(Alarm { rung: Mutex::new(false), bell: Condvar::new() });
        let producers: Vec<_> = letters
            .iter()
            .enumerate()
            .map(|(producer, count)| {
                let (inbox, alarm) = (Arc::clone(&inbox), Arc::clone(&alarm));
                thread::spawn(move || {
                    for number in 0..*count {
                        if inbox.push((producer, number)).unwrap() {
                            alarm.wake();
                        }
                    }
                })
            })
            .collect();
        let mut mail = Vec::new();
        while mail.len() < letters.iter().sum() {
            if inbox.is_empty() {
                alarm.sleep();
            }
            inbox.take(&mut mail);
        }
        for (producer, count) in letters.iter().enumerate() {
            let order: Vec<_> =
                mail.iter().filter(|letter| letter.0 == producer).map(|letter| letter.1).collect();
            assert_eq!(order, (0..*count).collect::<Vec<_>>());
        }
        for producer in producers {
            producer.join().unwrap();
        }
    });
}

#[test]
fn one_producer_and_a_consumer_that_sleeps_lose_nothing() {
    everything_arrives(&[2]);
}

#[test]
fn only_one_of_two_producers_needs_to_wake_the_consumer() {
    everything_arrives(&[1, 1]);
}

#[test]
fn a_value_pushed_while_the_inbox_closes_comes_back_or_is_handed_out() {
    loom::model(|| {
        let inbox = Arc::new(Inbox::new());
        let producer = {
            let inbox = Arc::clone(&inbox);
            thread::spawn(move || inbox.push(1).is_err())
        };
        let handed_out = inbox.close();
        let came_back = producer.join().unwrap();
        assert_eq!(came_back, handed_out.is_empty());
        assert!(inbox.is_empty());
    });
}
