//! Connecting.

use std::net::TcpStream;
use std::os::fd::{AsRawFd, OwnedFd};

use aioxide_driver::{Op, Outcome};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};

use crate::harness::{errno, listener, on_every_backend};

fn socket(family: AddressFamily) -> OwnedFd {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    socket_with(family, SocketType::STREAM, flags, None).unwrap()
}

on_every_backend! {
    fn a_listening_peer_is_connected_to(mut harness: Harness) {
        let (listener, address) = listener();
        let socket = socket(AddressFamily::INET);
        harness.submit(1, Op::Connect { socket: socket.as_raw_fd(), address: Box::new(address.into()) });
        assert!(matches!(harness.finish(1), Outcome::Connected));
        assert_eq!(TcpStream::from(socket).peer_addr().unwrap(), address);
        drop(listener);
        harness.assert_idle();
    }

    fn a_closed_port_refuses(mut harness: Harness) {
        let (listener, address) = listener();
        drop(listener);
        let socket = socket(AddressFamily::INET);
        harness.submit(1, Op::Connect { socket: socket.as_raw_fd(), address: Box::new(address.into()) });
        assert_eq!(errno(harness.finish(1)), Errno::CONNREFUSED.raw_os_error());
        harness.assert_idle();
    }

    /// A full queue of a Unix listener is EAGAIN, and no connection comes of it.
    fn a_full_unix_listener_is_an_error_not_a_connection(mut harness: Harness) {
        let listener = socket(AddressFamily::UNIX);
        rustix::net::bind(&listener, &SocketAddrUnix::new_unnamed()).unwrap();
        let address = rustix::net::getsockname(&listener).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let first = socket(AddressFamily::UNIX);
        harness.submit(1, Op::Connect { socket: first.as_raw_fd(), address: Box::new(address.clone()) });
        assert!(matches!(harness.finish(1), Outcome::Connected));
        let second = socket(AddressFamily::UNIX);
        harness.submit(2, Op::Connect { socket: second.as_raw_fd(), address: Box::new(address) });
        assert_eq!(errno(harness.finish(2)), Errno::AGAIN.raw_os_error());
    }

    /// A peer that never answers: the queue of a listener that nobody accepts from is full.
    fn a_connect_in_progress_can_be_cancelled(mut harness: Harness) {
        let listener = socket(AddressFamily::INET);
        rustix::net::bind(&listener, &std::net::SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let address = rustix::net::getsockname(&listener).unwrap();
        let mut fillers = Vec::new();
        let pending = loop {
            let socket = socket(AddressFamily::INET);
            let op = Op::Connect { socket: socket.as_raw_fd(), address: Box::new(address.clone()) };
            let token = fillers.len() as u64;
            harness.submit(token, op);
            fillers.push(socket);
            // Loopback connects within the call or not at all while the queue is full.
            if harness.collect().is_empty() {
                break token;
            }
        };
        assert!(matches!(harness.cancel(pending), Outcome::Cancelled));
        harness.assert_silent(pending);
        harness.assert_idle();
    }
}
