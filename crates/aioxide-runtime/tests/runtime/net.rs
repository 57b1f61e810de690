//! Real sockets on every driver.

use std::io;
use std::net::{Ipv6Addr, Shutdown, SocketAddr, SocketAddrV6};
use std::rc::Rc;
use std::time::Duration;

use aioxide_runtime::net::{
    TcpListener, TcpStream, UdpSocket, UnixListener, UnixStream, connect, connect_any, resolve,
};
use aioxide_runtime::{join_all, sleep, spawn, timeout, yield_now};

use crate::support::on_every_driver;

fn any_port() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

/// A port on which nobody listens: one that was just given back.
fn dead_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind(any_port()).expect("a port is free");
    listener.local_addr().expect("a bound socket has a name")
}

#[test]
fn a_large_message_is_echoed_byte_for_byte_while_both_directions_are_busy() {
    on_every_driver(|runtime| {
        let message: Rc<[u8]> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
        let echoed = runtime.block_on(async {
            let listener = TcpListener::bind(any_port())?;
            let address = listener.local_address()?;
            let server = spawn(async move {
                let (stream, _) = listener.accept().await?;
                let mut buffer = [0; 16 * 1024];
                loop {
                    match stream.read(&mut buffer).await? {
                        0 => return io::Result::Ok(()),
                        count => stream.write_all(&buffer[..count]).await?,
                    }
                }
            });
            let client = Rc::new(TcpStream::connect(address).await?);
            let writer = spawn({
                let (client, message) = (Rc::clone(&client), Rc::clone(&message));
                async move {
                    client.write_all(&message).await?;
                    client.shutdown(Shutdown::Write)
                }
            });
            let mut echoed = Vec::new();
            client.read_to_end(&mut echoed).await?;
            writer.await??;
            server.await??;
            io::Result::Ok(echoed)
        });
        assert!(echoed.unwrap().unwrap() == *message, "the echo differs");
    });
}

#[test]
fn many_connections_are_served_at_once() {
    on_every_driver(|runtime| {
        runtime
            .block_on(async {
                let listener = TcpListener::bind(any_port())?;
                let address = listener.local_address()?;
                let server = spawn(async move {
                    loop {
                        let (stream, peer) = listener.accept().await.unwrap();
                        assert_eq!(stream.peer_address().unwrap(), peer);
                        drop(spawn(async move {
                            let mut byte = [0];
                            stream.read_exact(&mut byte).await.unwrap();
                            stream.write_all(&[byte[0] + 1]).await.unwrap();
                        }));
                    }
                });
                let clients = (0..100_u8).map(|number| async move {
                    let stream = TcpStream::connect(address).await?;
                    yield_now().await;
                    stream.write_all(&[number]).await?;
                    let mut answer = Vec::new();
                    stream.read_to_end(&mut answer).await?;
                    io::Result::Ok(answer)
                });
                for (number, answer) in (0_u8..).zip(join_all(clients).await) {
                    assert_eq!(answer?, [number + 1]);
                }
                server.abort();
                assert!(server.await.unwrap_err().is_cancelled());
                io::Result::Ok(())
            })
            .unwrap()
            .unwrap();
    });
}

#[test]
fn a_read_that_timed_out_loses_nothing() {
    on_every_driver(|runtime| {
        let received = runtime.block_on(async {
            let (near, far) = UnixStream::pair()?;
            let mut buffer = [0; 16];
            for _ in 0..3 {
                let late = timeout(Duration::from_millis(1), near.read(&mut buffer)).await;
                assert!(late.is_err());
            }
            far.write_all(b"late").await?;
            let count = timeout(Duration::from_secs(5), near.read(&mut buffer)).await??;
            io::Result::Ok(buffer[..count].to_vec())
        });
        assert_eq!(received.unwrap().unwrap(), b"late");
    });
}

#[test]
fn an_accept_that_was_dropped_loses_no_connection() {
    on_every_driver(|runtime| {
        runtime
            .block_on(async {
                let listener = TcpListener::bind(any_port())?;
                assert!(timeout(Duration::from_millis(1), listener.accept()).await.is_err());
                let client = TcpStream::connect(listener.local_address()?).await?;
                let (_stream, peer) = listener.accept().await?;
                assert_eq!(peer, client.local_address()?);
                io::Result::Ok(())
            })
            .unwrap()
            .unwrap();
    });
}

#[test]
fn errors_keep_their_errno() {
    on_every_driver(|runtime| {
        runtime
            .block_on(async {
                let refused = TcpStream::connect(dead_address()).await.unwrap_err();
                assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
                assert!(refused.raw_os_error().is_some());

                let listener = TcpListener::bind(any_port())?;
                let used = TcpListener::bind(listener.local_address()?).unwrap_err();
                assert_eq!(used.kind(), io::ErrorKind::AddrInUse);

                // The peer goes away with data unread, so that its kernel resets the connection.
                let client = TcpStream::connect(listener.local_address()?).await?;
                let (server, _) = listener.accept().await?;
                server.write_all(b"unread").await?;
                let mut byte = [0];
                client.read_exact(&mut byte).await?;
                drop(client);
                let reset = loop {
                    if let Err(error) = server.write(&[0; 65536]).await {
                        break error;
                    }
                };
                let kinds = [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];
                assert!(kinds.contains(&reset.kind()), "{reset}");
                io::Result::Ok(())
            })
            .unwrap()
            .unwrap();
    });
}

#[test]
fn a_half_closed_stream_still_carries_the_other_direction() {
    on_every_driver(|runtime| {
        runtime
            .block_on(async {
                let (near, far) = UnixStream::pair()?;
                near.shutdown(Shutdown::Write)?;
                let mut received = Vec::new();
                assert_eq!(far.read_to_end(&mut received).await?, 0);
                far.write_all(b"still here").await?;
                drop(far);
                near.read_to_end(&mut received).await?;
                assert_eq!(received, b"still here");
                let ended = near.read_exact(&mut [0]).await.unwrap_err();
                assert_eq!(ended.kind(), io::ErrorKind::UnexpectedEof);
                io::Result::Ok(())
            })
            .unwrap()
            .unwrap();
    });
}

#[test]
fn unix_listeners_accept_at_their_path() {
    on_every_driver(|runtime| {
        let path = std::env::temp_dir().join(format!("aioxide-runtime-{}.sock", std::process::id()));
        let result = runtime.block_on(async {
            let listener = UnixListener::bind(&path)?;
            assert_eq!(listener.local_address()?.as_pathname(), Some(path.as_path()));
            let client = UnixStream::connect(&path)?;
            let server = listener.accept().await?;
            server.write_all(b"hello").await?;
            let mut answer = [0; 5];
            client.read_exact(&mut answer).await?;
            io::Result::Ok(answer)
        });
        std::fs::remove_file(&path).unwrap();
        assert_eq!(result.unwrap().unwrap(), *b"hello");
        let gone = {
            let _guard = runtime.enter();
            UnixStream::connect(&path).unwrap_err()
        };
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    });
}

#[test]
fn datagrams_keep_their_boundaries_and_their_source() {
    on_every_driver(|runtime| {
        runtime
            .block_on(async {
                let (near, far) = (UdpSocket::bind(any_port())?, UdpSocket::bind(any_port())?);
                let destination = far.local_address()?;
                let receiver = spawn(async move {
                    let mut buffer = [0; 16];
                    let (count, source) = far.receive_from(&mut buffer).await?;
                    assert_eq!(&buffer[..count], b"first");
                    far.connect(source)?;
                    assert_eq!(far.receive(&mut buffer).await?, 0);
                    far.send(b"answer").await?;
                    io::Result::Ok(source)
                });
                // The receiver waits before anything is sent.
                yield_now().await;
                near.send_to(b"first", destination).await?;
                near.send_to(b"", destination).await?;
                let mut buffer = [0; 16];
                let (count, source) = near.receive_from(&mut buffer).await?;
                assert_eq!((&buffer[..count], source), (&b"answer"[..], destination));
                assert_eq!(receiver.await??, near.local_address()?);
                io::Result::Ok(())
            })
            .unwrap()
            .unwrap();
    });
}

#[test]
fn literal_addresses_never_reach_a_thread_and_names_do() {
    on_every_driver(|runtime| {
        runtime
            .block_on(async {
                assert_eq!(resolve("127.0.0.1", 80).await?, [([127, 0, 0, 1], 80).into()]);
                assert_eq!(resolve("::1", 80).await?, [(Ipv6Addr::LOCALHOST, 80).into()]);
                let scoped = SocketAddrV6::new("fe80::1".parse().unwrap(), 80, 0, 2);
                assert_eq!(resolve("fe80::1%2", 80).await?, [scoped.into()]);
                assert_eq!(runtime.statistics().blocking_threads, 0);
                assert!(resolve("localhost", 80).await?.iter().all(|address| address.ip().is_loopback()));
                assert_eq!(runtime.statistics().blocking_threads, 1);
                assert!(resolve("nothing.invalid", 80).await.is_err());
                io::Result::Ok(())
            })
            .unwrap()
            .unwrap();
    });
}

#[test]
fn connecting_by_name_finds_the_address_that_answers() {
    on_every_driver(|runtime| {
        runtime
            .block_on(async {
                let listener = TcpListener::bind(any_port())?;
                let address = listener.local_address()?;
                let by_name = connect("localhost", address.port()).await?;
                assert_eq!(by_name.peer_address()?, address);

                let second = connect_any(&[dead_address(), address]).await?;
                assert_eq!(second.peer_address()?, address);

                let refused = connect_any(&[dead_address(), dead_address()]).await.unwrap_err();
                assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
                assert_eq!(connect_any(&[]).await.unwrap_err().kind(), io::ErrorKind::NotFound);
                io::Result::Ok(())
            })
            .unwrap()
            .unwrap();
    });
}

#[test]
fn a_storm_of_io_starves_neither_timers_nor_tasks() {
    on_every_driver(|runtime| {
        runtime
            .block_on(async {
                let pairs = (0..50).map(|_| UnixStream::pair()).collect::<io::Result<Vec<_>>>()?;
                let storm: Vec<_> = pairs
                    .into_iter()
                    .map(|(near, far)| {
                        spawn(async move {
                            loop {
                                near.write_all(b"x").await?;
                                far.read_exact(&mut [0]).await?;
                            }
                            #[expect(unreachable_code, reason = "it names the block's type")]
                            io::Result::Ok(())
                        })
                    })
                    .collect();
                sleep(Duration::from_millis(5)).await;
                assert_eq!(spawn(async { 1 }).await?, 1);
                storm.iter().for_each(aioxide_runtime::JoinHandle::abort);
                io::Result::Ok(())
            })
            .unwrap()
            .unwrap();
    });
}
