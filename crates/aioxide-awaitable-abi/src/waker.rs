//! Wakers as both sides know them.
//!
//! A raw waker is a pointer to an object of whoever made it. [`borrow`] makes a [`Waker`] of one, whose data is that
//! very pointer, so that cloning it costs what the other side's clone costs. [`lend`] is the way back: it passes such a
//! pointer on as it is, and puts any other waker behind a vtable of this side.
//!
//! [`Shared`] is an object to wake by, and [`Lazy`] one that becomes shared when it is first cloned: a future that is
//! ready at once needs no waker, and costs no allocation for it.
//!
//! # Invariants
//! - The functions of one vtable are given pointers to objects of one type only, made with that vtable.
//! - A pointer is made of a reference to the whole object, never of one to its header.
#![expect(unsafe_code, reason = "an object behind a vtable is cast back to what it was made of")]

use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::{Arc, OnceLock};
use std::task::{RawWakerVTable, Waker};

use crate::{RawWaker, WakerVtable};

/// A waker of the other side as one of Rust's, not to be dropped: it is lent.
///
/// # Safety
/// The pointer is a waker by the crate's contract while the result lives.
#[must_use]
pub unsafe fn borrow(waker: *const RawWaker) -> ManuallyDrop<Waker> {
    // SAFETY: the functions of the vtable take such pointers.
    ManuallyDrop::new(unsafe { Waker::new(waker.cast(), &FOREIGN) })
}

/// The functions of a Rust waker whose data is a [`RawWaker`].
static FOREIGN: RawWakerVTable =
    RawWakerVTable::new(foreign_clone, foreign_wake, foreign_wake_by_ref, foreign_drop);

/// What can be done with a raw waker.
///
/// # Safety
/// It is a waker by the crate's contract.
unsafe fn vtable(waker: *const ()) -> &'static WakerVtable {
    // SAFETY: as the caller promises.
    let waker = unsafe { &*waker.cast::<RawWaker>() };
    // SAFETY: a vtable lives until the process ends.
    unsafe { &*waker.vtable }
}

unsafe fn foreign_clone(waker: *const ()) -> std::task::RawWaker {
    // SAFETY: Rust gives the data of the waker, which is alive.
    let vtable = unsafe { vtable(waker) };
    // SAFETY: as above.
    let clone = unsafe { (vtable.clone)(waker.cast()) };
    std::task::RawWaker::new(clone.cast(), &FOREIGN)
}

unsafe fn foreign_wake(waker: *const ()) {
    // SAFETY: Rust gives the data of the waker, which is alive.
    let vtable = unsafe { vtable(waker) };
    // SAFETY: as above; the waker is owned, and given up.
    unsafe { (vtable.wake)(waker.cast()) }
}

unsafe fn foreign_wake_by_ref(waker: *const ()) {
    // SAFETY: Rust gives the data of the waker, which is alive.
    let vtable = unsafe { vtable(waker) };
    // SAFETY: as above.
    unsafe { (vtable.wake_by_ref)(waker.cast()) }
}

unsafe fn foreign_drop(waker: *const ()) {
    // SAFETY: Rust gives the data of the waker, which is alive.
    let vtable = unsafe { vtable(waker) };
    // SAFETY: as above; the waker is owned, and given up.
    unsafe { (vtable.drop)(waker.cast()) }
}

/// Lends a waker to the other side for the length of a call.
pub fn lend<R>(waker: &Waker, call: impl FnOnce(*const RawWaker) -> R) -> R {
    if ptr::eq(waker.vtable(), &raw const FOREIGN) {
        return call(waker.data().cast());
    }
    let lent = Lazy::new(waker.clone());
    call(lent.as_raw())
}

/// Something that can be woken.
pub trait Wake: Send + Sync + 'static {
    /// Wakes it. A panic is lost.
    fn wake(&self);
}

impl Wake for Waker {
    fn wake(&self) {
        self.wake_by_ref();
    }
}

/// Something to wake, and how many wakers it has.
pub struct Shared<W> {
    object: Arc<SharedObject<W>>,
}

#[repr(C)]
struct SharedObject<W> {
    header: RawWaker,
    target: W,
}

// SAFETY: the header points to a vtable, which never changes.
unsafe impl<W: Send> Send for SharedObject<W> {}
// SAFETY: as above.
unsafe impl<W: Sync> Sync for SharedObject<W> {}

impl<W: Wake> Shared<W> {
    /// Puts it where wakers find it.
    pub fn new(target: W) -> Self {
        let header = RawWaker { vtable: &Owned::<W>::VTABLE };
        Self { object: Arc::new(SharedObject { header, target }) }
    }

    /// Calls `visit` with a waker.
    pub fn with_waker<R>(&self, visit: impl FnOnce(&Waker) -> R) -> R {
        // SAFETY: the object lives as long as `self`, and was made with the vtable of its type.
        let waker = unsafe { borrow(Arc::as_ptr(&self.object).cast()) };
        visit(&waker)
    }

    fn clone_raw(&self) -> *const RawWaker {
        Arc::into_raw(Arc::clone(&self.object)).cast()
    }
}

impl<W> Deref for Shared<W> {
    type Target = W;
    fn deref(&self) -> &W {
        &self.object.target
    }
}

/// The functions of [`SharedObject`].
struct Owned<W>(PhantomData<W>);

impl<W: Wake> Owned<W> {
    const VTABLE: WakerVtable = WakerVtable {
        clone: Self::clone,
        wake: Self::wake,
        wake_by_ref: Self::wake_by_ref,
        drop: Self::drop,
    };

    unsafe extern "C" fn clone(waker: *const RawWaker) -> *const RawWaker {
        // SAFETY: with this vtable it is the pointer of such an `Arc`, which the caller has a share of.
        unsafe { Arc::increment_strong_count(waker.cast::<SharedObject<W>>()) };
        waker
    }

    unsafe extern "C" fn wake(waker: *const RawWaker) {
        // SAFETY: as in `clone`.
        unsafe { Self::wake_by_ref(waker) };
        // SAFETY: as above; the caller gives its share up.
        unsafe { Self::drop(waker) };
    }

    unsafe extern "C" fn wake_by_ref(waker: *const RawWaker) {
        // SAFETY: as in `clone`.
        let object = unsafe { &*waker.cast::<SharedObject<W>>() };
        wake_quietly(&object.target);
    }

    unsafe extern "C" fn drop(waker: *const RawWaker) {
        // SAFETY: as in `clone`; the caller gives its share up.
        let object = unsafe { Arc::from_raw(waker.cast::<SharedObject<W>>()) };
        // The panic hook has told of a panic.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(object)));
    }
}

fn wake_quietly(target: &impl Wake) {
    // The panic hook has told of a panic.
    let _ = catch_unwind(AssertUnwindSafe(|| target.wake()));
}

/// Something to wake that becomes [`Shared`] when somebody keeps a waker of it or uses one. While it is lent it stays
/// where it is.
#[repr(C)]
pub struct Lazy<W> {
    header: RawWaker,
    shared: OnceLock<Shared<W>>,
    /// What will be shared. Touched by who initialises `shared`, or has all of this for itself.
    target: UnsafeCell<Option<W>>,
}

// SAFETY: the header points to a vtable, which never changes.
unsafe impl<W: Send> Send for Lazy<W> {}
// SAFETY: as above; one thread at a time touches the target, see there.
unsafe impl<W: Send + Sync> Sync for Lazy<W> {}

impl<W: Wake> Lazy<W> {
    /// Keeps it here for the time being.
    pub const fn new(target: W) -> Self {
        let header = RawWaker { vtable: &Lent::<W>::VTABLE };
        Self { header, shared: OnceLock::new(), target: UnsafeCell::new(Some(target)) }
    }

    /// Calls `visit` with a waker: one that those who kept an earlier one know as the same.
    pub fn with_waker<R>(&self, visit: impl FnOnce(&Waker) -> R) -> R {
        if let Some(shared) = self.shared.get() {
            return shared.with_waker(visit);
        }
        // SAFETY: it lives as long as `self`, and was made with the vtable of its type. What Rust drops is a clone.
        let waker = unsafe { borrow(self.as_raw()) };
        visit(&waker)
    }

    /// What is woken; `None` once it was taken.
    #[inline]
    pub fn get(&mut self) -> Option<&W> {
        self.shared.get().map(|shared| &**shared).or(self.target.get_mut().as_ref())
    }

    /// What will be woken, if it is not shared.
    #[inline]
    pub fn get_unshared(&mut self) -> Option<&mut W> {
        self.target.get_mut().as_mut()
    }

    /// What is woken, if there is no waker of it; there will be none either before one is lent again.
    pub fn get_unheld(&mut self) -> Option<&W> {
        match self.shared.get() {
            Some(shared) => (Arc::strong_count(&shared.object) == 1).then_some(&**shared),
            None => self.target.get_mut().as_ref(),
        }
    }

    /// Takes what is woken, if it was not shared; no waker of it may be made after that.
    #[inline]
    pub fn take_unshared(&mut self) -> Option<W> {
        self.target.get_mut().take()
    }

    /// Takes what is shared, if it was; no waker of it may be made after that.
    pub fn take_shared(&mut self) -> Option<Shared<W>> {
        self.shared.take()
    }

    const fn as_raw(&self) -> *const RawWaker {
        ptr::from_ref(self).cast()
    }

    fn shared(&self) -> &Shared<W> {
        self.shared.get_or_init(|| {
            // SAFETY: one thread at a time initialises, and nobody has all of this for itself while it is lent.
            let target = unsafe { &mut *self.target.get() };
            Shared::new(target.take().expect("it is taken once, by who shares it"))
        })
    }
}

/// The functions of [`Lazy`], which is only ever lent.
struct Lent<W>(PhantomData<W>);

impl<W: Wake> Lent<W> {
    const VTABLE: WakerVtable = WakerVtable {
        clone: Self::clone,
        wake: Self::wake_by_ref,
        wake_by_ref: Self::wake_by_ref,
        drop: Self::drop,
    };

    unsafe extern "C" fn clone(waker: *const RawWaker) -> *const RawWaker {
        // SAFETY: with this vtable it is such an object, lent for as long as the caller has it.
        let lazy = unsafe { &*waker.cast::<Lazy<W>>() };
        lazy.shared().clone_raw()
    }

    unsafe extern "C" fn wake_by_ref(waker: *const RawWaker) {
        // SAFETY: as in `clone`.
        let lazy = unsafe { &*waker.cast::<Lazy<W>>() };
        wake_quietly(&**lazy.shared());
    }

    unsafe extern "C" fn drop(_waker: *const RawWaker) {}
}
