//! The standing interest of a socket: asked for once, taken back when nobody reads.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use aioxide_driver::{Op, Outcome, Script, Token};
use aioxide_runtime::net::{TcpListener, TcpStream, UnixStream};
use aioxide_runtime::{Deadline, Runtime, join_all, spawn, timeout, yield_now};

use crate::support::{on_every_driver, simulated};

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// Polls a read once; what it brought, if it is done.
fn try_read(stream: &UnixStream, room: usize) -> Option<io::Result<Vec<u8>>> {
    let mut buffer = vec![0; room];
    let polled = pin!(stream.read(&mut buffer)).poll(&mut Context::from_waker(Waker::noop()));
    match polled {
        Poll::Ready(Ok(count)) => Some(Ok(buffer[..count].to_vec())),
        Poll::Ready(Err(error)) => Some(Err(error)),
        Poll::Pending => None,
    }
}

fn write(stream: &UnixStream, bytes: &[u8]) {
    let written = pin!(stream.write_all(bytes)).poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(written, Poll::Ready(Ok(()))));
}

/// The only operation in flight, which has to be the standing interest.
fn watch_of(script: &Script) -> Token {
    script.with_in_flight(|operations| {
        assert_eq!(operations.len(), 1);
        assert!(matches!(operations[0].1, Op::WaitReadable { repeat: true, .. }));
        operations[0].0
    })
}

fn report(runtime: &Runtime, script: &Script, token: Token) {
    script.complete(token, Outcome::Ready, true);
    take_turn(runtime);
}

fn take_turn(runtime: &Runtime) {
    let mut completions = Vec::new();
    runtime.with_driver(|driver| driver.wait(None, &mut completions)).unwrap();
    runtime.collect(Deadline(0), &mut completions);
    assert!(completions.is_empty());
}

#[test]
fn a_socket_is_watched_once_for_many_reads() {
    let (runtime, script) = simulated();
    let _guard = runtime.enter();
    let (near, far) = UnixStream::pair().unwrap();
    assert!(try_read(&near, 16).is_none());
    let token = watch_of(&script);
    for _ in 0..3 {
        write(&far, b"ping");
        // Not known yet: it was read to its end, so it is not even tried.
        assert!(try_read(&near, 16).is_none());
        report(&runtime, &script, token);
        assert_eq!(try_read(&near, 16).unwrap().unwrap(), b"ping");
        assert_eq!(watch_of(&script), token);
    }
    assert_eq!(script.cancelled(), []);
    drop(near);
    assert_eq!(script.cancelled(), [token]);
}

#[test]
fn a_read_that_leaves_something_is_followed_by_one_at_once() {
    let (runtime, script) = simulated();
    let _guard = runtime.enter();
    let (near, far) = UnixStream::pair().unwrap();
    assert!(try_read(&near, 4).is_none());
    write(&far, b"pingpong!");
    report(&runtime, &script, watch_of(&script));
    assert_eq!(try_read(&near, 4).unwrap().unwrap(), b"ping");
    assert_eq!(try_read(&near, 4).unwrap().unwrap(), b"pong");
    assert_eq!(try_read(&near, 4).unwrap().unwrap(), b"!");
    assert!(try_read(&near, 4).is_none());
}

#[test]
fn a_report_for_nothing_is_no_end() {
    let (runtime, script) = simulated();
    let _guard = runtime.enter();
    let (near, far) = UnixStream::pair().unwrap();
    assert!(try_read(&near, 4).is_none());
    let token = watch_of(&script);
    report(&runtime, &script, token);
    assert!(try_read(&near, 4).is_none());
    write(&far, b"late");
    report(&runtime, &script, token);
    assert_eq!(try_read(&near, 16).unwrap().unwrap(), b"late");
}

#[test]
fn nobody_reads_and_the_second_report_is_the_last() {
    let (runtime, script) = simulated();
    let _guard = runtime.enter();
    let (near, far) = UnixStream::pair().unwrap();
    assert!(try_read(&near, 16).is_none());
    let token = watch_of(&script);
    write(&far, b"unread");
    report(&runtime, &script, token);
    assert_eq!(script.cancelled(), []);
    report(&runtime, &script, token);
    assert_eq!(script.cancelled(), [token]);
    take_turn(&runtime);
    assert_eq!(runtime.statistics().operations, 0);
    // It is tried again, as at first.
    assert_eq!(try_read(&near, 16).unwrap().unwrap(), b"unread");
    assert!(try_read(&near, 16).is_none());
    assert_ne!(watch_of(&script), token);
}

#[test]
fn an_interest_that_fails_says_so_once() {
    let (runtime, script) = simulated();
    let _guard = runtime.enter();
    let (near, _far) = UnixStream::pair().unwrap();
    assert!(try_read(&near, 16).is_none());
    script.complete(watch_of(&script), Outcome::Failed(io::Error::from_raw_os_error(12)), false);
    take_turn(&runtime);
    // The socket is tried first, then the reader hears of it.
    assert_eq!(try_read(&near, 16).unwrap().unwrap_err().raw_os_error(), Some(12));
    assert!(try_read(&near, 16).is_none());
    assert_eq!(runtime.statistics().operations, 1);
}

#[test]
fn a_dropped_read_leaves_no_waker_behind() {
    let (runtime, script) = simulated();
    let _guard = runtime.enter();
    let (near, _far) = UnixStream::pair().unwrap();
    let near = Rc::new(near);
    let reader = runtime.spawn({
        let near = Rc::clone(&near);
        async move { timeout(Duration::ZERO, near.read(&mut [0])).await.is_err() }
    });
    runtime.run_tasks(1);
    runtime.collect(Deadline(1), &mut Vec::new());
    runtime.run_tasks(1);
    assert!(reader.is_finished());
    report(&runtime, &script, watch_of(&script));
    assert!(!runtime.has_ready());
}

#[test]
fn the_end_is_told_as_often_as_it_is_asked_for() {
    on_every_driver(|runtime| {
        let ends = runtime.block_on(async {
            let (near, far) = UnixStream::pair()?;
            let reader = spawn(async move {
                let mut buffer = [0; 16];
                let first = near.read(&mut buffer).await?;
                // Nothing is left, and there is no room either: it does not wait.
                let none = near.read(&mut []).await?;
                let last = near.read(&mut buffer).await?;
                let again = near.read(&mut buffer).await?;
                io::Result::Ok([first, none, last, again])
            });
            yield_now().await;
            far.write_all(b"abc").await?;
            yield_now().await;
            drop(far);
            reader.await?
        });
        assert_eq!(ends.unwrap().unwrap(), [3, 0, 0, 0]);
    });
}

#[test]
fn every_task_that_accepts_gets_a_connection() {
    on_every_driver(|runtime| {
        let accepted = runtime.block_on(async {
            let listener = Rc::new(TcpListener::bind(ANY_PORT)?);
            let address = listener.local_address()?;
            let servers: Vec<_> = (0..4)
                .map(|_| {
                    let listener = Rc::clone(&listener);
                    spawn(async move { listener.accept().await.map(drop) })
                })
                .collect();
            yield_now().await;
            let clients = join_all((0..4).map(|_| TcpStream::connect(address))).await;
            for (client, server) in clients.into_iter().zip(servers) {
                client?;
                timeout(Duration::from_secs(5), server).await???;
            }
            io::Result::Ok(())
        });
        accepted.unwrap().unwrap();
    });
}

#[test]
fn a_backlog_that_nobody_reads_costs_no_turns() {
    on_every_driver(|runtime| {
        let waits = runtime.block_on(async {
            let (near, far) = UnixStream::pair()?;
            let unheard = timeout(Duration::ZERO, near.read(&mut [0; 16])).await;
            assert!(unheard.is_err());
            far.write_all(b"unread").await?;
            let before = runtime.with_driver(|driver| driver.statistics().waits);
            aioxide_runtime::sleep(Duration::from_millis(50)).await;
            let waits = runtime.with_driver(|driver| driver.statistics().waits) - before;
            let mut buffer = [0; 16];
            assert_eq!(near.read(&mut buffer).await?, 6);
            io::Result::Ok(waits)
        });
        let waits = waits.unwrap().unwrap();
        assert!(waits < 10, "{waits} waits while nobody reads");
    });
}
