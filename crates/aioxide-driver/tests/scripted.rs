//! The scripted backend: what tests of hosts lean on.
#![cfg(all(feature = "testing", not(loom)))]

use std::io;
use std::time::Duration;

use aioxide_driver::{Backend, Buffer, Driver, Op, Outcome, Submitted, Token};

fn receive() -> Op {
    Op::ReceiveRepeatedly { socket: 3 }
}

#[test]
fn completions_are_played_in_order_and_the_last_ends_the_op() {
    let (mut driver, script) = Driver::scripted().unwrap();
    assert_eq!(driver.backend(), Backend::Scripted);
    assert!(matches!(driver.submit(receive(), Token(1)), Submitted::Pending));
    script.complete(Token(1), Outcome::Received(Buffer::copied_from(b"abc").unwrap()), true);
    script.complete(Token(1), Outcome::Received(Buffer::copied_from(b"").unwrap()), false);
    assert_eq!(driver.ready_hint(), Some(true));
    let mut completions = Vec::new();
    driver.wait(None, &mut completions).unwrap();
    let received: Vec<_> = completions
        .iter()
        .map(|completion| match &completion.outcome {
            Outcome::Received(buffer) => (buffer.to_vec(), completion.more),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(received, [(b"abc".to_vec(), true), (Vec::new(), false)]);
    assert_eq!(driver.statistics().in_flight, 0);
}

#[test]
fn an_answer_and_a_fault_come_when_the_script_says() {
    let (mut driver, script) = Driver::scripted().unwrap();
    script.answer_next(Outcome::Failed(io::ErrorKind::ConnectionRefused.into()));
    assert!(matches!(driver.submit(receive(), Token(1)), Submitted::Done(Outcome::Failed(_))));
    script.fail_wait(io::ErrorKind::OutOfMemory.into());
    let error = driver.wait(None, &mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
}

#[test]
fn a_cancelled_op_ends_once() {
    let (mut driver, script) = Driver::scripted().unwrap();
    assert!(matches!(driver.submit(receive(), Token(1)), Submitted::Pending));
    driver.cancel(Token(1));
    driver.cancel(Token(1));
    let mut completions = Vec::new();
    driver.wait(None, &mut completions).unwrap();
    driver.cancel(Token(1));
    assert_eq!(completions.len(), 1);
    assert!(matches!(completions[0].outcome, Outcome::Cancelled));
    assert_eq!(script.cancelled(), [Token(1)]);
}

#[test]
fn waits_note_their_timeouts_and_one_for_ever_is_an_error_not_a_hang() {
    let (mut driver, script) = Driver::scripted().unwrap();
    let timeout = Some(Duration::from_secs(3600));
    driver.wait(timeout, &mut Vec::new()).unwrap();
    driver.waker().wake();
    driver.wait(None, &mut Vec::new()).unwrap();
    assert!(driver.wait(None, &mut Vec::new()).is_err());
    assert_eq!(script.timeouts(), [timeout, None, None]);
}
