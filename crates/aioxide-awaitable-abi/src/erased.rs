//! Futures without their type: made for the other side, and taken from it.
#![expect(unsafe_code, reason = "data behind a vtable is cast back to what it was made of")]

use std::any::Any;
use std::ffi::c_void;
use std::future::Future;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::ptr;
use std::task::{Context, Poll};

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
pub trait Answers<T> {
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
    RawFuture { data: Box::into_raw(Box::new(future)).cast(), vtable: &Typed::<A, F>::VTABLE }
}

/// The functions for one type of future.
struct Typed<A, F>(PhantomData<(A, F)>);

impl<A, F> Typed<A, F>
where
    F: Future + 'static,
    A: Answers<F::Output> + 'static,
{
    const VTABLE: FutureVtable = FutureVtable { poll: Self::poll, drop: Self::drop };

    unsafe extern "C" fn poll(data: *mut c_void, waker: *const RawWaker, value: *mut *mut c_void) -> Status {
        // SAFETY: `erase` made the data of a box of this type; the other side lets one thread at a time have it.
        let future = unsafe { &mut *data.cast::<F>() };
        // SAFETY: it stays in its box until it is dropped.
        let future = unsafe { Pin::new_unchecked(future) };
        let poll = || {
            // SAFETY: the waker is lent for this call.
            let waker = unsafe { waker::borrow(waker) };
            future.poll(&mut Context::from_waker(&waker)).map(A::answer)
        };
        let answer = match catch_unwind(AssertUnwindSafe(poll)) {
            Ok(Poll::Pending) => return Status::PENDING,
            Ok(Poll::Ready(answer)) => answer,
            Err(payload) => A::panicked(payload),
        };
        // SAFETY: the other side has a place for the value.
        unsafe { value.write(answer.value) };
        answer.status
    }

    unsafe extern "C" fn drop(data: *mut c_void) {
        // SAFETY: `erase` made the data of a box of this type; it is dropped once.
        let future = unsafe { Box::from_raw(data.cast::<F>()) };
        // The panic hook has told of a panic, which concerns nobody else.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(future)));
    }
}

/// A future of the other side. It is neither `Send` nor `Sync`.
#[derive(Debug)]
pub struct Erased {
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

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<RawAnswer> {
        let RawFuture { data, vtable } = self.raw;
        let mut value = ptr::null_mut();
        // SAFETY: a vtable lives until the process ends.
        let poll = unsafe { (*vtable).poll };
        let status = waker::lend(context.waker(), |waker| {
            // SAFETY: the future is ours, this is its only thread, and the waker is lent for the call.
            unsafe { poll(data, waker, &raw mut value) }
        });
        if status == Status::PENDING { Poll::Pending } else { Poll::Ready(RawAnswer { status, value }) }
    }
}

impl Drop for Erased {
    fn drop(&mut self) {
        // SAFETY: a vtable lives until the process ends.
        let drop = unsafe { (*self.raw.vtable).drop };
        // SAFETY: the future is ours, on its only thread.
        unsafe { drop(self.raw.data) }
    }
}
