//! Accepting connections.

use std::net::TcpStream;

use aioxide_driver::{Op, Outcome, Token};

use crate::harness::{accepted, listener, number, on_every_backend};

on_every_backend! {
    /// Clause 2: one op, many connections, one final completion.
    fn one_op_accepts_connection_after_connection(mut harness: Harness) {
        let (listener, address) = listener();
        harness.start(1, Op::Accept { listener: number(&listener) });
        for _ in 0..5 {
            let peer = TcpStream::connect(address).unwrap();
            let completion = harness.next(1);
            assert!(completion.more);
            let socket = TcpStream::from(accepted(completion.outcome));
            assert_eq!(socket.peer_addr().unwrap(), peer.local_addr().unwrap());
        }
        assert!(matches!(harness.cancel(1), Outcome::Cancelled));
        harness.assert_silent(1);
        harness.assert_idle();
    }

    fn accepted_sockets_do_not_block_and_close_on_exec(mut harness: Harness) {
        let (listener, address) = listener();
        harness.start(1, Op::Accept { listener: number(&listener) });
        let _peer = TcpStream::connect(address).unwrap();
        let socket = accepted(harness.next(1).outcome);
        assert!(rustix::fs::fcntl_getfl(&socket).unwrap().contains(rustix::fs::OFlags::NONBLOCK));
        assert!(rustix::io::fcntl_getfd(&socket).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        harness.cancel(1);
    }

    /// More connections than one wait accepts, all there before the op.
    fn a_full_queue_of_connections_is_accepted_to_the_last(mut harness: Harness) {
        let (listener, address) = listener();
        let peers: Vec<_> = (0..100).map(|_| TcpStream::connect(address).unwrap()).collect();
        harness.start(1, Op::Accept { listener: number(&listener) });
        let mut seen: Vec<_> = (0..peers.len())
            .map(|_| TcpStream::from(accepted(harness.next(1).outcome)).peer_addr().unwrap())
            .collect();
        let mut expected: Vec<_> = peers.iter().map(|peer| peer.local_addr().unwrap()).collect();
        seen.sort();
        expected.sort();
        assert_eq!(seen, expected);
        harness.cancel(1);
        harness.assert_idle();
    }

    /// Clause 8, seen from outside: after `cancel` the port is free as soon as the listener is closed.
    fn a_cancelled_listener_frees_its_port_when_closed(mut harness: Harness) {
        let (listener, address) = listener();
        harness.start(1, Op::Accept { listener: number(&listener) });
        harness.collect();
        harness.driver.cancel(Token(1));
        drop(listener);
        std::net::TcpListener::bind(address).unwrap();
        assert!(matches!(harness.finish(1), Outcome::Cancelled));
    }

    /// Dropping a completion closes what it carries.
    fn a_dropped_connection_is_closed(mut harness: Harness) {
        let (listener, address) = listener();
        harness.start(1, Op::Accept { listener: number(&listener) });
        let mut peer = TcpStream::connect(address).unwrap();
        drop(harness.next(1));
        let end = std::io::Read::read(&mut peer, &mut [0]).unwrap();
        assert_eq!(end, 0);
        harness.cancel(1);
    }
}
