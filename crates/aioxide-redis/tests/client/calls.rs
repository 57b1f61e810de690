//! Calls, step by step: the test plays the server, in pieces as small as it wants.

use std::rc::Rc;
use std::time::Duration;

use aioxide_redis::config::Address;
use aioxide_redis::{Client, Command, Config, Error, Value};
use aioxide_runtime::net::{UnixListener, UnixStream};
use aioxide_runtime::spawn;

use crate::scripted::{config, parse, test};

/// A place for a socket, removed with its folder at the end.
struct Place(std::path::PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("aioxide-redis-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("the temporary folder can be written");
        Self(folder)
    }

    fn path(&self) -> std::path::PathBuf {
        self.0.join("socket")
    }

    fn config(&self) -> Config {
        Config { address: Address::Unix(self.path()), ..config() }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// One connection as the server sees it.
struct Peer {
    stream: UnixStream,
    received: Vec<u8>,
}

impl Peer {
    /// Accepts a client and answers its greeting.
    async fn accept(listener: &UnixListener) -> Self {
        let mut peer = Self { stream: listener.accept().await.expect("a client"), received: Vec::new() };
        assert_eq!(peer.command().await.as_deref(), Some("HELLO 3"));
        peer.say("%1\r\n+proto\r\n:3\r\n").await;
        peer
    }

    async fn say(&self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.expect("the client is there");
    }

    /// The next command, its words joined; `None` at the end.
    async fn command(&mut self) -> Option<String> {
        loop {
            if let Some((words, length)) = parse(&self.received) {
                self.received.drain(..length);
                return Some(words.join(" "));
            }
            let mut piece = [0; 4096];
            match self.stream.read(&mut piece).await {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.received.extend_from_slice(&piece[..count]),
            }
        }
    }
}

fn get(key: &str) -> Command {
    Command::new("GET").arg(key)
}

#[test]
fn replies_find_their_callers_however_they_are_split() {
    test(async {
        let place = Place::new("split");
        let listener = UnixListener::bind(place.path()).expect("the path is free");
        let client = Client::new(place.config());
        let calls: Vec<_> = ["a", "b", "c"]
            .map(|key| {
                let client = client.clone();
                spawn(async move { client.run::<String>(&get(key)).await })
            })
            .into();
        let mut peer = Peer::accept(&listener).await;
        for key in ["a", "b", "c"] {
            assert_eq!(peer.command().await, Some(format!("GET {key}")));
        }
        for byte in "$1\r\nA\r\n+B\r\n>1\r\n+news\r\n$1\r\nC\r\n".bytes() {
            peer.stream.write_all(&[byte]).await.expect("the client is there");
            aioxide_runtime::yield_now().await;
        }
        for (call, expected) in calls.into_iter().zip(["A", "B", "C"]) {
            assert_eq!(call.await.expect("no panic").expect("a reply"), expected);
        }
    });
}

#[test]
fn an_abandoned_call_takes_nobodys_reply() {
    test(async {
        let place = Place::new("abandoned");
        let listener = UnixListener::bind(place.path()).expect("the path is free");
        let client = Client::new(place.config());
        let first = {
            let client = client.clone();
            spawn(async move { client.run::<String>(&get("first")).await })
        };
        let mut peer = Peer::accept(&listener).await;
        assert_eq!(peer.command().await.as_deref(), Some("GET first"));
        first.abort();
        assert!(first.await.is_err());
        let second = spawn(async move { client.run::<String>(&get("second")).await });
        assert_eq!(peer.command().await.as_deref(), Some("GET second"));
        peer.say("+one\r\n+two\r\n").await;
        assert_eq!(second.await.expect("no panic").expect("a reply"), "two");
    });
}

#[test]
fn what_was_sent_fails_with_its_connection_and_what_was_not_goes_out_on_the_next() {
    test(async {
        let place = Place::new("lost");
        let listener = UnixListener::bind(place.path()).expect("the path is free");
        let client = Rc::new(Client::new(place.config()));
        let sent = {
            let client = Rc::clone(&client);
            spawn(async move { client.run::<String>(&get("sent")).await })
        };
        let again = {
            let client = Rc::clone(&client);
            spawn(async move { client.run_idempotent::<String>(&get("again")).await })
        };
        let mut peer = Peer::accept(&listener).await;
        assert_eq!(peer.command().await.as_deref(), Some("GET sent"));
        assert_eq!(peer.command().await.as_deref(), Some("GET again"));
        drop(peer);
        match sent.await.expect("no panic") {
            Err(Error::Network { may_have_run: true, .. }) => {}
            other => panic!("{other:?}"),
        }
        let later = spawn(async move { client.run::<String>(&get("later")).await });
        let mut peer = Peer::accept(&listener).await;
        assert_eq!(peer.command().await.as_deref(), Some("GET again"));
        assert_eq!(peer.command().await.as_deref(), Some("GET later"));
        peer.say("+1\r\n+2\r\n").await;
        assert_eq!(again.await.expect("no panic").expect("a reply"), "1");
        assert_eq!(later.await.expect("no panic").expect("a reply"), "2");
    });
}

#[test]
fn a_server_that_is_not_there_is_an_error_after_the_last_attempt() {
    test(async {
        let place = Place::new("nobody");
        let client = Client::new(place.config());
        match client.run::<Value>(&get("key")).await {
            Err(Error::Network { may_have_run: false, source }) => {
                assert_eq!(source.kind(), std::io::ErrorKind::NotFound);
            }
            other => panic!("{other:?}"),
        }
        // It is not for ever.
        let listener = UnixListener::bind(place.path()).expect("the path is free");
        let call = spawn(async move { client.run::<String>(&get("key")).await });
        let mut peer = Peer::accept(&listener).await;
        assert_eq!(peer.command().await.as_deref(), Some("GET key"));
        peer.say("+here\r\n").await;
        assert_eq!(call.await.expect("no panic").expect("a reply"), "here");
    });
}

#[test]
fn an_idle_connection_that_ends_is_made_again_when_it_is_needed() {
    test(async {
        let place = Place::new("idle");
        let listener = UnixListener::bind(place.path()).expect("the path is free");
        let client = Rc::new(Client::new(place.config()));
        for turn in 0..3 {
            let call = {
                let client = Rc::clone(&client);
                spawn(async move { client.run::<i64>(&get("key")).await })
            };
            let mut peer = Peer::accept(&listener).await;
            assert_eq!(peer.command().await.as_deref(), Some("GET key"));
            peer.say(&format!(":{turn}\r\n")).await;
            assert_eq!(call.await.expect("no panic").expect("a reply"), turn);
            // The end arrives at the client before it sends again, or after: both must do.
            drop(peer);
            if turn == 0 {
                aioxide_runtime::sleep(Duration::from_millis(5)).await;
            } else {
                while client_is_ready(&client) {
                    aioxide_runtime::yield_now().await;
                }
            }
        }
    });
}

fn client_is_ready(client: &Client) -> bool {
    format!("{client:?}").contains("Ready")
}

#[test]
fn a_server_that_says_nothing_is_given_up() {
    test(async {
        let place = Place::new("stall");
        let listener = UnixListener::bind(place.path()).expect("the path is free");
        let config = Config { stall_timeout: Some(Duration::from_millis(40)), ..place.config() };
        let client = Client::new(config);
        let call = spawn(async move { client.run::<Value>(&get("key")).await });
        let mut peer = Peer::accept(&listener).await;
        assert_eq!(peer.command().await.as_deref(), Some("GET key"));
        match call.await.expect("no panic") {
            Err(Error::Timeout { may_have_run: true, .. }) => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(peer.command().await, None);
    });
}

#[test]
fn a_transaction_tells_what_was_refused() {
    test(async {
        let place = Place::new("transaction");
        let listener = UnixListener::bind(place.path()).expect("the path is free");
        let client = Client::new(place.config());
        let call = spawn(async move {
            let commands = [Command::new("SET").arg("a").arg(1), Command::new("NONSENSE")];
            client.transaction(&commands).await
        });
        let mut peer = Peer::accept(&listener).await;
        for expected in ["MULTI", "SET a 1", "NONSENSE", "EXEC"] {
            assert_eq!(peer.command().await.as_deref(), Some(expected));
        }
        peer.say("+OK\r\n+QUEUED\r\n-ERR unknown command\r\n-EXECABORT because of it\r\n").await;
        match call.await.expect("no panic") {
            Err(Error::Server(error)) => assert_eq!(error.text(), "ERR unknown command"),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn closing_tells_who_waits() {
    test(async {
        let place = Place::new("closing");
        let listener = UnixListener::bind(place.path()).expect("the path is free");
        let client = Client::new(place.config());
        let call = {
            let client = client.clone();
            spawn(async move { client.run::<Value>(&get("key")).await })
        };
        let mut peer = Peer::accept(&listener).await;
        assert_eq!(peer.command().await.as_deref(), Some("GET key"));
        client.close();
        assert!(matches!(call.await.expect("no panic"), Err(Error::Closed)));
        assert_eq!(peer.command().await, None);
        assert!(matches!(client.run::<Value>(&get("key")).await, Err(Error::Closed)));
    });
}

#[test]
fn a_refused_login_is_told_at_once() {
    test(async {
        let place = Place::new("refused");
        let listener = UnixListener::bind(place.path()).expect("the path is free");
        let client = Client::new(place.config());
        let call = spawn(async move { client.run::<Value>(&get("key")).await });
        let mut peer = Peer { stream: listener.accept().await.expect("a client"), received: Vec::new() };
        assert_eq!(peer.command().await.as_deref(), Some("HELLO 3"));
        peer.say("-NOAUTH HELLO must be called with the client already authenticated\r\n").await;
        match call.await.expect("no panic") {
            Err(Error::Refused(error)) => assert_eq!(error.code(), "NOAUTH"),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn callers_wait_while_the_server_is_slow() {
    test(async {
        let place = Place::new("slow");
        let listener = UnixListener::bind(place.path()).expect("the path is free");
        let client = Client::new(Config { outstanding: 4, ..place.config() });
        let calls: Vec<_> = (0..10)
            .map(|number| {
                let client = client.clone();
                spawn(async move { client.run::<i64>(&get(&number.to_string())).await })
            })
            .collect();
        let mut peer = Peer::accept(&listener).await;
        for number in 0..10 {
            assert_eq!(peer.command().await, Some(format!("GET {number}")));
            if number >= 3 {
                peer.say(&format!(":{}\r\n", number - 3)).await;
            }
        }
        peer.say(":7\r\n:8\r\n:9\r\n").await;
        for (number, call) in (0..).zip(calls) {
            assert_eq!(call.await.expect("no panic").expect("a reply"), number);
        }
    });
}
