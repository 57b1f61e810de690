//! The load generator against servers that behave, and servers that do not.
//!
//! Each test runs the real binary against a server of plain threads on a free port.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Output};
use std::thread;

/// Serves every connection with `answer` on a thread of its own, for as long as the test runs.
fn serve(answer: fn(TcpStream)) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("the listener has an address");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer(stream));
        }
    });
    address
}

/// Copies what arrives back through `change`, until the peer leaves.
fn echo(mut stream: TcpStream, change: fn(&mut [u8])) {
    let mut memory = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = stream.read(&mut memory) {
        change(&mut memory[..count]);
        if stream.write_all(&memory[..count]).is_err() {
            return;
        }
    }
}

fn load(address: SocketAddr, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_load-generator"))
        .args(["--address", &address.to_string(), "--warm-up", "0"])
        .args(arguments)
        .output()
        .expect("the binary runs")
}

/// The number behind `name` in the line of JSON.
fn field(output: &Output, name: &str) -> f64 {
    let line = String::from_utf8_lossy(&output.stdout);
    let (_, rest) = line.split_once(&format!("\"{name}\": ")).expect(name);
    let end = rest.find([',', '}']).expect("a number ends");
    rest[..end].parse().expect("a number")
}

/// Fails unless the run failed with these words.
fn assert_refused(output: &Output, words: &str) {
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(output.stdout.is_empty());
    assert!(complaint.contains(words), "{complaint}");
}

#[test]
fn an_honest_echo_is_measured() {
    let address = serve(|stream| echo(stream, |_| ()));
    let pid = std::process::id().to_string();
    let output = load(address, &["--seconds", "0.1", "--connections", "8", "--pid", &pid]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(field(&output, "messages") >= 8.0);
    assert!(field(&output, "seconds") >= 0.1);
    assert!(field(&output, "latency_p50_us") <= field(&output, "latency_p99_us"));
    assert!(field(&output, "server_cpu_seconds") > 0.0);
}

#[test]
fn without_time_every_connection_still_gets_its_messages_through() {
    let address = serve(|stream| echo(stream, |_| ()));
    let output = load(address, &["--seconds", "0", "--connections", "3", "--pipelined", "5"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!((field(&output, "messages") - 15.0).abs() < f64::EPSILON);
}

#[test]
fn messages_larger_than_every_buffer_come_back_whole() {
    let address = serve(|stream| echo(stream, |_| ()));
    let output = load(address, &["--seconds", "0", "--message-bytes", "5000001", "--pipelined", "2"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!((field(&output, "messages") - 2.0).abs() < f64::EPSILON);
}

#[test]
fn one_wrong_byte_is_found_and_named() {
    let address = serve(|stream| {
        echo(stream, |chunk| {
            if let Some(byte) = chunk.get_mut(700) {
                *byte = !*byte;
            }
        });
    });
    assert_refused(&load(address, &["--seconds", "0.1"]), "differs from what was sent at byte 700");
}

#[test]
fn a_byte_too_many_is_found() {
    let address = serve(|mut stream| {
        let mut memory = [0; 65];
        if stream.read_exact(&mut memory[..64]).is_ok() {
            // The peer may be gone already; what matters is what it says.
            drop(stream.write_all(&memory));
        }
    });
    assert_refused(&load(address, &["--seconds", "0", "--message-bytes", "64"]), "at byte 64");
}

#[test]
fn a_server_that_closes_early_is_a_failure() {
    let address = serve(|mut stream| {
        let mut memory = [0; 1024];
        if stream.read_exact(&mut memory).is_ok() {
            drop(stream.write_all(&memory[..1000]));
        }
    });
    assert_refused(&load(address, &["--seconds", "0"]), "with 24 bytes still to come");
}

#[test]
fn a_server_that_never_answers_is_a_failure() {
    let address = serve(|mut stream| drop(std::io::copy(&mut stream, &mut std::io::sink())));
    assert_refused(&load(address, &["--seconds", "0", "--connections", "2"]), "with 2 messages in flight");
}

/// Answers datagrams, `copies` times each, for as long as the test runs.
fn serve_datagrams(copies: usize) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let address = socket.local_addr().expect("the socket has an address");
    thread::spawn(move || {
        let mut memory = vec![0; 64 * 1024];
        while let Ok((count, peer)) = socket.recv_from(&mut memory) {
            for _ in 0..copies {
                // The peer may be gone already; what matters is what it says.
                drop(socket.send_to(&memory[..count], peer));
            }
        }
    });
    address
}

#[test]
fn datagrams_are_measured_too() {
    let output = load(
        serve_datagrams(1),
        &["--transport", "datagrams", "--seconds", "0.1", "--connections", "8", "--message-bytes", "100"],
    );
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(field(&output, "messages") >= 8.0);
}

#[test]
fn a_datagram_that_is_lost_or_doubled_is_a_failure() {
    let words = ["--transport", "datagrams", "--seconds", "0.1"];
    assert_refused(&load(serve_datagrams(0), &words), "with 1 messages in flight");
    assert_refused(&load(serve_datagrams(2), &words), "differs from what was sent");
}

#[test]
fn a_port_nobody_listens_on_is_a_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("the listener has an address");
    drop(listener);
    assert_refused(&load(address, &[]), "refused");
}
