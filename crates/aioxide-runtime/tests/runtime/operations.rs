//! Operations and the futures that wait for them: dropped early, answered late, refused.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use aioxide_driver::{Op, Outcome, Submitted};
use aioxide_runtime::net::{TcpStream, UnixStream};
use aioxide_runtime::{Deadline, host_token, is_host_token, spawn, yield_now};

use crate::support::{on_every_driver, simulated, take_turn};

const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9);

#[test]
fn a_dropped_future_cancels_its_operation_and_the_slot_waits_for_the_last_completion() {
    let (runtime, script) = simulated();
    let _guard = runtime.enter();
    {
        let mut connect = pin!(TcpStream::connect(NOWHERE));
        assert!(connect.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert!(connect.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert_eq!(runtime.statistics().operations, 1);
        assert_eq!(script.cancelled(), []);
    }
    let token = script.with_in_flight(|operations| operations[0].0);
    assert!(!is_host_token(token));
    assert_eq!(script.cancelled(), [token]);
    assert_eq!(runtime.statistics().operations, 1);

    take_turn(&runtime);
    assert_eq!(runtime.statistics().operations, 0);
}

#[test]
fn a_token_is_not_used_again_while_its_operation_is_in_flight() {
    let (runtime, script) = simulated();
    let _guard = runtime.enter();
    for _ in 0..3 {
        let connect = pin!(TcpStream::connect(NOWHERE));
        assert!(connect.poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    let mut tokens =
        script.with_in_flight(|operations| operations.iter().map(|entry| entry.0.0).collect::<Vec<_>>());
    tokens.sort_unstable();
    tokens.dedup();
    assert_eq!(tokens.len(), 3);
}

#[test]
fn an_outcome_that_came_before_its_future_was_dropped_is_dropped_with_it() {
    let (runtime, script) = simulated();
    let _guard = runtime.enter();
    {
        let connect = pin!(TcpStream::connect(NOWHERE));
        assert!(connect.poll(&mut Context::from_waker(Waker::noop())).is_pending());
        let token = script.with_in_flight(|operations| operations[0].0);
        script.complete(token, Outcome::Connected, false);
        take_turn(&runtime);
        assert_eq!(runtime.statistics().operations, 1);
    }
    assert_eq!(runtime.statistics().operations, 0);
    assert_eq!(script.cancelled(), []);
}

#[test]
fn a_refused_connection_keeps_its_errno_answered_at_once_or_later() {
    let (runtime, script) = simulated();
    script.answer_next(Outcome::Failed(io::Error::from_raw_os_error(111)));
    let at_once = runtime.block_on(TcpStream::connect(NOWHERE)).unwrap().unwrap_err();
    assert_eq!(at_once.raw_os_error(), Some(111));

    let later = runtime.block_on(async {
        let task = spawn(TcpStream::connect(NOWHERE));
        yield_now().await;
        let token = script.with_in_flight(|operations| {
            assert!(matches!(operations[0].1, Op::Connect { .. }));
            operations[0].0
        });
        script.complete(token, Outcome::Failed(io::Error::from_raw_os_error(110)), false);
        task.await.unwrap()
    });
    assert_eq!(later.unwrap().unwrap_err().raw_os_error(), Some(110));
    assert_eq!(runtime.statistics().operations, 0);
}

#[test]
fn shutdown_cancels_the_operations_of_tasks_and_of_other_futures() {
    on_every_driver(|runtime| {
        let guard = runtime.enter();
        let (near, _far) = UnixStream::pair().unwrap();
        let (other, _other_far) = UnixStream::pair().unwrap();
        let task = runtime.spawn(async move { other.read(&mut [0]).await });
        runtime.run_tasks(1);
        let mut buffer = [0];
        let mut read = pin!(near.read(&mut buffer));
        assert!(read.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert_eq!(runtime.statistics().operations, 2);
        runtime.shutdown();
        assert!(task.is_finished());
        let error = runtime.block_on(read).unwrap().unwrap_err();
        assert_eq!(error.to_string(), "the operation was cancelled by its runtime's end");
        drop(guard);
    });
}

#[test]
fn a_socket_that_outlives_its_runtime_fails_and_closes() {
    let (runtime, _script) = simulated();
    let near = {
        let _guard = runtime.enter();
        UnixStream::pair().unwrap().0
    };
    drop(runtime);
    // The far end is closed, so this ends without waiting.
    let (mut buffer, mut other_buffer) = ([0], [0]);
    let read = pin!(near.read(&mut buffer));
    let outcome = read.poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(outcome, Poll::Ready(Ok(0))));

    let (runtime, _script) = simulated();
    let (near, _far) = {
        let _guard = runtime.enter();
        UnixStream::pair().unwrap()
    };
    drop(runtime);
    let read = pin!(near.read(&mut other_buffer));
    match read.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Err(error)) => assert_eq!(error.to_string(), "the runtime of this socket is gone"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_future_in_flight_may_outlive_its_runtime() {
    let (runtime, _script) = simulated();
    let near = {
        let _guard = runtime.enter();
        let (near, far) = UnixStream::pair().unwrap();
        std::mem::forget(far);
        near
    };
    let mut buffer = [0];
    let mut read = Box::pin(near.read(&mut buffer));
    assert!(read.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(runtime);
    assert!(matches!(read.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(Err(_))));
    drop(read);
}

#[test]
fn a_socket_that_never_blocks_lets_other_tasks_run() {
    on_every_driver(|runtime| {
        let others = runtime.block_on(async {
            let (near, _far) = UnixStream::pair()?;
            let mut writes = 0;
            // An empty write always succeeds at once.
            let other = spawn(async {});
            while !other.is_finished() {
                near.write(b"").await?;
                writes += 1;
            }
            io::Result::Ok(writes)
        });
        assert!(others.unwrap().unwrap() > 1);
    });
}

#[test]
fn polling_a_read_from_another_task_moves_its_waker() {
    on_every_driver(|runtime| {
        let result = runtime.block_on(async {
            let (near, far) = UnixStream::pair()?;
            let mut read = Box::pin(async move {
                let mut buffer = [0; 8];
                near.read(&mut buffer).await
            });
            let first = poll_fn(|context| Poll::Ready(read.as_mut().poll(context).is_pending())).await;
            assert!(first);
            let task = spawn(read);
            yield_now().await;
            far.write_all(b"abc").await?;
            task.await?
        });
        assert_eq!(result.unwrap().unwrap(), 3);
    });
}

#[test]
fn a_host_and_its_tasks_share_the_driver() {
    on_every_driver(|runtime| {
        let (near, far) = {
            let _guard = runtime.enter();
            UnixStream::pair().unwrap()
        };
        let reader = runtime.spawn(async move { near.read(&mut [0; 8]).await });
        let (host_near, host_far) = std::os::unix::net::UnixStream::pair().unwrap();
        let readable = Op::WaitReadable { descriptor: host_near.as_raw_fd(), repeat: false };
        let submitted = runtime.with_driver(|driver| driver.submit(readable, host_token(7)));
        assert!(matches!(submitted, Submitted::Pending));
        // The reader waits before anything is sent.
        runtime.run_tasks(1);
        assert_eq!(runtime.statistics().operations, 1);
        let writer = runtime.spawn(async move {
            far.write_all(b"for the task").await?;
            io::Write::write_all(&mut &host_far, b"for the host")
        });
        let mut completions = Vec::new();
        while completions.is_empty() || !reader.is_finished() || !writer.is_finished() {
            let timeout = runtime.has_ready().then_some(Duration::ZERO);
            runtime.with_driver(|driver| driver.wait(timeout, &mut completions)).unwrap();
            runtime.collect(Deadline(0), &mut completions);
            runtime.run_tasks(1);
        }
        assert_eq!(completions.len(), 1);
        assert_eq!(completions[0].token, host_token(7));
        assert!(matches!(completions[0].outcome, Outcome::Ready));
        assert_eq!(runtime.block_on(reader).unwrap().unwrap().unwrap(), 8);
    });
}
