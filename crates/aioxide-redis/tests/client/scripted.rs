//! Servers that say what a test wants: one function from command to reply, and a record of what was asked.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use aioxide_redis::config::Address;
use aioxide_redis::{Backoff, Config};
use aioxide_runtime::net::{TcpListener, TcpStream};
use aioxide_runtime::{run, spawn, timeout};

/// Runs a test that must not hang.
pub fn test<F: Future<Output = ()> + 'static>(body: F) {
    let limited = async { timeout(Duration::from_secs(20), body).await };
    run(limited).expect("a driver").expect("the test hangs");
}

/// Few and short waits.
pub fn config() -> Config {
    Config {
        library: None,
        backoff: Backoff { base: Duration::from_millis(1), cap: Duration::from_millis(2), retries: 5 },
        ..Config::default()
    }
}

/// What a server replies to a command, its words joined; `None` to hang up.
type Script = Rc<RefCell<Box<dyn FnMut(&str) -> Option<String>>>>;

/// A server on a port of its own, for as long as the test runs.
pub struct Scripted {
    pub port: u16,
    asked: Rc<RefCell<Vec<String>>>,
    script: Script,
}

impl Scripted {
    /// A server that answers as `script` says; it answers greetings by itself.
    pub fn new(script: impl FnMut(&str) -> Option<String> + 'static) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let listener = TcpListener::from_std(listener).expect("a listener");
        let asked = Rc::new(RefCell::new(Vec::new()));
        let script: Script = Rc::new(RefCell::new(Box::new(script)));
        let (all_asked, current_script) = (Rc::clone(&asked), Rc::clone(&script));
        drop(spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                drop(spawn(serve(stream, Rc::clone(&asked), Rc::clone(&script))));
            }
        }));
        Self { port, asked: all_asked, script: current_script }
    }

    /// Answers otherwise from now on.
    pub fn now(&self, script: impl FnMut(&str) -> Option<String> + 'static) {
        *self.script.borrow_mut() = Box::new(script);
    }

    /// What was asked since the last look.
    pub fn take_asked(&self) -> Vec<String> {
        self.asked.take()
    }

    pub fn address(&self) -> Address {
        Address::Tcp { host: "127.0.0.1".into(), port: self.port }
    }
}

async fn serve(stream: TcpStream, asked: Rc<RefCell<Vec<String>>>, script: Script) {
    let mut received = Vec::new();
    loop {
        while let Some((words, length)) = parse(&received) {
            received.drain(..length);
            let command = words.join(" ");
            let reply = if command.starts_with("HELLO") {
                Some("%1\r\n+proto\r\n:3\r\n".into())
            } else {
                asked.borrow_mut().push(command.clone());
                (script.borrow_mut())(&command)
            };
            let Some(reply) = reply else { return };
            if stream.write_all(reply.as_bytes()).await.is_err() {
                return;
            }
        }
        let mut piece = [0; 4096];
        match stream.read(&mut piece).await {
            Ok(0) | Err(_) => return,
            Ok(count) => received.extend_from_slice(&piece[..count]),
        }
    }
}

/// A whole command at the front of `bytes`, and its length.
pub fn parse(bytes: &[u8]) -> Option<(Vec<String>, usize)> {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let mut lines = text.split("\r\n");
    let count = lines.next()?.strip_prefix('*')?.parse::<usize>().ok()?;
    let (mut words, mut length) = (Vec::new(), text.find("\r\n")? + 2);
    for _ in 0..count {
        let header = lines.next()?;
        let word = lines.next()?;
        length += header.len() + word.len() + 4;
        if length > bytes.len() {
            return None;
        }
        words.push(word.to_owned());
    }
    Some((words, length))
}

/// A bulk string.
pub fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

/// An array of bulk strings.
pub fn array(items: &[&str]) -> String {
    let items_text: String = items.iter().map(|item| bulk(item)).collect();
    format!("*{}\r\n{items_text}", items.len())
}
