//! The other side of a measured client: accepts connections, answers each HTTP request, and closes what the client
//! closes.
//!
//! Every read is taken for requests if it contains the end of their headers; a client that only connects sends none.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::io::Errno;

use crate::failure::Failure;
use crate::http::BODY;

/// Announces its port as a line of JSON and serves until it is killed.
pub fn serve() -> Result<(), Failure> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    // The backlog of std is 128; listen(2) may be repeated to change it.
    rustix::net::listen(&listener, BACKLOG)?;
    listener.set_nonblocking(true)?;
    println!("{{\"port\": {}}}", listener.local_addr()?.port());
    let answer = [HEAD, BODY].concat();
    let queue = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&queue, &listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)?;
    let mut clients: HashMap<u64, TcpStream> = HashMap::new();
    let mut events = Vec::with_capacity(1024);
    let mut memory = vec![0; 64 * 1024];
    loop {
        match epoll::wait(&queue, spare_capacity(&mut events), None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in events.drain(..) {
            let name = event.data.u64();
            if name == LISTENER {
                accept(&listener, &queue, &mut clients)?;
            } else if let Some(stream) = clients.get_mut(&name)
                && !attend(stream, &mut memory, &answer)
            {
                clients.remove(&name);
            }
        }
    }
}

/// Accepts all who wait.
fn accept(
    listener: &TcpListener,
    queue: impl std::os::fd::AsFd,
    clients: &mut HashMap<u64, TcpStream>,
) -> io::Result<()> {
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(true)?;
                stream.set_nodelay(true)?;
                let name = stream.as_raw_fd() as u64;
                epoll::add(&queue, &stream, epoll::EventData::new_u64(name), epoll::EventFlags::IN)?;
                clients.insert(name, stream);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Answers one read; false when the connection is over. Requests and answers are small: a client that leaves no room
/// for an answer, or sends half a request, is none that is measured here.
fn attend(stream: &mut TcpStream, memory: &mut [u8], answer: &[u8]) -> bool {
    match stream.read(memory) {
        Ok(0) => false,
        Ok(count) => {
            let requests = memory[..count].windows(4).filter(|window| *window == b"\r\n\r\n").count();
            (0..requests).all(|_| stream.write_all(answer).is_ok())
        }
        Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
    }
}

/// Not the name of any descriptor.
const LISTENER: u64 = u64::MAX;
const BACKLOG: i32 = 1024;
const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\n";
