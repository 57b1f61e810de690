//! The loop's own state, guarded by thread instead of by lock.
//!
//! # Invariants
//! - While the loop runs, only the thread that runs it opens the cell. While it does not run, any one
//!   thread may, one at a time.
//! - The cell is never opened twice at once: who holds `&mut T` calls no Python and drops no Python
//!   object, because both can run code that opens the cell again. A second opening is refused.
//! - A value dropped by a foreign thread while the loop runs is a bug of ours; the value is then leaked.
//! - A cell copied by fork(2) never opens: its value shares epoll instances or rings with the parent.
#![expect(unsafe_code, reason = "hands out &mut T from & after its own thread and re-entrancy checks")]

use std::any::Any;
use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
use pyo3::ffi;
use pyo3::pyfunction;

/// Why a cell was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Another thread runs the loop, or has the cell open at this moment.
    OtherThread,
    /// This thread has the cell open already.
    AlreadyOpen,
    /// The cell is a copy of one in the parent process.
    Forked,
}

/// How many forks lie between this process and the one that loaded us: cheaper to ask than getpid(2).
static FORKS: AtomicU32 = AtomicU32::new(0);

/// Called in a forked child: the cells made so far belong to the parent.
#[pyfunction]
pub fn count_fork() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// A value that one thread at a time may touch.
pub struct LoopCell<T> {
    value: UnsafeCell<T>,
    /// The thread that runs the loop, or [`NOBODY`].
    owner: AtomicUsize,
    /// Open by the owner. Touched by the owner alone.
    open: AtomicBool,
    /// Open by a thread that visits a loop which does not run.
    visited: AtomicBool,
    /// [`FORKS`] when it was made.
    generation: u32,
}

// SAFETY: `with` gives access to one thread at a time, ordered by the `visited` flag and the `owner`
// word; T itself is moved between threads only while nobody has it open.
unsafe impl<T> Send for LoopCell<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for LoopCell<T> {}

const NOBODY: usize = 0;

/// A number that differs between the threads that are attached to the interpreter: the address of the thread's control
/// block, which is one instruction away.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[inline(always)]
fn this_thread() -> usize {
    let pointer: usize;
    // SAFETY: the thread pointer points to a block whose first word is its own address (System V ABI of x86-64,
    // "Thread-Local Storage"), for as long as the thread lives.
    unsafe {
        std::arch::asm!("mov {}, fs:0", out(reg) pointer, options(pure, readonly, nostack, preserves_flags));
    }
    pointer
}

/// A number that differs between the threads that are attached to the interpreter: the address of the thread's
/// state. Reading it is cheaper than a thread-local variable of a shared library.
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn this_thread() -> usize {
    // SAFETY: the loop is used by attached threads only: each way to it comes with a Python object.
    unsafe { ffi::PyThreadState_Get() as usize }
}

impl<T> LoopCell<T> {
    /// Put a value into a cell of a loop that does not run.
    pub fn new(value: T) -> Self {
        Self {
            value: UnsafeCell::new(value),
            owner: AtomicUsize::new(NOBODY),
            open: AtomicBool::new(false),
            visited: AtomicBool::new(false),
            generation: FORKS.load(Ordering::Relaxed),
        }
    }

    /// Whether this thread runs the loop.
    pub fn is_owner(&self) -> bool {
        self.owner.load(Ordering::Relaxed) == this_thread() && !self.is_forked()
    }

    /// Whether any thread runs the loop.
    pub fn has_owner(&self) -> bool {
        self.owner.load(Ordering::Relaxed) != NOBODY && !self.is_forked()
    }

    /// Whether some other thread runs the loop.
    pub fn is_foreign(&self) -> bool {
        let owner = self.owner.load(Ordering::Relaxed);
        owner != NOBODY && owner != this_thread() && !self.is_forked()
    }

    /// Whether this is the copy of a cell that belongs to the parent process.
    pub fn is_forked(&self) -> bool {
        self.generation != FORKS.load(Ordering::Relaxed)
    }

    /// The value, of which nobody else can know any more.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    /// Make this thread the one that runs the loop, until the guard is dropped; `None` where there is one
    /// already.
    pub fn begin_running(&self) -> Option<Running<'_, T>> {
        if self.visited.swap(true, Ordering::SeqCst) {
            return None;
        }
        let begun =
            self.owner.compare_exchange(NOBODY, this_thread(), Ordering::SeqCst, Ordering::SeqCst).is_ok();
        self.visited.store(false, Ordering::SeqCst);
        // Lazily: one that is made and dropped would say that nobody runs the loop.
        begun.then(|| Running { cell: self, of_this_thread: PhantomData })
    }

    /// Open the cell for `body`, which must neither call Python nor drop a Python object.
    pub fn with<R>(&self, body: impl FnOnce(&mut T) -> R) -> Result<R, Refused> {
        self.open().map(|mut opened| body(&mut opened))
    }

    /// Open the cell until the guard is dropped, with the same rules.
    #[inline(always)]
    pub fn open(&self) -> Result<Opened<'_, T>, Refused> {
        // The flag is released only when the guard drops. The owner's flag excludes the owner's own re-entry, `visited`
        // excludes other visitors, and an owner and a visitor exclude each other: `begin_running` holds `visited`
        // while it sets the owner, and a visitor looks at the owner again after it took `visited`.
        self.take_flag().map(|flag| Opened { value: &self.value, _flag: flag, of_this_thread: PhantomData })
    }

    /// Take the flag of the owner or of a visitor, whichever this thread is.
    #[inline(always)]
    fn take_flag(&self) -> Result<Closing<'_>, Refused> {
        if self.is_forked() {
            return Err(Refused::Forked);
        }
        let owner = self.owner.load(Ordering::SeqCst);
        if owner == this_thread() {
            return self.open_by_owner();
        }
        self.take_flag_of_visitor(owner)
    }

    #[cold]
    fn take_flag_of_visitor(&self, owner: usize) -> Result<Closing<'_>, Refused> {
        if owner != NOBODY || self.visited.swap(true, Ordering::SeqCst) {
            return Err(Refused::OtherThread);
        }
        let guard = Closing { flag: &self.visited };
        if self.owner.load(Ordering::SeqCst) != NOBODY {
            return Err(Refused::OtherThread);
        }
        Ok(guard)
    }

    /// Take the owner's flag.
    #[inline]
    fn open_by_owner(&self) -> Result<Closing<'_>, Refused> {
        if self.open.load(Ordering::Relaxed) {
            return Err(Refused::AlreadyOpen);
        }
        self.open.store(true, Ordering::Relaxed);
        Ok(Closing { flag: &self.open })
    }
}

/// A value that only the thread that made it may touch, and only while it runs a loop or nobody does; in an object that
/// any thread may drop.
pub struct ThreadBound<T> {
    /// Dropped by [`LoopCell::release`] only; left to the process where that cannot be.
    value: ManuallyDrop<T>,
    /// The thread that made it.
    thread: usize,
}

// SAFETY: the value is reached through `LoopCell::bound` and `LoopCell::release` only, which give it to the thread that
// made it. (Another one may get the number of a thread that is gone, and with that what nobody else can touch any more.)
unsafe impl<T> Send for ThreadBound<T> {}
// SAFETY: as above; a shared reference gives no access at all.
unsafe impl<T> Sync for ThreadBound<T> {}

impl<T> ThreadBound<T> {
    /// Wrap a value, on the thread that may touch it.
    pub fn new(value: T) -> Self {
        Self { value: ManuallyDrop::new(value), thread: this_thread() }
    }

    /// The same value, which is moved and not looked at, as one of any kind.
    pub fn boxed(self) -> ThreadBound<Box<dyn Any>>
    where
        T: 'static,
    {
        let value: Box<dyn Any> = Box::new(ManuallyDrop::into_inner(self.value));
        ThreadBound { value: ManuallyDrop::new(value), thread: self.thread }
    }
}

impl<C> LoopCell<C> {
    /// The value, on its thread, while that runs the loop.
    pub fn bound<'a, T>(&self, value: &'a mut ThreadBound<T>) -> Option<&'a mut T> {
        if self.is_owner_of(value) { Some(&mut value.value) } else { None }
    }

    /// As [`LoopCell::bound`], to look at it.
    pub fn lent<'a, T>(&self, value: &'a ThreadBound<T>) -> Option<&'a T> {
        if self.is_owner_of(value) { Some(&value.value) } else { None }
    }

    /// Whether this is the thread of the value, and runs the loop.
    fn is_owner_of<T>(&self, value: &ThreadBound<T>) -> bool {
        let owner = self.owner.load(Ordering::Relaxed);
        owner == value.thread && owner == this_thread() && !self.is_forked()
    }

    /// Whether the thread of a value runs the loop.
    pub fn is_run_by_thread_of<T>(&self, value: &ThreadBound<T>) -> bool {
        self.owner.load(Ordering::SeqCst) == value.thread && !self.is_forked()
    }

    /// Take the value out on its thread, where that runs the loop or nobody does; it is given to `drop_it`. Else it
    /// comes back.
    pub fn release<T>(&self, value: ThreadBound<T>, drop_it: impl FnOnce(T)) -> Result<(), ThreadBound<T>> {
        if self.is_forked() || value.thread != this_thread() {
            return Err(value);
        }
        let is_owner = self.owner.load(Ordering::Relaxed) == value.thread;
        let running = if is_owner { None } else { self.begin_running() };
        if running.is_none() && !is_owner {
            return Err(value);
        }
        drop_it(ManuallyDrop::into_inner(value.value));
        drop(running);
        Ok(())
    }
}

/// Says that this thread runs the loop.
#[must_use]
pub struct Running<'a, T> {
    cell: &'a LoopCell<T>,
    /// Neither `Send` nor `Sync`: whoever has it is the owner.
    of_this_thread: PhantomData<*const ()>,
}

impl<T> Running<'_, T> {
    /// As [`LoopCell::open`], for the owner, who need not be asked which thread this is.
    #[inline(always)]
    pub fn open(&self) -> Result<Opened<'_, T>, Refused> {
        if self.cell.is_forked() {
            return Err(Refused::Forked);
        }
        // `self` stays on the thread that it was made on, which is the owner until it is dropped.
        let flag = self.cell.open_by_owner()?;
        Ok(Opened { value: &self.cell.value, _flag: flag, of_this_thread: PhantomData })
    }

    /// As [`LoopCell::with`].
    pub fn with<R>(&self, body: impl FnOnce(&mut T) -> R) -> Result<R, Refused> {
        self.open().map(|mut opened| body(&mut opened))
    }
}

impl<T> Drop for Running<'_, T> {
    fn drop(&mut self) {
        self.cell.owner.store(NOBODY, Ordering::SeqCst);
    }
}

/// An open cell.
pub struct Opened<'a, T> {
    value: &'a UnsafeCell<T>,
    _flag: Closing<'a>,
    /// Neither `Send` nor `Sync`: the flag is this thread's.
    of_this_thread: PhantomData<*const ()>,
}

impl<T> Deref for Opened<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: whoever has the flag has the value for itself, see `LoopCell::open`.
        unsafe { &*self.value.get() }
    }
}

impl<T> DerefMut for Opened<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above.
        unsafe { &mut *self.value.get() }
    }
}

/// Closes the cell, also when the body panics.
struct Closing<'a> {
    flag: &'a AtomicBool,
}

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.flag.store(false, Ordering::Release);
    }
}
