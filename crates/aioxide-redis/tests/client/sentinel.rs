//! Masters and replicas that sentinels know, on scripted servers.

use std::cell::Cell;
use std::rc::Rc;

use crate::scripted::{Scripted, array, bulk, config, test};
use aioxide_redis::config::Address;
use aioxide_redis::{Client, Command, Error, Role, Sentinel};

/// A sentinel that knows a master, which can change, and replicas.
fn sentinel_that_knows(master: &Rc<Cell<u16>>, replicas: &[u16]) -> Scripted {
    let (master, replicas) = (Rc::clone(master), replicas.to_vec());
    Scripted::new(move |command| {
        Some(match command {
            "SENTINEL GET-MASTER-ADDR-BY-NAME main" => array(&["127.0.0.1", &master.get().to_string()]),
            "SENTINEL REPLICAS main" => {
                let states: String = replicas
                    .iter()
                    .map(|port| {
                        let flags = if *port == 1 { "s_down,slave" } else { "slave" };
                        array(&["ip", "127.0.0.1", "port", &port.to_string(), "flags", flags])
                    })
                    .collect();
                format!("*{}\r\n{states}", replicas.len())
            }
            "SENTINEL MASTER main" => array(&["num-other-sentinels", "1"]),
            _ => "*-1\r\n".into(),
        })
    })
}

/// A server that says what it is, and its name for everything else.
fn server_that_is(role: &'static str, name: &'static str) -> Scripted {
    Scripted::new(move |command| Some(if command == "ROLE" { array(&[role]) } else { bulk(name) }))
}

fn client_of<'a>(sentinels: impl IntoIterator<Item = &'a Scripted>, role: Role) -> Client {
    let addresses = sentinels.into_iter().map(Scripted::address);
    let sentinel = Sentinel::new(addresses, "main", role).with_config(config());
    Client::located(config(), Rc::new(sentinel))
}

fn port_of_nobody() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

async fn who(client: &Client) -> Result<String, Error> {
    client.run(&Command::new("WHO")).await
}

#[test]
fn a_sentinel_that_knows_is_asked_first_the_next_time() {
    test(async {
        let master = server_that_is("master", "m");
        let port = Rc::new(Cell::new(master.port));
        let ignorant = Scripted::new(|_| Some("*-1\r\n".into()));
        let knowing = sentinel_that_knows(&port, &[]);
        // Nobody listens at the first one.
        let gone = Address::Tcp { host: "127.0.0.1".into(), port: port_of_nobody() };
        let addresses = [gone, ignorant.address(), knowing.address()];
        let sentinel = Sentinel::new(addresses, "main", Role::Master).with_config(config());
        let client = Client::located(config(), Rc::new(sentinel));
        assert_eq!(who(&client).await.expect("an answer"), "m");
        assert_eq!(ignorant.take_asked().len(), 1);
        // The server hangs up once, then is as before.
        master.now(|_| None);
        assert!(matches!(who(&client).await, Err(Error::Network { may_have_run: true, .. })));
        master.now(|command| Some(if command == "ROLE" { array(&["master"]) } else { bulk("again") }));
        assert_eq!(who(&client).await.expect("an answer"), "again");
        assert_eq!(ignorant.take_asked(), Vec::<String>::new());
        assert_eq!(knowing.take_asked().len(), 2);
    });
}

#[test]
fn a_master_that_says_it_is_none_is_not_used() {
    test(async {
        let (stale, real) = (server_that_is("slave", "stale"), server_that_is("master", "real"));
        let port = Rc::new(Cell::new(stale.port));
        let sentinel = sentinel_that_knows(&port, &[]);
        let client = client_of([&sentinel], Role::Master);
        let error = who(&client).await.expect_err("there is no master");
        assert!(matches!(error, Error::NotFound { role: Role::Master }), "{error}");
        assert_eq!(stale.take_asked(), ["ROLE"; 6]);
        port.set(real.port);
        assert_eq!(who(&client).await.expect("an answer"), "real");
    });
}

#[test]
fn readonly_lets_replies_on_their_way_arrive_and_sends_the_rest_to_the_new_master() {
    test(async {
        let old = Scripted::new(|command| {
            Some(match command {
                "ROLE" => array(&["master"]),
                "SET 2" => "-READONLY You can't write against a read only replica.\r\n".into(),
                _ => bulk("old"),
            })
        });
        let new = server_that_is("master", "new");
        let port = Rc::new(Cell::new(old.port));
        let sentinel = sentinel_that_knows(&port, &[]);
        let client = client_of([&sentinel], Role::Master);
        assert_eq!(who(&client).await.expect("an answer"), "old");
        port.set(new.port);
        let commands = ["GET 1", "SET 2", "GET 3"].map(|text| {
            let mut words = text.split(' ');
            let command = Command::new(words.next().expect("a name")).args(words);
            let client = client.clone();
            aioxide_runtime::spawn(async move { client.run::<String>(&command).await })
        });
        let mut replies = Vec::new();
        for command in commands {
            replies.push(command.await);
        }
        assert!(matches!(&replies[0], Ok(Ok(name)) if name == "old"), "{replies:?}");
        assert!(
            matches!(&replies[1], Ok(Err(Error::Server(error))) if error.code() == "READONLY"),
            "{replies:?}"
        );
        assert!(matches!(&replies[2], Ok(Ok(name)) if name == "old"), "{replies:?}");
        assert_eq!(who(&client).await.expect("an answer"), "new");
    });
}

#[test]
fn replicas_that_are_up_are_taken_in_turn() {
    test(async {
        let (first, second) = (server_that_is("slave", "first"), server_that_is("slave", "second"));
        let port = Rc::new(Cell::new(1));
        let sentinel = sentinel_that_knows(&port, &[first.port, 1, second.port]);
        let addresses = [sentinel.address()];
        let sentinel = Rc::new(Sentinel::new(addresses, "main", Role::Replica).with_config(config()));
        let mut names = Vec::new();
        for _ in 0..4 {
            let client = Client::located(config(), sentinel.clone());
            names.push(who(&client).await.expect("an answer"));
        }
        assert_ne!(names[0], names[1]);
        assert_eq!(names[..2], names[2..]);
    });
}

#[test]
fn without_replicas_the_master_is_read_from_and_keeps_its_connection() {
    test(async {
        let master = server_that_is("master", "m");
        let port = Rc::new(Cell::new(master.port));
        let sentinel = sentinel_that_knows(&port, &[1]);
        let client = client_of([&sentinel], Role::Replica);
        assert_eq!(who(&client).await.expect("an answer"), "m");
        assert_eq!(who(&client).await.expect("an answer"), "m");
        assert_eq!(sentinel.take_asked().len(), 2);
    });
}

#[test]
fn a_replica_that_answers_readonly_is_not_left() {
    test(async {
        let replica = Scripted::new(|command| {
            Some(if command == "ROLE" { array(&["slave"]) } else { "-READONLY no\r\n".into() })
        });
        let port = Rc::new(Cell::new(1));
        let sentinel = sentinel_that_knows(&port, &[replica.port]);
        let client = client_of([&sentinel], Role::Replica);
        for _ in 0..2 {
            assert!(matches!(who(&client).await, Err(Error::Server(_))));
        }
        assert_eq!(replica.take_asked(), ["ROLE", "WHO", "WHO"]);
    });
}

#[test]
fn a_sentinel_that_knows_too_few_others_is_not_believed() {
    test(async {
        let master = server_that_is("master", "m");
        let port = Rc::new(Cell::new(master.port));
        let sentinel = sentinel_that_knows(&port, &[]);
        for (fewest, is_believed) in [(1, true), (2, false)] {
            let sentinel = Sentinel::new([sentinel.address()], "main", Role::Master).with_config(config());
            let client = Client::located(config(), Rc::new(sentinel.with_fewest_others(fewest)));
            assert_eq!(who(&client).await.is_ok(), is_believed);
        }
    });
}

#[test]
fn users_that_may_not_ask_for_the_role_do_without() {
    test(async {
        let master = Scripted::new(|command| {
            Some(if command == "ROLE" { "-NOPERM no\r\n".into() } else { bulk("m") })
        });
        let port = Rc::new(Cell::new(master.port));
        let sentinel = sentinel_that_knows(&port, &[]);
        let client = client_of([&sentinel], Role::Master);
        assert_eq!(who(&client).await.expect("an answer"), "m");
    });
}
