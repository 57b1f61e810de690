//! Waiting for readiness.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use aioxide_driver::{Op, Outcome};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::pty::{OpenptFlags, openpt, ptsname, unlockpt};

use crate::harness::{errno, number, on_every_backend, tcp_pair};

fn readable(source: &impl std::os::fd::AsRawFd, repeat: bool) -> Op {
    Op::WaitReadable { descriptor: number(source), repeat }
}

fn writable(source: &impl std::os::fd::AsRawFd, repeat: bool) -> Op {
    Op::WaitWritable { descriptor: number(source), repeat }
}

on_every_backend! {
    fn a_single_wait_reports_once(mut harness: Harness) {
        let (ours, mut peer) = tcp_pair();
        harness.start(1, readable(&ours, false));
        assert!(harness.collect().is_empty());
        peer.write_all(b"x").unwrap();
        assert!(matches!(harness.finish(1), Outcome::Ready));
        harness.assert_silent(1);
        harness.assert_idle();
    }

    /// Clause 9.
    fn a_repeating_wait_reports_once_per_wait_while_ready(mut harness: Harness) {
        let (mut ours, mut peer) = tcp_pair();
        harness.start(1, readable(&ours, true));
        assert!(harness.collect().is_empty());
        peer.write_all(b"x").unwrap();
        assert!(harness.next(1).more);
        for _ in 0..5 {
            let completions = harness.collect();
            assert_eq!(completions.len(), 1, "{completions:?}");
            assert!(completions[0].more && matches!(completions[0].outcome, Outcome::Ready));
        }
        ours.read_exact(&mut [0]).unwrap();
        assert!(harness.collect().is_empty());
        peer.write_all(b"y").unwrap();
        assert!(harness.next(1).more);
        assert!(matches!(harness.cancel(1), Outcome::Cancelled));
        harness.assert_idle();
    }

    fn readers_and_writers_of_one_descriptor_are_told_apart(mut harness: Harness) {
        let (ours, mut peer) = tcp_pair();
        harness.start(1, readable(&ours, true));
        harness.start(2, readable(&ours, true));
        harness.start(3, writable(&ours, true));
        assert!(harness.next(3).more);
        let early = harness.collect();
        assert!(early.iter().all(|completion| completion.token.0 == 3), "{early:?}");
        assert!(matches!(harness.cancel(3), Outcome::Cancelled));
        peer.write_all(b"x").unwrap();
        assert!(harness.next(1).more);
        assert!(harness.next(2).more);
        harness.cancel(1);
        assert!(harness.next(2).more);
        harness.cancel(2);
        harness.assert_idle();
    }

    fn a_full_socket_is_writable_when_the_peer_has_read(mut harness: Harness) {
        let (mut ours, mut peer) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut filled = 0;
        while let Ok(length) = ours.write(&[0; 4096]) {
            filled += length;
        }
        harness.start(1, writable(&ours, false));
        assert!(harness.collect().is_empty());
        peer.read_exact(&mut vec![0; filled]).unwrap();
        assert!(matches!(harness.finish(1), Outcome::Ready));
    }

    fn a_hang_up_is_readiness_of_both_kinds(mut harness: Harness) {
        let (ours, peer) = UnixStream::pair().unwrap();
        harness.start(1, readable(&ours, false));
        drop(peer);
        assert!(matches!(harness.finish(1), Outcome::Ready));
        harness.start(2, writable(&ours, false));
        assert!(matches!(harness.finish(2), Outcome::Ready));
    }

    fn a_reader_that_is_gone_makes_a_pipe_writable(mut harness: Harness) {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        while rustix::io::write(&writer, &[0; 4096]).is_ok() {}
        harness.start(1, writable(&writer, true));
        assert!(harness.collect().is_empty());
        drop(reader);
        assert!(harness.next(1).more);
        harness.cancel(1);
    }

    fn a_process_that_exits_is_readable(mut harness: Harness) {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        harness.start(1, readable(&pidfd, false));
        assert!(harness.collect().is_empty());
        drop(child.stdin.take());
        assert!(matches!(harness.finish(1), Outcome::Ready));
        assert!(child.wait().unwrap().success());
    }

    /// What is always ready it is a mistake to wait for: epoll's answer on every backend.
    fn what_never_blocks_cannot_be_waited_for(mut harness: Harness) {
        for path in ["/proc/self/exe", "/", "/dev/null", "/dev/zero"] {
            let file = std::fs::File::open(path).unwrap();
            harness.submit(1, readable(&file, true));
            assert_eq!(errno(harness.finish(1)), Errno::PERM.raw_os_error(), "{path}");
            harness.submit(2, writable(&file, false));
            assert_eq!(errno(harness.finish(2)), Errno::PERM.raw_os_error(), "{path}");
        }
        harness.assert_idle();
    }

    fn a_terminal_can_be_waited_for(mut harness: Harness) {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        unlockpt(&controller).unwrap();
        let name = ptsname(&controller, Vec::new()).unwrap();
        let terminal = open(name.as_c_str(), OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        harness.start(1, readable(&terminal, true));
        assert!(harness.collect().is_empty());
        rustix::io::write(&controller, b"line\n").unwrap();
        assert!(harness.next(1).more);
        assert_eq!(rustix::io::read(&terminal, &mut [0; 8]), Ok(5));
        assert!(harness.collect().is_empty());
        drop(controller);
        assert!(harness.next(1).more);
        harness.cancel(1);
        harness.assert_idle();
    }

    fn a_closed_descriptor_cannot_be_waited_for(mut harness: Harness) {
        for descriptor in [-1, 900_000] {
            harness.submit(1, Op::WaitReadable { descriptor, repeat: true });
            assert_eq!(errno(harness.finish(1)), Errno::BADF.raw_os_error());
        }
        harness.assert_idle();
    }
}
