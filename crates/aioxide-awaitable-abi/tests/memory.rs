//! Futures whose memory is used again: each is whole while it lives, dropped once, and nobody else's.
#![expect(unsafe_code, reason = "vouches for the lock, and takes over what was made a line before")]

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use aioxide_awaitable_abi::{Answers, Erased, Payload, RawAnswer, Status, erase};

/// The lock that all tests here hold while they have futures.
static LOCK: Mutex<()> = Mutex::new(());

fn lock() -> MutexGuard<'static, ()> {
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes addresses of numbers.
struct ToAddress;

// SAFETY: whoever has futures here holds `LOCK`.
unsafe impl Answers<usize> for ToAddress {
    const UNDER_ONE_LOCK: bool = true;

    fn answer(number: usize) -> RawAnswer {
        RawAnswer { status: Status::DONE, value: std::ptr::without_provenance_mut(number) }
    }

    fn panicked(_payload: Payload) -> RawAnswer {
        RawAnswer { status: Status::FAILED, value: std::ptr::null_mut() }
    }
}

fn crossing(future: impl Future<Output = usize> + 'static) -> Erased {
    // SAFETY: it was made for this, and nobody else has it.
    unsafe { Erased::from_raw(erase::<ToAddress, _>(future)) }
}

fn poll(future: &mut Erased) -> Option<(Status, usize)> {
    match Pin::new(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => Some((answer.status, answer.value.addr())),
        Poll::Pending => None,
    }
}

/// Fills its place with a number, waits a few times, and looks whether all is still there.
struct Filled<const SIZE: usize> {
    bytes: [u8; SIZE],
    polls: u8,
    _alive: Rc<()>,
}

impl<const SIZE: usize> Future for Filled<SIZE> {
    type Output = usize;

    fn poll(mut self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<usize> {
        if self.polls > 0 {
            self.polls -= 1;
            return Poll::Pending;
        }
        let first = self.bytes[0];
        assert!(self.bytes.iter().all(|byte| *byte == first));
        Poll::Ready(first.into())
    }
}

fn filled(size: usize, number: u8, polls: u8, alive: &Rc<()>) -> Erased {
    fn of<const SIZE: usize>(number: u8, polls: u8, alive: &Rc<()>) -> Erased {
        crossing(Filled { bytes: [number; SIZE], polls, _alive: Rc::clone(alive) })
    }
    match size {
        0 => of::<1>(number, polls, alive),
        1 => of::<40>(number, polls, alive),
        2 => of::<119>(number, polls, alive),
        3 => of::<120>(number, polls, alive),
        _ => of::<1000>(number, polls, alive),
    }
}

#[test]
fn futures_of_all_sizes_come_and_go() {
    let _lock = lock();
    let alive = Rc::new(());
    let mut futures: Vec<(u8, Erased)> = Vec::new();
    // Any sequence will do; this one goes through all sizes, and through about a hundred futures at a time.
    let mut seed: u32 = 1;
    let mut next = |bound: u32| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 16) % bound
    };
    for round in 0..if cfg!(miri) { 300 } else { 20_000 } {
        let number = (round % 251) as u8;
        futures.push((number, filled(next(5) as usize, number, next(3) as u8, &alive)));
        if next(100) < futures.len() as u32 {
            let chosen = next(futures.len() as u32) as usize;
            if next(4) == 0 {
                drop(futures.swap_remove(chosen));
            } else if let (number, Some(answer)) = (futures[chosen].0, poll(&mut futures[chosen].1)) {
                assert_eq!(answer, (Status::DONE, number.into()));
                drop(futures.swap_remove(chosen));
            }
        }
        assert_eq!(Rc::strong_count(&alive), 1 + futures.len());
    }
    drop(futures);
    assert_eq!(Rc::strong_count(&alive), 1);
}

#[test]
fn more_than_are_kept_at_a_time() {
    let _lock = lock();
    let alive = Rc::new(());
    for _ in 0..2 {
        let futures: Vec<_> = (0..2000).map(|number| filled(1, number as u8, 0, &alive)).collect();
        for (number, mut future) in futures.into_iter().enumerate() {
            assert_eq!(poll(&mut future), Some((Status::DONE, usize::from(number as u8))));
        }
        assert_eq!(Rc::strong_count(&alive), 1);
    }
}

#[test]
fn a_strict_alignment_is_kept() {
    #[repr(align(64))]
    struct Aligned(u8);
    let _lock = lock();
    let mut futures: Vec<_> = (0..8)
        .map(|number| {
            let value = Aligned(number);
            crossing(
                async move { usize::from((&raw const value).addr().is_multiple_of(64) && value.0 == number) },
            )
        })
        .collect();
    for future in &mut futures {
        assert_eq!(poll(future), Some((Status::DONE, 1)));
    }
}

#[test]
fn one_that_panics_is_dropped_before_it_answers() {
    let _lock = lock();
    let alive = Rc::new(());
    let inside = Rc::clone(&alive);
    let mut future = crossing(async move {
        let _inside = inside;
        std::future::ready(()).await;
        panic!("on purpose") as usize
    });
    assert_eq!(poll(&mut future), Some((Status::FAILED, 0)));
    assert_eq!(Rc::strong_count(&alive), 1);
}

#[test]
fn one_that_panics_when_it_is_dropped_has_answered() {
    struct Bomb;
    impl Future for Bomb {
        type Output = usize;
        fn poll(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<usize> {
            Poll::Ready(7)
        }
    }
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("on purpose");
        }
    }
    let _lock = lock();
    assert_eq!(poll(&mut crossing(Bomb)), Some((Status::DONE, 7)));
    drop(crossing(Bomb));
}

#[test]
#[should_panic(expected = "a future is polled that is over")]
fn one_that_is_over_is_not_polled() {
    let _lock = lock();
    let mut future = crossing(async { 1 });
    assert!(poll(&mut future).is_some());
    poll(&mut future);
}
