//! Rust futures on one thread.
//!
//! A small asyncio for Rust: [`run`] a future, [`spawn`] more, [`sleep`], and talk to the [`net`]. Nothing
//! needs to be `Send`. Below it is a completion [driver](aioxide_driver); there is no unsafe code here.
//!
//! A [`Runtime`] is also steppable, so that another event loop can host it: the host asks how long it may
//! sleep, lets the driver wait, hands over what came and lets a batch of tasks run. The containers
//! that turns are made of ([`Queue`], [`Timers`], [`Inbox`]) are public for such hosts.
//!
//! ```
//! use std::time::Duration;
//!
//! aioxide_runtime::run(async {
//!     let slow = aioxide_runtime::spawn(async {
//!         aioxide_runtime::sleep(Duration::from_millis(2)).await;
//!         "slow"
//!     });
//!     let quick = aioxide_runtime::spawn(async { "quick" });
//!     assert_eq!(quick.await.ok(), Some("quick"));
//!     assert_eq!(slow.await.ok(), Some("slow"));
//! })?;
//! # Ok::<(), std::io::Error>(())
//! ```
#![forbid(unsafe_code)]

mod blocking;
mod handle;
mod inbox;
mod join;
pub mod net;
mod operation;
mod queue;
mod runtime;
mod slots;
mod sync;
mod tasks;
mod time;
mod timers;

pub use blocking::spawn_blocking;
pub use handle::Clock;
pub use inbox::Inbox;
pub use join::join_all;
pub use queue::Queue;
pub use runtime::{EnterGuard, Runtime, Statistics, run, spawn, spawn_named};
pub use slots::{host_token, is_host_token};
pub use tasks::{JoinError, JoinHandle};
pub use time::{Elapsed, Sleep, now, sleep, sleep_until, timeout, yield_now};
pub use timers::{Deadline, TimerKey, Timers};
