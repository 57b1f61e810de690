//! A completion-shaped IO driver: operations go in, completions come out.
//!
//! [`Driver`] hides two kernels' ways behind one contract: io_uring where the kernel allows it, epoll
//! elsewhere. It knows file descriptors, buffers and tokens. It knows no futures, no callbacks and
//! no clock: those belong to whoever hosts it.
//!
//! # The contract
//! Each clause has a test of its number in `tests/contract/`, run on every backend.
//!
//! 1. The driver owns an op's buffer until the op's final completion hands it back. An op that was
//!    cancelled or failed hands nothing back: its buffer is freed.
//! 2. Every op has exactly one final completion, cancelled or not; a repeating op (accept,
//!    `ReceiveRepeatedly`, `WaitReadable { repeat: true }`, …) reports with `more == true` before it.
//!    An op that `submit` answered at once (`Submitted::Done`) has no completion.
//! 3. `wait` may return early and empty; an interrupting signal (EINTR) is no error and returns early,
//!    so that the host can look at it.
//! 4. The caller does not reuse a token while its op is in flight. Nor does it keep several receives,
//!    or several sends, in flight on one socket if their order matters.
//! 5. A wake before `wait` is not lost; many wakes cost one.
//! 6. Dropping the driver returns only when the kernel has let go of every buffer.
//! 7. Only one thread at a time waits, and it enters the kernel's queue alone; a driver may be opened
//!    on one thread and waited on by another, also later in its life. Operations in flight move along.
//!    A forked child only drops its parent's driver.
//! 8. An op's descriptor stays open until its final completion arrived or `cancel` for it returned.
//!    After `cancel` the descriptor may be closed at once: no op reaches a reused number.
//! 9. Readiness repeats while it lasts (level-triggered): a repeating wait reports at least once per
//!    `wait` for as long as the descriptor stays ready and never more than once per `wait`.
//! 10. Exhausted provided buffers and a full completion queue delay completions, they lose none.

pub mod address;
mod attempt;
mod buffer;
mod choice;
mod completion;
mod datagrams;
mod driver;
mod epoll;
mod op;
#[cfg(feature = "testing")]
mod scripted;
mod slots;
pub mod sys;
mod uring;
mod wake;

pub use buffer::Buffer;
pub use choice::{Backend, Choice, Options};
pub use completion::{Completion, Outcome};
pub use datagrams::Datagrams;
pub use driver::{Driver, Statistics, Submitted};
pub use op::{Op, Token};
pub use rustix::net::SocketAddrAny;
#[cfg(feature = "testing")]
pub use scripted::Script;
pub use wake::Waker;
