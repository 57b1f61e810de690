//! Several datagrams with one system call.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "a test panics")]

use std::io::{self, ErrorKind, IoSlice};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;

use aioxide_driver::address::internet_address;
use aioxide_driver::{Datagrams, SocketAddrAny, sys};

/// Larger than the largest datagram that UDP has.
static TOO_LONG: [u8; 65508] = [0; 65508];

fn socket() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

fn receive(datagrams: &mut Datagrams, socket: &impl AsRawFd, limit: usize) -> io::Result<Vec<Vec<u8>>> {
    datagrams.receive(socket.as_raw_fd(), limit)?;
    Ok((0..datagrams.len()).map(|index| datagrams.get(index).0.to_vec()).collect())
}

#[test]
fn a_crowd_is_received_in_order_each_with_its_source() {
    let (near, near_address) = socket();
    let senders = [socket(), socket(), socket()];
    for number in 0..30_u8 {
        senders[usize::from(number) % 3].0.send_to(&vec![number; number.into()], near_address).unwrap();
    }
    let mut datagrams = Datagrams::default();
    let mut number = 0;
    while number < 30 {
        datagrams.receive(near.as_raw_fd(), 20).unwrap();
        assert!(!datagrams.is_empty() && datagrams.len() <= 20);
        for index in 0..datagrams.len() {
            let (bytes, source) = datagrams.get(index);
            assert_eq!(bytes, vec![number; number.into()]);
            assert_eq!(internet_address(source.unwrap()), Some(senders[usize::from(number) % 3].1));
            number += 1;
        }
    }
    for limit in [1, 20] {
        let nothing = receive(&mut datagrams, &near, limit).unwrap_err();
        assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
        assert!(datagrams.is_empty(), "what was received before is forgotten");
    }
}

#[test]
fn the_limit_is_heeded_and_never_above_the_capacity() {
    let (near, near_address) = socket();
    let (far, _) = socket();
    for _ in 0..100 {
        far.send_to(b"x", near_address).unwrap();
    }
    let mut datagrams = Datagrams::default();
    for (limit, expected) in [(0, 1), (1, 1), (2, 2), (1000, Datagrams::CAPACITY), (1000, 32)] {
        assert_eq!(receive(&mut datagrams, &near, limit).unwrap().len(), expected);
    }
}

#[test]
fn the_largest_datagrams_are_whole_among_others() {
    let (near, near_address) = socket();
    let (far, _) = socket();
    let largest = &TOO_LONG[1..];
    for bytes in [b"a", largest, b"", largest, b"b"] {
        far.send_to(bytes, near_address).unwrap();
    }
    let mut datagrams = Datagrams::default();
    assert_eq!(receive(&mut datagrams, &near, 10).unwrap(), [b"a", largest, b"", largest, b"b"]);
}

#[test]
fn a_single_unix_datagram_may_be_larger_and_have_no_source() {
    let (near, far) = UnixDatagram::pair().unwrap();
    let large = vec![7; 150_000];
    far.send(&large).unwrap();
    let mut datagrams = Datagrams::default();
    assert_eq!(receive(&mut datagrams, &near, 1).unwrap(), [large]);
    assert!(datagrams.get(0).1.is_none());
    far.send(b"x").unwrap();
    far.send(b"y").unwrap();
    assert_eq!(receive(&mut datagrams, &near, 10).unwrap(), [b"x", b"y"]);
    assert!(datagrams.get(0).1.is_none());
}

#[test]
fn a_refusal_is_an_error() {
    let (near, _) = socket();
    let (gone, gone_address) = socket();
    drop(gone);
    near.connect(gone_address).unwrap();
    let mut datagrams = Datagrams::default();
    for limit in [1, 10] {
        near.send(b"x").unwrap();
        let refused = receive(&mut datagrams, &near, limit).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    }
}

#[test]
fn datagrams_leave_together_each_to_its_destination() {
    let (near, near_address) = socket();
    let (first, first_address) = socket();
    let (second, second_address) = socket();
    let addresses: [SocketAddrAny; 2] = [first_address.into(), second_address.into()];
    let payloads: Vec<Vec<u8>> = (0..50_u8).map(|number| vec![number; number.into()]).collect();
    let messages: Vec<_> = payloads
        .iter()
        .enumerate()
        .map(|(index, payload)| (IoSlice::new(payload), &addresses[index % 2]))
        .collect();
    assert_eq!(sys::send_messages(near.as_raw_fd(), &messages).unwrap(), 50);
    let mut bytes = [0; 100];
    for (index, payload) in payloads.iter().enumerate() {
        let (length, source) = [&first, &second][index % 2].recv_from(&mut bytes).unwrap();
        assert_eq!((&bytes[..length], source), (payload.as_slice(), near_address));
    }
}

#[test]
fn a_datagram_that_cannot_be_sent_stops_those_behind_it_and_tells_when_it_is_first() {
    let (near, _) = socket();
    let (_far, far_address) = socket();
    let address = SocketAddrAny::from(far_address);
    let messages = [b"1".as_slice(), b"2", &TOO_LONG, b"3"].map(|payload| (IoSlice::new(payload), &address));
    assert_eq!(sys::send_messages(near.as_raw_fd(), &messages).unwrap(), 2);
    let error = sys::send_messages(near.as_raw_fd(), &messages[2..]).unwrap_err();
    assert!(error.to_string().contains("too long"), "{error}");
    assert_eq!(sys::send_messages(near.as_raw_fd(), &messages[3..]).unwrap(), 1);
}
