//! Clause 7: one thread at a time, and not always the same.

use std::io::Write;
use std::net::TcpStream;
use std::thread;

use aioxide_driver::{Op, Outcome, Token};

use crate::harness::{Harness, accepted, listener, number, on_every_backend, pattern, tcp_pair};

/// Runs a step on a thread of its own, which has ended when this returns.
fn elsewhere<R: Send + 'static>(
    mut harness: Harness,
    step: impl FnOnce(&mut Harness) -> R + Send + 'static,
) -> (Harness, R) {
    thread::spawn(move || {
        let result = step(&mut harness);
        (harness, result)
    })
    .join()
    .unwrap()
}

on_every_backend! {
    fn opened_here_and_used_there(mut harness: Harness) {
        let (ours, mut peer) = tcp_pair();
        let socket = number(&ours);
        harness.start(1, Op::ReceiveRepeatedly { socket });
        peer.write_all(b"hello").unwrap();
        let (_, bytes) = elsewhere(harness, |harness| harness.receive_exactly(1, 5));
        assert_eq!(bytes, b"hello");
    }

    /// The wait that moves only collects: the new ring has yet to see everything.
    fn what_was_submitted_before_a_move_is_unsubmitted_after_it(mut harness: Harness) {
        let (ours, mut peer) = tcp_pair();
        let (other, _other_peer) = tcp_pair();
        let (socket, watched) = (number(&ours), number(&other));
        harness.start(1, Op::WaitReadable { descriptor: watched, repeat: true });
        harness.collect();
        let (_harness, ()) = elsewhere(harness, move |harness| {
            harness.submit(2, Op::Send { socket, buffer: b"hello".to_vec(), start: 0 });
            harness.turn();
            // As a host that stops now.
            if harness.driver.has_unsubmitted() {
                harness.turn();
            }
        });
        peer.set_read_timeout(Some(std::time::Duration::from_millis(500))).unwrap();
        let mut bytes = [0; 5];
        std::io::Read::read_exact(&mut peer, &mut bytes).unwrap();
        assert_eq!(&bytes, b"hello");
    }

    /// Every kind of op is in flight while the driver moves from one thread to the next, and each
    /// thread ends before the next one waits.
    fn ops_in_flight_survive_a_change_of_threads(harness: Harness) {
        let (stream, mut stream_peer) = tcp_pair();
        let (watched, mut watched_peer) = tcp_pair();
        let (full, full_peer) = tcp_pair();
        let (listener, address) = listener();
        let datagram = std::net::UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, 0)).unwrap();
        datagram.set_nonblocking(true).unwrap();
        let (stream_number, watched_number) = (number(&stream), number(&watched));
        let (full_number, listener_number) = (number(&full), number(&listener));
        let datagram_number = number(&datagram);
        let (harness, waiting) = elsewhere(harness, move |harness| {
            harness.start(1, Op::ReceiveRepeatedly { socket: stream_number });
            harness.start(2, Op::Accept { listener: listener_number });
            harness.start(3, Op::WaitReadable { descriptor: watched_number, repeat: true });
            harness.start(4, Op::ReceiveMessage { socket: datagram_number, buffer: vec![0; 10] });
            harness.start(5, Op::WaitReadable { descriptor: watched_number, repeat: false });
            assert!(harness.collect().is_empty());
            harness.driver.cancel(Token(5));
            let mut token = 100;
            loop {
                let buffer = vec![0; 1 << 20];
                harness.submit(token, Op::Send { socket: full_number, buffer, start: 0 });
                if harness.collect().iter().all(|completion| completion.token != Token(token)) {
                    break token;
                }
                token += 1;
            }
        });
        // Things happen while nobody waits.
        stream_peer.write_all(b"between threads").unwrap();
        let connected = TcpStream::connect(address).unwrap();
        let (harness, ()) = elsewhere(harness, |harness| {
            assert_eq!(harness.receive_exactly(1, 15), b"between threads");
            drop(accepted(harness.next(2).outcome));
        });
        watched_peer.write_all(b"x").unwrap();
        let sender = std::net::UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, 0)).unwrap();
        sender.send_to(b"dgram", datagram.local_addr().unwrap()).unwrap();
        drop(full_peer);
        let (mut harness, ()) = elsewhere(harness, move |harness| {
            assert!(harness.next(3).more);
            assert!(matches!(harness.finish(4), Outcome::ReceivedMessage { length: 5, .. }));
            assert!(matches!(harness.finish(waiting), Outcome::Failed(_)));
        });
        stream_peer.write_all(b"home").unwrap();
        assert_eq!(harness.receive_exactly(1, 4), b"home");
        for token in 1..4 {
            harness.cancel(token);
        }
        harness.assert_idle();
        drop((connected, watched, full, stream));
    }

    fn a_busy_stream_moves_between_threads_without_losing_a_byte(harness: Harness) {
        let (ours, mut peer) = tcp_pair();
        let socket = number(&ours);
        let bytes = pattern(1 << 20);
        let sent = bytes.clone();
        let sender = thread::spawn(move || {
            peer.write_all(&sent).unwrap();
            peer
        });
        let (mut harness, mut received) = elsewhere(harness, move |harness| {
            harness.start(1, Op::ReceiveRepeatedly { socket });
            harness.receive_some(1)
        });
        while received.len() < bytes.len() {
            let (back, more) = elsewhere(harness, |harness| harness.receive_some(1));
            harness = back;
            received.extend(more);
        }
        assert!(received == bytes);
        drop(sender.join().unwrap());
        assert!(matches!(harness.finish(1), Outcome::Received(end) if end.is_empty()));
        harness.assert_idle();
    }

    /// A wake is for the driver, whichever thread waits.
    fn a_wake_reaches_the_next_thread(harness: Harness) {
        let waker = harness.driver.waker();
        let (harness, ()) = elsewhere(harness, |harness| drop(harness.collect()));
        waker.wake();
        let (harness, ()) = elsewhere(harness, |harness| harness.driver.wait(None, &mut Vec::new()).unwrap());
        let other = thread::spawn(move || waker.wake());
        let (harness, ()) = elsewhere(harness, |harness| harness.driver.wait(None, &mut Vec::new()).unwrap());
        other.join().unwrap();
        drop(harness);
    }

    fn dropped_on_another_thread(harness: Harness) {
        let (ours, _peer) = tcp_pair();
        let socket = number(&ours);
        let (harness, ()) = elsewhere(harness, move |harness| {
            harness.start(1, Op::Receive { socket, buffer: vec![0; 100] });
            assert!(harness.collect().is_empty());
        });
        drop(harness);
    }
}
