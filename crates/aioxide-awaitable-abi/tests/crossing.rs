//! Futures and wakers that cross, and come back: by the C structures alone, as between two libraries.

use std::cell::Cell;
use std::ffi::c_void;
use std::future::{Future, pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::ptr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread;

use aioxide_awaitable_abi::waker::{Lazy, Shared, Wake, lend};
use aioxide_awaitable_abi::{Answers, Erased, Payload, RawAnswer, Status, erase};

/// Stands for a Python object.
struct Number(usize);

/// Makes addresses of numbers.
struct ToAddress;

#[expect(unsafe_code, reason = "promises nothing")]
// SAFETY: it asks for no memory that is used again.
unsafe impl Answers<Number> for ToAddress {
    const UNDER_ONE_LOCK: bool = false;

    fn answer(number: Number) -> RawAnswer {
        RawAnswer { status: Status::DONE, value: ptr::without_provenance_mut(number.0) }
    }

    fn panicked(payload: Payload) -> RawAnswer {
        let message = payload.downcast_ref::<&str>().copied().unwrap_or_default();
        RawAnswer { status: Status::FAILED, value: ptr::without_provenance_mut(message.len()) }
    }
}

fn number(value: *mut c_void) -> usize {
    value.addr()
}

/// Sends a future across and back.
#[expect(unsafe_code, reason = "takes over what was made a line before")]
fn crossing(future: impl Future<Output = Number> + 'static) -> Erased {
    let raw = erase::<ToAddress, _>(future);
    // SAFETY: it was made for this, and nobody else has it.
    unsafe { Erased::from_raw(raw) }
}

fn poll_once(future: &mut Erased, waker: &Waker) -> Poll<RawAnswer> {
    Pin::new(future).poll(&mut Context::from_waker(waker))
}

/// Counts how often it is woken, and whether it is still there.
struct Counted(Arc<AtomicUsize>);

impl Wake for Counted {
    fn wake(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn counted() -> (Counted, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    (Counted(Arc::clone(&count)), count)
}

#[test]
fn a_value_comes_back() {
    let mut future = crossing(async { Number(42) });
    let Poll::Ready(answer) = poll_once(&mut future, Waker::noop()) else { panic!("it is ready") };
    assert_eq!((answer.status, number(answer.value)), (Status::DONE, 42));
}

#[test]
fn a_panic_does_not_cross() {
    let mut future = crossing(async { panic!("five!") as Number });
    let Poll::Ready(answer) = poll_once(&mut future, Waker::noop()) else { panic!("it is over") };
    assert_eq!((answer.status, number(answer.value)), (Status::FAILED, 5));
}

#[test]
fn a_panic_while_it_is_dropped_does_not_cross() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("on purpose");
        }
    }
    let bomb = Bomb;
    let future = crossing(async move {
        let _bomb = bomb;
        pending::<Number>().await
    });
    assert!(catch_unwind(AssertUnwindSafe(|| drop(future))).is_ok());
}

#[test]
fn it_is_dropped_with_what_it_keeps() {
    let kept = Rc::new(());
    let inside = Rc::clone(&kept);
    let mut future = crossing(async move {
        let _inside = inside;
        pending::<Number>().await
    });
    assert!(poll_once(&mut future, Waker::noop()).is_pending());
    assert_eq!(Rc::strong_count(&kept), 2);
    drop(future);
    assert_eq!(Rc::strong_count(&kept), 1);
}

#[test]
fn a_future_may_borrow_from_itself() {
    let mut future = crossing(async {
        let numbers = [1, 2, 3];
        let sum = numbers.iter();
        yield_once().await;
        Number(sum.sum())
    });
    assert!(poll_once(&mut future, Waker::noop()).is_pending());
    let Poll::Ready(answer) = poll_once(&mut future, Waker::noop()) else { panic!("it is ready") };
    assert_eq!(number(answer.value), 6);
}

async fn yield_once() {
    let mut is_first = true;
    poll_fn(|context| {
        context.waker().wake_by_ref();
        if std::mem::take(&mut is_first) { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
}

/// A future that keeps a waker where the test can reach it.
fn keeping(place: &Rc<Cell<Option<Waker>>>) -> Erased {
    let place = Rc::clone(place);
    crossing(poll_fn(move |context| {
        place.set(Some(context.waker().clone()));
        Poll::<Number>::Pending
    }))
}

#[test]
fn a_waker_crosses_and_wakes_from_any_thread() {
    let place = Rc::new(Cell::new(None));
    let mut future = keeping(&place);
    let (target, count) = counted();
    let shared = Shared::new(target);
    assert!(shared.with_waker(|waker| poll_once(&mut future, waker)).is_pending());
    let waker = place.take().unwrap();
    let other = waker.clone();
    thread::spawn(move || {
        other.wake_by_ref();
        other.wake();
    })
    .join()
    .unwrap();
    waker.wake();
    assert_eq!(count.load(Ordering::SeqCst), 3);
    drop((shared, future));
    assert_eq!(Arc::strong_count(&count), 1);
}

#[test]
fn a_waker_outlives_who_made_it() {
    let place = Rc::new(Cell::new(None));
    let mut future = keeping(&place);
    let (target, count) = counted();
    let lazy = Lazy::new(target);
    assert!(lazy.with_waker(|waker| poll_once(&mut future, waker)).is_pending());
    drop(lazy);
    let waker = place.take().unwrap();
    drop(future);
    waker.wake();
    assert_eq!((count.load(Ordering::SeqCst), Arc::strong_count(&count)), (1, 1));
}

#[test]
fn a_lazy_target_is_shared_when_a_waker_is_kept_and_not_before() {
    let (target, count) = counted();
    let mut lazy = Lazy::new(target);
    let mut ready = crossing(async { Number(1) });
    assert!(lazy.with_waker(|waker| poll_once(&mut ready, waker)).is_ready());
    assert!(lazy.get().is_some() && lazy.get_unshared().is_some() && lazy.get_unheld().is_some());
    assert!(lazy.take_shared().is_none());
    assert!(lazy.take_unshared().is_some());
    assert!(lazy.get().is_none());
    assert_eq!(Arc::strong_count(&count), 1);

    let (target, count) = counted();
    let mut lazy = Lazy::new(target);
    let place = Rc::new(Cell::new(None));
    let mut future = keeping(&place);
    assert!(lazy.with_waker(|waker| poll_once(&mut future, waker)).is_pending());
    assert!(lazy.get().is_some());
    assert!(lazy.take_unshared().is_none());
    let first = place.take().unwrap();
    assert!(lazy.with_waker(|waker| poll_once(&mut future, waker)).is_pending());
    let second = place.take().unwrap();
    assert!(lazy.with_waker(|waker| first.will_wake(waker)));
    assert!(lazy.get_unheld().is_none());
    let shared = lazy.take_shared().unwrap();
    assert!(lazy.get().is_none());
    assert!(shared.with_waker(|waker| poll_once(&mut future, waker)).is_pending());
    // All are wakers of the same target, and know it.
    assert!(first.will_wake(&second) && first.will_wake(&place.take().unwrap()));
    first.wake();
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[test]
fn a_wake_while_it_is_polled_is_not_lost() {
    let (target, count) = counted();
    let mut lazy = Lazy::new(target);
    let mut future = crossing(async {
        yield_once().await;
        Number(1)
    });
    assert!(lazy.with_waker(|waker| poll_once(&mut future, waker)).is_pending());
    assert_eq!(count.load(Ordering::SeqCst), 1);
    // It was shared, though nobody kept the waker.
    assert!(lazy.get_unshared().is_none() && lazy.get_unheld().is_some());
    assert!(lazy.take_shared().is_some());
}

#[test]
fn two_threads_clone_a_lent_waker_at_once() {
    let (target, count) = counted();
    let lazy = Lazy::new(target);
    lazy.with_waker(|waker| {
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let kept = waker.clone();
                    kept.wake();
                });
            }
        });
    });
    assert_eq!(count.load(Ordering::SeqCst), 2);
    drop(lazy);
    assert_eq!(Arc::strong_count(&count), 1);
}

#[test]
fn any_waker_can_be_lent() {
    struct Woken(AtomicUsize);
    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let woken = Arc::new(Woken(AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&woken));
    let place = Rc::new(Cell::new(None));
    let mut future = keeping(&place);
    assert!(poll_once(&mut future, &waker).is_pending());
    place.take().unwrap().wake();
    assert_eq!(woken.0.load(Ordering::SeqCst), 1);
    drop((waker, future));
    assert_eq!(Arc::strong_count(&woken), 1);
}

#[test]
fn a_waker_that_crosses_twice_is_the_same() {
    let (target, _count) = counted();
    let shared = Shared::new(target);
    shared.with_waker(|waker| {
        let first = lend(waker, |raw| raw);
        let second = lend(waker, |raw| raw);
        assert_eq!(first, second);
    });
    let inner = Rc::new(Cell::new(None));
    let mut innermost = keeping(&inner);
    let mut nested = crossing(async move {
        let answer = pin!(&mut innermost).await;
        Number(number(answer.value))
    });
    assert!(shared.with_waker(|waker| poll_once(&mut nested, waker)).is_pending());
    let kept = inner.take().unwrap();
    assert!(shared.with_waker(|waker| waker.will_wake(&kept)));
}

#[test]
fn a_panic_of_what_is_woken_is_not_the_wakers() {
    struct Bomb;
    impl Wake for Bomb {
        fn wake(&self) {
            panic!("on purpose");
        }
    }
    let shared = Shared::new(Bomb);
    shared.with_waker(|waker| {
        waker.wake_by_ref();
        let kept = waker.clone();
        kept.wake();
    });
}
