//! Futures without their type: made for the other side, and taken from it.
#![expect(unsafe_code, reason = "data behind a vtable is cast back to what it was made of")]

use std::any::Any;
use std::ffi::c_void;
use std::future::Future;
use std::marker::PhantomData;
use std::mem::{ManuallyDrop, needs_drop};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::ptr::{self, NonNull};
use std::task::{Context, Poll};

use crate::memory::{MEMORY, Memory};
use crate::{FutureVtable, RawFuture, RawWaker, Status, waker};

/// What a panic carries.
pub type Payload = Box<dyn Any + Send>;

/// How a future answered at last.
#[derive(Clone, Copy, Debug)]
pub struct RawAnswer {
    /// Not [`Status::PENDING`].
    pub status: Status,
    /// What that status says.
    pub value: *mut c_void,
}

/// How outputs of a type cross.
///
/// # Safety
/// Where [`UNDER_ONE_LOCK`](Self::UNDER_ONE_LOCK) is true, futures are [erased](erase), polled and dropped by who holds a
/// lock, the same one for all that are erased in this library.
pub unsafe trait Answers<T> {
    /// Whether the memory of futures is used again, which is for one thread at a time.
    const UNDER_ONE_LOCK: bool;

    /// Gives an output away.
    fn answer(output: T) -> RawAnswer;

    /// Answers for a future that panicked.
    fn panicked(payload: Payload) -> RawAnswer;
}

/// Makes a future of the other side's of one, whose output crosses as `A` says.
pub fn erase<A, F>(future: F) -> RawFuture
where
    F: Future + 'static,
    A: Answers<F::Output> + 'static,
{
    RawFuture { data: Typed::<A, F>::place(future).as_ptr().cast(), vtable: &Typed::<A, F>::VTABLE }
}

/// The functions for one type of future.
struct Typed<A, F>(PhantomData<(A, F)>);

impl<A, F> Typed<A, F>
where
    F: Future + 'static,
    A: Answers<F::Output> + 'static,
{
    const VTABLE: FutureVtable = FutureVtable { poll: Self::poll, drop: Self::drop };

    /// Whether its memory is used again.
    const IS_KEPT: bool = A::UNDER_ONE_LOCK && Memory::fits::<F>();

    /// Puts a future where it stays.
    #[inline(always)]
    fn place(future: F) -> NonNull<F> {
        if Self::IS_KEPT {
            // SAFETY: the caller holds the lock, as who implements `Answers` promises.
            let place = unsafe { MEMORY.take() }.cast::<F>();
            // SAFETY: memory that nobody else has, in which the future fits.
            unsafe { place.write(future) };
            place
        } else {
            NonNull::from(Box::leak(Box::new(future)))
        }
    }

    unsafe extern "C" fn poll(data: *mut c_void, waker: *const RawWaker, value: *mut *mut c_void) -> Status {
        // SAFETY: `place` made the data; the other side lets one thread at a time have it.
        let future = unsafe { &mut *data.cast::<F>() };
        // SAFETY: it stays in its place until it is dropped.
        let future = unsafe { Pin::new_unchecked(future) };
        let poll = || {
            // SAFETY: the waker is lent for this call.
            let waker = unsafe { waker::borrow(waker) };
            future.poll(&mut Context::from_waker(&waker))
        };
        let polled = match catch_unwind(AssertUnwindSafe(poll)) {
            Ok(Poll::Pending) => return Status::PENDING,
            Ok(Poll::Ready(output)) => Ok(output),
            Err(payload) => Err(payload),
        };
        // Before its answer: what is dropped may run code that finds no exception set.
        // SAFETY: this is its thread, and it is not touched any more.
        unsafe { Self::drop(data) };
        let answered = polled.and_then(|output| catch_unwind(AssertUnwindSafe(|| A::answer(output))));
        let answer = answered.unwrap_or_else(A::panicked);
        // SAFETY: the other side has a place for the value.
        unsafe { value.write(answer.value) };
        answer.status
    }

    unsafe extern "C" fn drop(data: *mut c_void) {
        let place = data.cast::<F>();
        if needs_drop::<F>() {
            // SAFETY: `place` made the data; it is dropped once.
            let drop = || unsafe { place.drop_in_place() };
            // The panic hook has told of a panic, which concerns nobody else.
            let _ = catch_unwind(AssertUnwindSafe(drop));
        }
        if Self::IS_KEPT {
            // SAFETY: a place is not null.
            let block = unsafe { NonNull::new_unchecked(data) };
            // SAFETY: it came from `take`, and whoever drops it holds the lock.
            unsafe { MEMORY.give_back(block) };
        } else {
            // SAFETY: a box's memory, whose value was dropped.
            drop(unsafe { Box::from_raw(place.cast::<ManuallyDrop<F>>()) });
        }
    }
}

/// A future of the other side. It is neither `Send` nor `Sync`.
#[derive(Debug)]
pub struct Erased {
    /// Its data is null once it is over.
    raw: RawFuture,
}

impl Erased {
    /// Takes over a future.
    ///
    /// # Safety
    /// It is one by the crate's contract, and nobody else has it.
    #[must_use]
    pub const unsafe fn from_raw(raw: RawFuture) -> Self {
        Self { raw }
    }
}

impl Future for Erased {
    type Output = RawAnswer;

    /// # Panics
    /// Where it is over.
    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<RawAnswer> {
        let RawFuture { data, vtable } = self.raw;
        assert!(!data.is_null(), "a future is polled that is over");
        let mut value = ptr::null_mut();
        // SAFETY: a vtable lives until the process ends.
        let poll = unsafe { (*vtable).poll };
        let status = waker::lend(context.waker(), |waker| {
            // SAFETY: the future is ours, this is its only thread, and the waker is lent for the call.
            unsafe { poll(data, waker, &raw mut value) }
        });
        if status == Status::PENDING {
            return Poll::Pending;
        }
        self.raw.data = ptr::null_mut();
        Poll::Ready(RawAnswer { status, value })
    }
}

impl Drop for Erased {
    fn drop(&mut self) {
        let RawFuture { data, vtable } = self.raw;
        if data.is_null() {
            return;
        }
        // SAFETY: a vtable lives until the process ends.
        let drop = unsafe { (*vtable).drop };
        // SAFETY: the future is ours, on its only thread.
        unsafe { drop(data) }
    }
}
