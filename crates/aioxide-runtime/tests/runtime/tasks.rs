//! Spawning, joining, aborting, panicking; fairness; wakes from other threads.

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn};
use std::rc::Rc;
use std::sync::mpsc;
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

use crate::support::{on_every_driver, simulated};
use aioxide_runtime::{Deadline, JoinError, Runtime, sleep, spawn, spawn_blocking, yield_now};

/// Notes that it was dropped.
struct Noted(Rc<RefCell<Vec<&'static str>>>, &'static str);

impl Drop for Noted {
    fn drop(&mut self) {
        self.0.borrow_mut().push(self.1);
    }
}

#[test]
fn tasks_run_in_the_order_they_were_spawned_and_give_their_results() {
    on_every_driver(|runtime| {
        let order = Rc::new(RefCell::new(Vec::new()));
        let results = runtime.block_on(async {
            let handles: Vec<_> = (0..3)
                .map(|number| {
                    let order = Rc::clone(&order);
                    spawn(async move {
                        order.borrow_mut().push(number);
                        yield_now().await;
                        order.borrow_mut().push(number + 10);
                        number
                    })
                })
                .collect();
            let mut results = Vec::new();
            for handle in handles {
                results.push(handle.await.unwrap());
            }
            results
        });
        assert_eq!(results.unwrap(), [0, 1, 2]);
        assert_eq!(*order.borrow(), [0, 1, 2, 10, 11, 12]);
    });
}

#[test]
fn a_panic_fails_its_task_only() {
    on_every_driver(|runtime| {
        runtime
            .block_on(async {
                let survivor = spawn(async {
                    yield_now().await;
                    "alive"
                });
                let error = spawn(async { panic!("on purpose") }).await.unwrap_err();
                assert!(error.is_panic() && !error.is_cancelled());
                assert_eq!(error.to_string(), "the task panicked: on purpose");
                let payload = error.try_into_panic().unwrap();
                assert_eq!(payload.downcast_ref(), Some(&"on purpose"));
                assert_eq!(survivor.await.unwrap(), "alive");
            })
            .unwrap();
    });
}

#[test]
fn a_panic_while_a_future_is_dropped_fails_its_task_only() {
    struct PanicsWhenDropped;
    impl Drop for PanicsWhenDropped {
        fn drop(&mut self) {
            panic!("while it was dropped");
        }
    }
    on_every_driver(|runtime| {
        runtime
            .block_on(async {
                let task = spawn(async {
                    let _bomb = PanicsWhenDropped;
                    pending::<()>().await;
                });
                yield_now().await;
                task.abort();
                assert!(task.await.unwrap_err().is_panic());
                let left_behind = spawn(async {
                    let _bomb = PanicsWhenDropped;
                    pending::<()>().await;
                });
                drop(left_behind);
                yield_now().await;
            })
            .unwrap();
        runtime.shutdown();
        assert_eq!(runtime.statistics().tasks, 0);
    });
}

#[test]
fn an_aborted_task_drops_its_future_where_it_waits() {
    on_every_driver(|runtime| {
        let notes = Rc::new(RefCell::new(Vec::new()));
        runtime
            .block_on(async {
                let noted = Noted(Rc::clone(&notes), "dropped");
                let task = spawn(async move {
                    let _noted = noted;
                    sleep(Duration::from_secs(3600)).await;
                });
                yield_now().await;
                assert!(!task.is_finished());
                task.abort();
                task.abort();
                assert!(task.await.unwrap_err().is_cancelled());
            })
            .unwrap();
        assert_eq!(*notes.borrow(), ["dropped"]);
        assert_eq!(runtime.statistics().timers, 0);
    });
}

#[test]
fn a_task_aborted_before_its_first_run_never_runs() {
    on_every_driver(|runtime| {
        let ran = Rc::new(Cell::new(false));
        runtime
            .block_on(async {
                let task = spawn({
                    let ran = Rc::clone(&ran);
                    async move { ran.set(true) }
                });
                task.abort();
                assert!(task.await.unwrap_err().is_cancelled());
            })
            .unwrap();
        assert!(!ran.get());
        assert_eq!(Rc::strong_count(&ran), 1);
    });
}

#[test]
fn aborting_a_task_that_ended_keeps_its_result() {
    on_every_driver(|runtime| {
        let result = runtime.block_on(async {
            let task = spawn(async { 7 });
            yield_now().await;
            assert!(task.is_finished());
            task.abort();
            task.await
        });
        assert_eq!(result.unwrap().unwrap(), 7);
    });
}

#[test]
fn a_dropped_join_handle_lets_its_task_go_on() {
    on_every_driver(|runtime| {
        let (sender, receiver) = mpsc::channel();
        runtime
            .block_on(async {
                drop(spawn(async move {
                    yield_now().await;
                    sender.send("done").unwrap();
                }));
                for _ in 0..3 {
                    yield_now().await;
                }
            })
            .unwrap();
        assert_eq!(receiver.try_recv(), Ok("done"));
    });
}

#[test]
fn shutdown_drops_the_last_spawned_first() {
    on_every_driver(|runtime| {
        let notes = Rc::new(RefCell::new(Vec::new()));
        let tasks: Vec<_> = ["first", "second", "third"]
            .into_iter()
            .map(|name| {
                let noted = Noted(Rc::clone(&notes), name);
                runtime.spawn(async move {
                    let _noted = noted;
                    if name == "second" {
                        // It is in the ready queue before the others.
                        loop {
                            yield_now().await;
                        }
                    }
                    pending::<()>().await;
                })
            })
            .collect();
        runtime.run_tasks(10);
        runtime.shutdown();
        assert_eq!(*notes.borrow(), ["third", "second", "first"]);
        assert!(tasks.iter().all(aioxide_runtime::JoinHandle::is_finished));
    });
}

#[test]
fn a_task_may_use_what_was_spawned_before_it_while_it_is_dropped() {
    /// Says goodbye through a connection, if that is still there to take it.
    struct Goodbye(mpsc::Sender<&'static str>, Rc<RefCell<Vec<bool>>>);
    impl Drop for Goodbye {
        fn drop(&mut self) {
            self.1.borrow_mut().push(self.0.send("goodbye").is_ok());
        }
    }
    on_every_driver(|runtime| {
        let taken = Rc::new(RefCell::new(Vec::new()));
        let (sender, receiver) = mpsc::channel();
        let placeholder = runtime.spawn(pending::<()>());
        drop(runtime.spawn_named("connection", async move {
            let _receiver = receiver;
            pending::<()>().await;
        }));
        // The place of a task that ended is used again: places are in no order.
        placeholder.abort();
        runtime.run_tasks(10);
        for _ in 0..2 {
            let goodbye = Goodbye(sender.clone(), Rc::clone(&taken));
            drop(runtime.spawn_named("user", async move {
                let _goodbye = goodbye;
                pending::<()>().await;
            }));
        }
        runtime.run_tasks(10);
        assert_eq!(runtime.tasks(), ["connection", "user", "user"]);
        runtime.shutdown();
        assert_eq!(*taken.borrow(), [true, true]);
        assert!(runtime.tasks().is_empty());
    });
}

#[test]
fn tasks_are_listed_by_name_in_the_order_they_were_spawned() {
    on_every_driver(|runtime| {
        let first = runtime.spawn_named("first", pending::<()>());
        drop(runtime.spawn_named(String::from("second"), pending::<()>()));
        runtime
            .block_on(async {
                let unnamed = spawn(async {});
                let names = runtime.tasks();
                assert_eq!(names[..2], ["first", "second"]);
                assert!(names[2].contains("tasks_are_listed_by_name"), "{names:?}");
                unnamed.await.unwrap();
                first.abort();
                assert!(first.await.unwrap_err().is_cancelled());
                // It gets the place of one that ended.
                drop(aioxide_runtime::spawn_named("last", pending::<()>()));
            })
            .unwrap();
        assert_eq!(runtime.tasks(), ["second", "last"]);
    });
}

#[test]
fn a_panic_that_nobody_awaits_is_kept_for_the_host() {
    struct PanicsWhenDropped;
    impl Drop for PanicsWhenDropped {
        fn drop(&mut self) {
            panic!("while it was dropped");
        }
    }
    on_every_driver(|runtime| {
        let told = || {
            let panics = runtime.take_panics();
            let tell = |panic: JoinError| format!("{}: {panic}", panic.task_name().unwrap());
            panics.into_iter().map(tell).collect::<Vec<_>>()
        };
        let awaited = runtime.spawn_named("awaited", async { panic!("one") });
        let dropped_later = runtime.spawn_named("dropped later", async { panic!("two") });
        drop(runtime.spawn_named("dropped before", async { panic!("three") }));
        drop(runtime.spawn_named("with a bad result", async { PanicsWhenDropped }));
        drop(runtime.spawn_named("ends well", async {}));
        runtime.run_tasks(10);
        assert!(runtime.has_panics());
        assert_eq!(
            told(),
            [
                "dropped before: the task panicked: three",
                "with a bad result: the task panicked: while it was dropped",
            ]
        );
        assert!(!runtime.has_panics());
        drop(dropped_later);
        assert_eq!(told(), ["dropped later: the task panicked: two"]);
        let error = runtime.block_on(awaited).unwrap().unwrap_err();
        assert_eq!((error.task_name(), error.is_panic()), (Some("awaited"), true));
        drop(runtime.spawn_named("aborted", async {
            let _bomb = PanicsWhenDropped;
            pending::<()>().await;
        }));
        runtime.run_tasks(10);
        runtime.shutdown();
        assert_eq!(told(), ["aborted: the task panicked: while it was dropped"]);
        assert_eq!(runtime.statistics().tasks, 0);
    });
}

#[test]
fn a_task_spawned_by_a_destructor_during_shutdown_is_aborted_too() {
    struct SpawnsWhenDropped(Rc<()>);
    impl Drop for SpawnsWhenDropped {
        fn drop(&mut self) {
            let witness = Rc::clone(&self.0);
            drop(spawn(async move {
                let _witness = witness;
                pending::<()>().await;
            }));
        }
    }
    on_every_driver(|runtime| {
        let witness = Rc::new(());
        let spawner = SpawnsWhenDropped(Rc::clone(&witness));
        drop(runtime.spawn(async move {
            let _spawner = spawner;
            pending::<()>().await;
        }));
        runtime.run_tasks(1);
        runtime.shutdown();
        assert_eq!(Rc::strong_count(&witness), 1);
    });
}

#[test]
fn a_task_woken_on_another_thread_ends_the_sleep() {
    on_every_driver(|runtime| {
        let woken_by = runtime.block_on(async {
            let (sender, receiver) = mpsc::channel::<Waker>();
            let other = thread::spawn(move || {
                // The loop is about to sleep, or sleeps.
                receiver.recv().unwrap().wake();
                thread::current().id()
            });
            let mut sender = Some(sender);
            let task = spawn(poll_fn(move |context| match sender.take() {
                Some(sender) => {
                    sender.send(context.waker().clone()).unwrap();
                    Poll::Pending
                }
                None => Poll::Ready(()),
            }));
            task.await.unwrap();
            other.join().unwrap()
        });
        assert_ne!(woken_by.unwrap(), thread::current().id());
    });
}

#[test]
fn the_future_of_block_on_can_be_woken_from_another_thread() {
    on_every_driver(|runtime| {
        let answer = runtime.block_on(spawn_later(|| 42));
        assert_eq!(answer.unwrap(), 42);
    });
}

async fn spawn_later(answer: fn() -> i32) -> i32 {
    spawn_blocking(answer).await.expect("the job ends well")
}

#[test]
fn a_panicking_blocking_job_fails_its_handle_only() {
    on_every_driver(|runtime| {
        runtime
            .block_on(async {
                let error = spawn_blocking(|| panic!("in a thread")).await.unwrap_err();
                assert_eq!(error.to_string(), "the task panicked: in a thread");
                assert_eq!(spawn_blocking(|| 1).await.unwrap(), 1);
            })
            .unwrap();
    });
}

#[test]
fn a_storm_of_wakes_starves_neither_timers_nor_io() {
    on_every_driver(|runtime| {
        runtime
            .block_on(async {
                let storm: Vec<_> = (0..200)
                    .map(|_| {
                        spawn(async {
                            loop {
                                yield_now().await;
                            }
                        })
                    })
                    .collect();
                sleep(Duration::from_millis(1)).await;
                // The result comes through the driver's waker.
                assert_eq!(spawn_blocking(|| 3).await.unwrap(), 3);
                storm.iter().for_each(aioxide_runtime::JoinHandle::abort);
            })
            .unwrap();
    });
}

#[test]
fn a_batch_of_tasks_is_bounded_and_runs_only_what_was_ready() {
    let (runtime, _script) = simulated();
    let runs = Rc::new(Cell::new(0));
    for _ in 0..5 {
        let runs = Rc::clone(&runs);
        drop(runtime.spawn(async move {
            loop {
                runs.set(runs.get() + 1);
                yield_now().await;
            }
        }));
    }
    assert_eq!(runtime.run_tasks(3), 3);
    assert_eq!(runs.get(), 3);
    assert_eq!(runtime.run_tasks(usize::MAX), 5);
    assert_eq!(runs.get(), 8);
    assert!(runtime.has_ready());
}

#[test]
fn a_runtime_made_on_one_thread_runs_on_another_if_it_is_moved_before_it_spawns() {
    // `Runtime` is `!Send`; its driver is not, which is how a host moves it.
    let driver = aioxide_driver::Driver::open(&aioxide_driver::Options::default()).unwrap();
    let moved = thread::spawn(move || {
        let runtime = Runtime::from_driver(driver, aioxide_runtime::Clock::Monotonic);
        runtime.block_on(async { spawn(async { 5 }).await.unwrap() }).unwrap()
    });
    assert_eq!(moved.join().unwrap(), 5);
}

#[test]
fn a_waker_that_outlives_the_runtime_does_nothing() {
    let kept = Rc::new(RefCell::new(None));
    {
        let (runtime, _script) = simulated();
        let kept = Rc::clone(&kept);
        drop(runtime.spawn(poll_fn(move |context| {
            *kept.borrow_mut() = Some(context.waker().clone());
            Poll::<()>::Pending
        })));
        runtime.run_tasks(1);
    }
    let waker = kept.borrow_mut().take().unwrap();
    waker.wake_by_ref();
    thread::spawn(move || waker.wake()).join().unwrap();
    assert_eq!(Rc::strong_count(&kept), 1);
}

#[test]
#[should_panic = "no aioxide runtime runs on this thread"]
fn spawning_outside_of_a_runtime_says_what_to_do() {
    drop(spawn(async {}));
}

#[test]
#[should_panic = "`block_on` inside of a future of the same runtime"]
fn blocking_on_a_running_runtime_is_refused() {
    let (runtime, _script) = simulated();
    runtime.block_on(async { runtime.block_on(async {}) }).unwrap().unwrap();
}

#[test]
fn entered_runtimes_nest() {
    let (outer, _outer_script) = simulated();
    let (inner, _inner_script) = simulated();
    let _outer_guard = outer.enter();
    {
        let _inner_guard = inner.enter();
        drop(spawn(async {}));
    }
    drop(spawn(async {}));
    assert_eq!((outer.run_tasks(9), inner.run_tasks(9)), (1, 1));
    outer.collect(Deadline(0), &mut Vec::new());
    assert_eq!((outer.statistics().tasks, inner.statistics().tasks), (0, 0));
}
