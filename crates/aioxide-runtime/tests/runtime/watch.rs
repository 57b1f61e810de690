//! The standing interest of a socket: asked for once, taken back when nobody reads.

use std::cell::Cell;
use std::future::Future;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use aioxide_driver::{Op, Outcome, Script, Token};
use aioxide_runtime::net::{TcpListener, TcpStream, UdpSocket, UnixStream};
use aioxide_runtime::{Deadline, Runtime, join_all, sleep, spawn, timeout, yield_now};

use crate::support::{on_every_driver, simulated, take_turn};

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

/// Has the driver wait once, which tells the kernel of every interest again.
async fn one_wait() {
    sleep(Duration::from_millis(1)).await;
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
            sleep(Duration::from_millis(50)).await;
            let waits = runtime.with_driver(|driver| driver.statistics().waits) - before;
            let mut buffer = [0; 16];
            assert_eq!(near.read(&mut buffer).await?, 6);
            io::Result::Ok(waits)
        });
        let waits = waits.unwrap().unwrap();
        assert!(waits < 10, "{waits} waits while nobody reads");
    });
}

#[test]
fn a_reader_is_not_starved_by_many_busy_tasks() {
    on_every_driver(|runtime| {
        let rounds = runtime.block_on(async {
            let (near, far) = UnixStream::pair().unwrap();
            let has_read = Rc::new(Cell::new(false));
            let busy: Vec<_> = (0..300)
                .map(|_| {
                    let has_read = Rc::clone(&has_read);
                    spawn(async move {
                        let mut rounds = 0;
                        while !has_read.get() && rounds < 3000 {
                            rounds += 1;
                            yield_now().await;
                        }
                        rounds
                    })
                })
                .collect();
            let flag = Rc::clone(&has_read);
            let reader = spawn(async move {
                let count = near.read(&mut [0; 16]).await;
                flag.set(true);
                count.unwrap()
            });
            for _ in 0..50 {
                yield_now().await;
            }
            far.write_all(b"abc").await.unwrap();
            let mut rounds = 0;
            for task in busy {
                rounds = rounds.max(task.await.unwrap());
            }
            reader.await.unwrap();
            rounds
        });
        let rounds = rounds.unwrap();
        assert!(rounds < 100, "the reader did not run for {rounds} rounds of the others");
    });
}

#[test]
fn a_dropped_listener_gives_its_port_back_at_once() {
    on_every_driver(|runtime| {
        let bound = runtime.block_on(async {
            let listener = TcpListener::bind(ANY_PORT).unwrap();
            let address = listener.local_address().unwrap();
            let client = spawn(async move {
                yield_now().await;
                TcpStream::connect(address).await
            });
            let accepted = listener.accept().await.unwrap();
            let client = client.await.unwrap().unwrap();
            one_wait().await;
            drop((accepted, client));
            drop(listener);
            TcpListener::bind(address).map(drop)
        });
        bound.unwrap().unwrap();
    });
}

#[test]
fn a_dropped_udp_socket_gives_its_port_back_at_once() {
    on_every_driver(|runtime| {
        let bound = runtime.block_on(async {
            let socket = UdpSocket::bind(ANY_PORT).unwrap();
            let address = socket.local_address().unwrap();
            let other = UdpSocket::bind(ANY_PORT).unwrap();
            let sender = spawn(async move {
                yield_now().await;
                other.send_to(b"x", address).await
            });
            socket.receive(&mut [0; 4]).await.unwrap();
            sender.await.unwrap().unwrap();
            one_wait().await;
            drop(socket);
            UdpSocket::bind(address).map(drop)
        });
        bound.unwrap().unwrap();
    });
}

#[test]
fn a_dropped_stream_is_closed_when_block_on_returns() {
    on_every_driver(|runtime| {
        let listener = std::net::TcpListener::bind(ANY_PORT).unwrap();
        let address = listener.local_addr().unwrap();
        let mut peer = runtime
            .block_on(async {
                let near = TcpStream::connect(address).await.unwrap();
                let (peer, _) = listener.accept().unwrap();
                let mut writer = peer.try_clone().unwrap();
                let task = spawn(async move {
                    yield_now().await;
                    io::Write::write_all(&mut writer, b"x").unwrap();
                });
                near.read(&mut [0; 4]).await.unwrap();
                task.await.unwrap();
                one_wait().await;
                drop(near);
                peer
            })
            .unwrap();
        peer.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let end = peer.read(&mut [0; 4]);
        assert!(matches!(end, Ok(0)), "no end of the stream: {end:?}");
    });
}

#[test]
fn a_socket_that_nobody_waited_for_survives_a_shutdown() {
    on_every_driver(|runtime| {
        let (near, far) = runtime
            .block_on(async {
                let (near, far) = UnixStream::pair().unwrap();
                assert!(timeout(Duration::from_millis(2), near.read(&mut [0; 4])).await.is_err());
                (near, far)
            })
            .unwrap();
        runtime.shutdown();
        let mut completions = Vec::new();
        runtime.with_driver(|driver| driver.wait(Some(Duration::ZERO), &mut completions)).unwrap();
        runtime.collect(Deadline(0), &mut completions);
        let result = runtime
            .block_on(async {
                let task = spawn(async move {
                    yield_now().await;
                    far.write_all(b"abcd").await.unwrap();
                    far
                });
                let result = near.read(&mut [0; 4]).await;
                drop(task.await);
                result
            })
            .unwrap();
        assert_eq!(result.unwrap(), 4);
    });
}
