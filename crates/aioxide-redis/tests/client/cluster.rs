//! A cluster of scripted nodes.

use std::cell::Cell;
use std::rc::Rc;

use crate::scripted::{Scripted, array, bulk, config, test};
use aioxide_redis::proto::slot;
use aioxide_redis::{Cluster, Command, Error};

/// An answer to CLUSTER SLOTS: all slots at these ports, the master's first.
fn all_slots_at(ports: &[u16]) -> String {
    let nodes: String =
        ports.iter().map(|port| format!("*3\r\n{}:{port}\r\n{}", bulk("127.0.0.1"), bulk("id"))).collect();
    format!("*1\r\n*{}\r\n:0\r\n:16383\r\n{nodes}", ports.len() + 2)
}

/// A node with a name, that says all slots are at the ports.
fn node(name: &'static str, ports: &Rc<Cell<u16>>) -> Scripted {
    let ports = Rc::clone(ports);
    Scripted::new(move |command| {
        Some(if command == "CLUSTER SLOTS" { all_slots_at(&[ports.get()]) } else { bulk(name) })
    })
}

/// Two nodes of which the old one has all slots, and a cluster that knows it.
struct Pair {
    old: Scripted,
    new: Scripted,
    owner: Rc<Cell<u16>>,
    cluster: Cluster,
}

impl Pair {
    async fn new() -> Self {
        let owner = Rc::new(Cell::new(0));
        let (old, new) = (node("old", &owner), node("new", &owner));
        owner.set(old.port);
        let cluster = Cluster::new([old.address(), new.address()], config());
        assert_eq!(get(&cluster).await.expect("a reply"), "old");
        Self { old, new, owner, cluster }
    }
}

async fn get(cluster: &Cluster) -> Result<String, Error> {
    cluster.run(&Command::new("GET").arg("key")).await
}

#[test]
fn moved_is_followed_and_remembered() {
    test(async {
        let Pair { old, new, cluster, .. } = Pair::new().await;
        let moved = format!("-MOVED {} 127.0.0.1:{}\r\n", slot(b"key"), new.port);
        old.now(move |_| Some(moved.clone()));
        old.take_asked();
        assert_eq!(get(&cluster).await.expect("a reply"), "new");
        assert_eq!(get(&cluster).await.expect("a reply"), "new");
        assert_eq!(old.take_asked(), ["GET key"]);
        assert_eq!(new.take_asked(), ["GET key", "GET key"]);
    });
}

#[test]
fn ask_is_for_one_time_and_asking_goes_ahead() {
    test(async {
        let Pair { old, new, cluster, .. } = Pair::new().await;
        let ask = format!("-ASK {} 127.0.0.1:{}\r\n", slot(b"key"), new.port);
        old.now(move |_| Some(ask.clone()));
        old.take_asked();
        for _ in 0..2 {
            assert_eq!(get(&cluster).await.expect("a reply"), "new");
        }
        assert_eq!(old.take_asked(), ["GET key", "GET key"]);
        assert_eq!(new.take_asked(), ["ASKING", "GET key", "ASKING", "GET key"]);
    });
}

#[test]
fn redirections_in_a_circle_end() {
    test(async {
        let owner = Rc::new(Cell::new(0));
        let only = node("only", &owner);
        owner.set(only.port);
        let cluster = Cluster::new([only.address()], config());
        assert_eq!(get(&cluster).await.expect("a reply"), "only");
        let moved = format!("-MOVED {} 127.0.0.1:{}\r\n", slot(b"key"), only.port);
        only.now(move |_| Some(moved.clone()));
        only.take_asked();
        assert!(matches!(get(&cluster).await, Err(Error::Server(error)) if error.code() == "MOVED"));
        assert_eq!(only.take_asked().len(), 17);
    });
}

#[test]
fn what_may_have_run_is_told_and_the_slots_are_read_anew() {
    test(async {
        let Pair { old, new, cluster, owner } = Pair::new().await;
        owner.set(new.port);
        old.now(|_| None);
        assert!(matches!(get(&cluster).await, Err(Error::Network { may_have_run: true, .. })));
        assert_eq!(get(&cluster).await.expect("a reply"), "new");
    });
}

#[test]
fn what_may_run_twice_is_sent_to_the_new_owner() {
    test(async {
        let Pair { old, new, cluster, owner } = Pair::new().await;
        owner.set(new.port);
        old.now(|_| None);
        let reply: String = cluster.run_idempotent(&Command::new("GET").arg("key")).await.expect("a reply");
        assert_eq!(reply, "new");
    });
}

#[test]
fn replicas_are_read_from_in_turn_and_not_written_to() {
    test(async {
        let replica =
            Scripted::new(|command| Some(bulk(if command == "READONLY" { "OK" } else { "replica" })));
        let (port, own) = (replica.port, Rc::new(Cell::new(0)));
        let own_port = Rc::clone(&own);
        let master = Scripted::new(move |command| {
            Some(if command == "CLUSTER SLOTS" {
                all_slots_at(&[own_port.get(), port])
            } else {
                bulk("master")
            })
        });
        own.set(master.port);
        let cluster = Cluster::reading_from_replicas([master.address()], config());
        let mut names = vec![get(&cluster).await.expect("a reply"), get(&cluster).await.expect("a reply")];
        names.sort();
        assert_eq!(names, ["master", "replica"]);
        for _ in 0..2 {
            let name: String = cluster.run(&Command::new("SET").arg("key").arg(1)).await.expect("a reply");
            assert_eq!(name, "master");
        }
    });
}

#[test]
fn keys_in_several_slots_are_got_with_a_command_for_each() {
    test(async {
        let owner = Rc::new(Cell::new(0));
        let port = Rc::clone(&owner);
        let only = Scripted::new(move |command| {
            let keys: Vec<_> = command.split(' ').skip(1).collect();
            Some(if command == "CLUSTER SLOTS" { all_slots_at(&[port.get()]) } else { array(&keys) })
        });
        owner.set(only.port);
        let cluster = Cluster::new([only.address()], config());
        let keys: [&[u8]; 3] = [b"a", b"b", b"{a}2"];
        assert_eq!(cluster.get_many::<String>(&keys).await.expect("replies"), ["a", "b", "{a}2"]);
        let error = cluster.run::<()>(&Command::new("MGET").args(["a", "b"])).await.expect_err("two slots");
        assert!(matches!(error, Error::Misuse(_)));
    });
}
