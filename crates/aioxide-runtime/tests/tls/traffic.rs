//! Bytes in both directions, and how they end.

use std::future::{Future, poll_fn};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::pin::pin;
use std::rc::Rc;
use std::sync::mpsc;
use std::task::Poll;
use std::time::Duration;

use aioxide_runtime::net::UnixStream;
use aioxide_runtime::{spawn, timeout};
use rustls::ServerConnection;

use crate::server::{Server, TLS13, Terms, echo, goodbye};
use crate::support::on_every_driver;
use crate::{connect, trusting};

fn message(length: u32) -> Vec<u8> {
    (0..length).map(|number| (number % 251) as u8).collect()
}

#[test]
fn one_task_reads_and_writes_at_the_same_time() {
    // More than fits into the sockets' buffers: the echo must be read while the rest is written.
    let message = message(10_000_000);
    on_every_driver(|runtime| {
        let server = Server::start(Terms::default(), echo);
        let echoed = runtime.block_on(async {
            let stream = connect(trusting(), &server, "localhost").await?;
            let mut writing = pin!(async {
                stream.write_all(&message).await?;
                stream.shutdown().await
            });
            let mut echoed = Vec::new();
            {
                let mut reading = pin!(stream.read_to_end(&mut echoed));
                let mut is_written = false;
                poll_fn(|context| {
                    if !is_written && let Poll::Ready(result) = writing.as_mut().poll(context) {
                        result?;
                        is_written = true;
                    }
                    reading.as_mut().poll(context)
                })
                .await?;
            }
            io::Result::Ok(echoed)
        });
        assert!(echoed.unwrap().unwrap() == message, "the echo differs");
        server.end(runtime).unwrap();
    });
}

#[test]
fn two_tasks_share_a_stream() {
    let message: Rc<[u8]> = message(1_000_000).into();
    on_every_driver(|runtime| {
        let server = Server::start(Terms::default(), echo);
        let echoed = runtime.block_on(async {
            let stream = Rc::new(connect(trusting(), &server, "localhost").await?);
            let writer = spawn({
                let (stream, message) = (Rc::clone(&stream), Rc::clone(&message));
                async move {
                    stream.write_all(&message).await?;
                    stream.shutdown().await
                }
            });
            let mut echoed = Vec::new();
            stream.read_to_end(&mut echoed).await?;
            writer.await??;
            io::Result::Ok(echoed)
        });
        assert!(echoed.unwrap().unwrap() == *message, "the echo differs");
        server.end(runtime).unwrap();
    });
}

#[test]
fn unix_sockets_carry_it_too() {
    on_every_driver(|runtime| {
        let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        let server = std::thread::spawn(move || {
            let config = crate::server::config(Terms::default());
            let connection = ServerConnection::new(config.into()).map_err(io::Error::other)?;
            let mut stream = rustls::StreamOwned::new(connection, far);
            let mut greeting = [0; 5];
            stream.read_exact(&mut greeting)?;
            stream.write_all(&greeting)?;
            // The client says goodbye when it drops its stream.
            stream.read(&mut greeting)
        });
        let answer = runtime.block_on(async {
            let stream = UnixStream::from_std(near)?;
            let stream = trusting().build()?.connect("localhost", stream).await?;
            stream.write_all(b"hello").await?;
            let mut answer = [0; 5];
            stream.read_exact(&mut answer).await?;
            io::Result::Ok(answer)
        });
        assert_eq!(&answer.unwrap().unwrap(), b"hello");
        assert_eq!(server.join().unwrap().unwrap(), 0);
    });
}

#[test]
fn an_end_that_was_announced_is_an_end() {
    on_every_driver(|runtime| {
        let server = Server::start(Terms::default(), |mut connection| {
            connection.write_all(b"last words")?;
            goodbye(connection)
        });
        let result = runtime.block_on(async {
            let stream = connect(trusting(), &server, "localhost").await?;
            let mut words = Vec::new();
            stream.read_to_end(&mut words).await?;
            assert_eq!(words, b"last words");
            // And stays one.
            stream.read(&mut [0; 8]).await
        });
        assert_eq!(result.unwrap().unwrap(), 0);
        server.end(runtime).unwrap();
    });
}

#[test]
fn a_connection_that_was_cut_is_an_error_after_what_had_come() {
    on_every_driver(|runtime| {
        let server = Server::start(Terms::default(), |mut connection| {
            connection.write_all(b"half a mess")?;
            connection.sock.shutdown(Shutdown::Write)?;
            // No reset before the client has read this.
            connection.read_to_end(&mut Vec::new()).map(drop)
        });
        runtime
            .block_on(async {
                let stream = connect(trusting(), &server, "localhost").await?;
                let mut words = [0; 11];
                stream.read_exact(&mut words).await?;
                assert_eq!(&words, b"half a mess");
                let error = stream.read(&mut words).await.unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
                // Our own direction is well.
                stream.shutdown().await
            })
            .unwrap()
            .unwrap();
        server.end(runtime).unwrap();
    });
}

#[test]
fn bytes_that_somebody_changed_are_an_error() {
    on_every_driver(|runtime| {
        let server = Server::start(Terms::default(), |mut connection| {
            connection.write_all(b"hello")?;
            // A record of application data, with a content that no key makes.
            connection.sock.write_all(&[23, 3, 3, 0, 20])?;
            connection.sock.write_all(&[7; 20])?;
            connection.read_to_end(&mut Vec::new()).map(drop)
        });
        runtime
            .block_on(async {
                let stream = connect(trusting(), &server, "localhost").await?;
                let mut words = [0; 5];
                stream.read_exact(&mut words).await?;
                let error = stream.read(&mut words).await.unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
                io::Result::Ok(())
            })
            .unwrap()
            .unwrap();
        // The alert.
        assert_eq!(server.end(runtime).unwrap_err().kind(), io::ErrorKind::InvalidData);
    });
}

#[test]
fn after_the_end_of_our_direction_nothing_can_be_written() {
    on_every_driver(|runtime| {
        let server = Server::start(Terms::default(), echo);
        let error = runtime
            .block_on(async {
                let stream = connect(trusting(), &server, "localhost").await?;
                stream.shutdown().await?;
                stream.shutdown().await?;
                let error = stream.write_all(b"too late").await.unwrap_err();
                assert_eq!(stream.read(&mut [0; 8]).await?, 0);
                io::Result::Ok(error)
            })
            .unwrap()
            .unwrap();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        server.end(runtime).unwrap();
    });
}

#[test]
fn a_read_that_was_dropped_has_lost_nothing() {
    on_every_driver(|runtime| {
        let (go, gone) = mpsc::channel::<()>();
        let server = Server::start(Terms::default(), move |mut connection| {
            connection.flush()?;
            gone.recv().expect_err("nothing is sent");
            connection.write_all(&message(100_000))?;
            goodbye(connection)
        });
        let received = runtime.block_on(async {
            let stream = connect(trusting(), &server, "localhost").await?;
            let limit = Duration::from_millis(5);
            assert!(timeout(limit, stream.read(&mut [0; 8])).await.is_err());
            drop(go);
            let mut received = Vec::new();
            let mut buffer = [0; 1000];
            loop {
                // Dropped over and over, sometimes before it was polled twice.
                let read = timeout(Duration::ZERO, stream.read(&mut buffer)).await;
                match read {
                    Ok(Ok(0)) => return io::Result::Ok(received),
                    Ok(count) => received.extend_from_slice(&buffer[..count?]),
                    Err(_) => aioxide_runtime::yield_now().await,
                }
            }
        });
        assert!(received.unwrap().unwrap() == message(100_000), "something is lost");
        server.end(runtime).unwrap();
    });
}

#[test]
fn a_write_that_was_dropped_leaves_whole_records() {
    on_every_driver(|runtime| {
        let (go, gone) = mpsc::channel::<()>();
        let (sender, receiver) = mpsc::channel();
        let server = Server::start(Terms::default(), move |mut connection| {
            connection.flush()?;
            gone.recv().expect_err("nothing is sent");
            let mut received = Vec::new();
            connection.read_to_end(&mut received)?;
            sender.send(received).map_err(io::Error::other)?;
            goodbye(connection)
        });
        let message = message(30_000_000);
        runtime
            .block_on(async {
                let stream = connect(trusting(), &server, "localhost").await?;
                // Nobody reads: at some point it waits.
                let limit = Duration::from_millis(50);
                assert!(timeout(limit, stream.write_all(&message)).await.is_err());
                drop(go);
                stream.flush().await?;
                stream.shutdown().await?;
                assert_eq!(stream.read(&mut [0; 8]).await?, 0);
                io::Result::Ok(())
            })
            .unwrap()
            .unwrap();
        server.end(runtime).unwrap();
        let received = receiver.recv().unwrap();
        assert!(!received.is_empty() && received == message[..received.len()], "not what was written");
    });
}

#[test]
fn a_new_key_is_answered_by_who_only_reads() {
    on_every_driver(|runtime| {
        let terms = Terms { versions: Some(TLS13), ..Terms::default() };
        let server = Server::start(terms, |mut connection| {
            // The handshake.
            connection.flush()?;
            for _ in 0..10 {
                connection.conn.refresh_traffic_keys().map_err(io::Error::other)?;
                connection.write_all(b"after a new key")?;
            }
            goodbye(connection)
        });
        let received = runtime.block_on(async {
            let stream = connect(trusting(), &server, "localhost").await?;
            let mut received = Vec::new();
            stream.read_to_end(&mut received).await?;
            io::Result::Ok(received)
        });
        server.end(runtime).unwrap();
        assert_eq!(received.unwrap().unwrap(), b"after a new key".repeat(10));
    });
}

#[test]
fn empty_reads_and_writes_do_not_wait() {
    on_every_driver(|runtime| {
        let server = Server::start(Terms::default(), echo);
        runtime
            .block_on(async {
                let stream = connect(trusting(), &server, "localhost").await?;
                assert_eq!(stream.read(&mut []).await?, 0);
                assert_eq!(stream.write(&[]).await?, 0);
                stream.shutdown().await?;
                assert_eq!(stream.read(&mut [0; 8]).await?, 0);
                io::Result::Ok(())
            })
            .unwrap()
            .unwrap();
        server.end(runtime).unwrap();
    });
}
