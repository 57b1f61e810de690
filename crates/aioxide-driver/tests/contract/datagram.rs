//! Datagrams and their addresses.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use aioxide_driver::{Op, Outcome};

use crate::harness::{number, on_every_backend};

fn socket() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_nonblocking(true).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

fn expect_message(outcome: Outcome, bytes: &[u8], from: SocketAddr) {
    match outcome {
        Outcome::ReceivedMessage { buffer, length, source } => {
            assert_eq!(&buffer[..length], bytes);
            assert_eq!(SocketAddr::try_from(*source.unwrap()).unwrap(), from);
        }
        other => panic!("{other:?}"),
    }
}

on_every_backend! {
    fn a_datagram_arrives_with_its_source(mut harness: Harness) {
        let (near, near_address) = socket();
        let (far, far_address) = socket();
        harness.start(1, Op::ReceiveMessage { socket: number(&near), buffer: vec![0; 100] });
        harness.collect();
        far.send_to(b"hello", near_address).unwrap();
        expect_message(harness.finish(1), b"hello", far_address);
        harness.assert_idle();
    }

    fn an_empty_datagram_is_a_datagram(mut harness: Harness) {
        let (near, near_address) = socket();
        let (far, far_address) = socket();
        far.send_to(b"", near_address).unwrap();
        harness.submit(1, Op::ReceiveMessage { socket: number(&near), buffer: vec![0; 100] });
        expect_message(harness.finish(1), b"", far_address);
    }

    fn a_datagram_is_sent_to_an_address_or_to_the_peer(mut harness: Harness) {
        let (near, near_address) = socket();
        let (far, far_address) = socket();
        let op = |address| Op::SendMessage { socket: number(&near), buffer: b"abc".to_vec(), address };
        harness.submit(1, op(Some(Box::new(far_address.into()))));
        assert!(matches!(harness.finish(1), Outcome::Sent { length: 3, .. }));
        near.connect(far_address).unwrap();
        harness.submit(2, op(None));
        assert!(matches!(harness.finish(2), Outcome::Sent { length: 3, .. }));
        far.set_nonblocking(false).unwrap();
        for _ in 0..2 {
            let mut bytes = [0; 10];
            assert_eq!(far.recv_from(&mut bytes).unwrap(), (3, near_address));
        }
        harness.assert_idle();
    }
}
