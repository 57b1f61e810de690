//! Sleeping and time-outs, in simulated time and a little in real time; what a host sees of it.

use std::cell::RefCell;
use std::future::pending;
use std::rc::Rc;
use std::time::Duration;

use crate::support::{on_every_driver, simulated};
use aioxide_driver::{Completion, Outcome, Token};
use aioxide_runtime::{Deadline, host_token, now, sleep, sleep_until, spawn, timeout, yield_now};

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn simulated_sleepers_wake_in_the_order_of_their_deadlines() {
    let (runtime, script) = simulated();
    let order = Rc::new(RefCell::new(Vec::new()));
    runtime
        .block_on(async {
            let tasks: Vec<_> = [3, 1, 2, 1]
                .into_iter()
                .map(|hours| {
                    let order = Rc::clone(&order);
                    spawn(async move {
                        sleep(HOUR * hours).await;
                        order.borrow_mut().push((hours, now()));
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
        })
        .unwrap();
    let at = |hours| (hours, Deadline(0).after(HOUR * hours));
    assert_eq!(*order.borrow(), [at(1), at(1), at(2), at(3)]);
    assert_eq!(script.timeouts(), [Some(HOUR); 3]);
}

#[test]
fn a_time_out_drops_its_future_and_a_result_in_time_cancels_the_timer() {
    let (runtime, _script) = simulated();
    runtime
        .block_on(async {
            let witness = Rc::new(());
            let held = Rc::clone(&witness);
            let late = timeout(HOUR, async move {
                let _held = held;
                pending::<()>().await;
            });
            assert!(late.await.is_err());
            assert_eq!(Rc::strong_count(&witness), 1);
            assert_eq!(now(), Deadline(0).after(HOUR));

            let in_time = timeout(HOUR, async {
                sleep(HOUR / 2).await;
                "in time"
            });
            assert_eq!(in_time.await, Ok("in time"));
            assert_eq!(timeout(Duration::ZERO, async { "at once" }).await, Ok("at once"));
        })
        .unwrap();
    assert_eq!(runtime.statistics().timers, 0);
    assert_eq!(runtime.next_deadline(), None);
}

#[test]
fn a_sleep_that_ends_at_once_still_takes_a_turn() {
    let (runtime, _script) = simulated();
    let log = Rc::new(RefCell::new(Vec::new()));
    runtime
        .block_on(async {
            let other = spawn({
                let log = Rc::clone(&log);
                async move { log.borrow_mut().push("other") }
            });
            sleep(Duration::ZERO).await;
            sleep_until(Deadline(0)).await;
            log.borrow_mut().push("main");
            other.await.unwrap();
        })
        .unwrap();
    assert_eq!(*log.borrow(), ["other", "main"]);
}

#[test]
fn waiting_for_nothing_is_an_error_where_nothing_can_happen() {
    let (runtime, _script) = simulated();
    assert!(runtime.block_on(pending::<()>()).is_err());
}

#[test]
fn an_error_of_the_drivers_wait_reaches_the_caller() {
    let (runtime, script) = simulated();
    script.fail_wait(std::io::Error::from_raw_os_error(9));
    let error = runtime.block_on(async { sleep(HOUR).await }).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(9));
    // The sleeper is gone, and the runtime goes on.
    assert_eq!(runtime.statistics().timers, 0);
    runtime.block_on(async { sleep(HOUR).await }).unwrap();
}

#[test]
fn a_host_keeps_its_own_completions_in_order() {
    let (runtime, _script) = simulated();
    let ready = |key| Completion { token: host_token(key), outcome: Outcome::Ready, more: true };
    let mut completions = vec![ready(2), ready(0), ready(1)];
    runtime.collect(Deadline(5), &mut completions);
    let tokens: Vec<Token> = completions.iter().map(|completion| completion.token).collect();
    assert_eq!(tokens, [host_token(2), host_token(0), host_token(1)]);
}

#[test]
fn a_host_can_step_through_a_sleep() {
    let (runtime, _script) = simulated();
    let task = {
        let _guard = runtime.enter();
        runtime.spawn(sleep(Duration::from_nanos(10)))
    };
    assert!(runtime.has_ready());
    assert_eq!(runtime.run_tasks(8), 1);
    assert!(!runtime.has_ready());
    assert_eq!(runtime.next_deadline(), Some(Deadline(10)));
    runtime.collect(Deadline(9), &mut Vec::new());
    assert!(!runtime.has_ready());
    runtime.collect(Deadline(10), &mut Vec::new());
    assert_eq!((runtime.has_ready(), runtime.next_deadline()), (true, None));
    assert_eq!(runtime.run_tasks(8), 1);
    assert!(task.is_finished());
}

#[test]
fn real_time_passes_while_sleeping() {
    on_every_driver(|runtime| {
        runtime
            .block_on(async {
                let before = now();
                sleep(Duration::from_millis(2)).await;
                assert!(now() >= before.after(Duration::from_millis(2)));
                assert!(timeout(Duration::from_millis(1), pending::<()>()).await.is_err());
                yield_now().await;
            })
            .unwrap();
    });
}
