//! The synchronisation primitives that [`Inbox`](crate::Inbox) is made of: std's, or loom's when the
//! model checker runs it (`RUSTFLAGS="--cfg loom"`).

#[cfg(not(loom))]
pub(crate) use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

#[cfg(loom)]
pub(crate) use {
    loom::sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    std::sync::PoisonError,
};
