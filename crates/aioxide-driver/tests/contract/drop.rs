//! Dropping the driver with operations in flight.

use std::io::{Read, Write};

use aioxide_driver::{Op, Outcome, Submitted, Token};

use crate::harness::{listener, number, on_every_backend, tcp_pair};

on_every_backend! {
    /// Clause 6: bytes that come after the drop stay in the socket, none lands in freed memory.
    fn bytes_that_come_after_the_drop_stay_in_the_socket(mut harness: Harness) {
        let (mut ours, mut peer) = tcp_pair();
        harness.start(1, Op::Receive { socket: number(&ours), buffer: vec![0; 1 << 16] });
        harness.start(2, Op::WaitReadable { descriptor: number(&ours), repeat: true });
        harness.collect();
        drop(harness);
        peer.write_all(b"after").unwrap();
        ours.set_nonblocking(false).unwrap();
        let mut received = [0; 5];
        ours.read_exact(&mut received).unwrap();
        assert_eq!(&received, b"after");
    }

    /// The kernel has let go of descriptors too: the port can be listened on again.
    fn a_listeners_port_is_free_after_the_drop(mut harness: Harness) {
        let (listener, address) = listener();
        harness.start(1, Op::Accept { listener: number(&listener) });
        harness.collect();
        drop(harness);
        drop(listener);
        std::net::TcpListener::bind(address).unwrap();
    }

    fn a_buffer_outlives_its_driver(mut harness: Harness) {
        let (ours, mut peer) = tcp_pair();
        harness.start(1, Op::ReceiveRepeatedly { socket: number(&ours) });
        peer.write_all(b"kept").unwrap();
        let completion = harness.next(1);
        drop(harness);
        match completion.outcome {
            Outcome::Received(buffer) => assert_eq!(&*buffer, b"kept"),
            other => panic!("{other:?}"),
        }
    }

    fn completions_nobody_collected_are_dropped(mut harness: Harness) {
        let (ours, mut peer) = tcp_pair();
        let (listener, address) = listener();
        harness.start(1, Op::ReceiveRepeatedly { socket: number(&ours) });
        harness.start(2, Op::Accept { listener: number(&listener) });
        harness.collect();
        peer.write_all(b"x").unwrap();
        let mut connected = std::net::TcpStream::connect(address).unwrap();
        drop(harness);
        drop(listener);
        // Accepted and dropped, or never accepted: either way the connection ends.
        let end = connected.read(&mut [0]);
        assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    }

    fn a_driver_that_never_waited_can_be_dropped(mut harness: Harness) {
        let (ours, _peer) = tcp_pair();
        let op = Op::Receive { socket: number(&ours), buffer: vec![0; 100] };
        assert!(matches!(harness.driver.submit(op, Token(1)), Submitted::Pending));
        drop(harness);
    }
}
