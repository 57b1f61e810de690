//! The load generator against servers that behave, and servers that do not. TLS is tested with the benchmarks.
//!
//! Each test runs the real binary against a server of plain threads on a free port.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixListener;
use std::process::{Command, Output, Stdio};
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

/// Answers each request with `body`, as a web server that keeps connections.
fn answer_requests(mut stream: TcpStream, body: &str) {
    let mut memory = [0; 4096];
    while let Ok(1..) = stream.read(&mut memory) {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

#[test]
fn pages_are_asked_for_and_checked() {
    let words = ["--transport", "http", "--seconds", "0.1", "--connections", "4"];
    let output = load(serve(|stream| answer_requests(stream, "Hello, world!")), &words);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(field(&output, "messages") >= 4.0);
    assert_refused(&load(serve(|stream| answer_requests(stream, "Bye")), &words), "a strange body");
}

#[test]
fn visits_count_when_the_server_has_ended_them() {
    let address = serve(|mut stream| drop(stream.read(&mut [0])));
    let output = load(address, &["--transport", "visits", "--seconds", "0", "--connections", "5"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!((field(&output, "messages") - 5.0).abs() < f64::EPSILON);
}

#[test]
fn memory_that_connections_cost_is_seen() {
    // Each connection makes the server, which is this process, hold another 256 KiB.
    let address = serve(|mut stream| {
        let mut memory = vec![1; 256 * 1024];
        while let Ok(count @ 1..) = stream.read(&mut memory) {
            if stream.write_all(&memory[..count]).is_err() {
                return;
            }
        }
    });
    let pid = std::process::id().to_string();
    let output = load(address, &["--job", "memory", "--pid", &pid, "--connections", "64"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let grown = field(&output, "resident_after") - field(&output, "resident_before");
    assert!(grown > 8.0 * 1024.0 * 1024.0, "{grown}");
}

#[test]
fn a_unix_socket_is_a_stream_too() {
    let path = std::env::temp_dir().join(format!("load-generator-{}", std::process::id()));
    let listener = UnixListener::bind(&path).expect("a path of our own");
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut memory = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut memory) {
            if stream.write_all(&memory[..count]).is_err() {
                return;
            }
        }
    });
    let output = Command::new(env!("CARGO_BIN_EXE_load-generator"))
        .args(["--warm-up", "0", "--seconds", "0", "--path"])
        .arg(&path)
        .output()
        .expect("the binary runs");
    drop(std::fs::remove_file(&path));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!((field(&output, "messages") - 1.0).abs() < f64::EPSILON);
}

#[test]
fn the_peer_of_clients_answers_requests_and_ends_with_them() {
    let mut peer = Command::new(env!("CARGO_BIN_EXE_load-generator"))
        .args(["--job", "peer"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut line = String::new();
    let mut output = BufReader::new(peer.stdout.take().expect("its output is ours"));
    output.read_line(&mut line).expect("it announces its port");
    let port: u16 = line.trim_matches(|letter: char| !letter.is_ascii_digit()).parse().expect("a port");
    let words = ["--transport", "http", "--seconds", "0", "--connections", "2"];
    let loaded = load(SocketAddr::from(([127, 0, 0, 1], port)), &words);
    let mut visitor = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    visitor.shutdown(Shutdown::Write).expect("it is connected");
    let ended = visitor.read(&mut [0]);
    peer.kill().expect("it still runs");
    peer.wait().expect("it has ended");
    assert!(loaded.status.success(), "{}", String::from_utf8_lossy(&loaded.stderr));
    assert!(ended.is_ok_and(|count| count == 0));
}
