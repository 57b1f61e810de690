//! The ring itself: opened, filled, entered, emptied.
//!
//! # Invariants
//! - What is pushed points into memory that stays until the entry's final completion: the operations'
//!   own (`entry.rs`).
//! - The ring is closed before its provided buffers are unmapped: the fields are dropped in order.

#![expect(unsafe_code, reason = "what the kernel reads and writes is outside of the compiler's sight")]

use std::io;
use std::time::Duration;

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, squeue};
use rustix::io::Errno;

use super::buffers::BufferRing;
use crate::choice::Options;

/// A ring with its provided buffers. Belongs to the thread that enables it.
pub(super) struct Ring {
    ring: IoUring,
    pub(super) buffers: BufferRing,
    is_enabled: bool,
}

impl Ring {
    pub(super) fn open(options: &Options) -> io::Result<Ring> {
        let ring = IoUring::builder()
            // One thread enters; completions wait for it, flagged in memory, instead of interrupting it.
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            // Until the thread that waits first is known.
            .setup_r_disabled()
            // One bad entry does not hold up the rest.
            .setup_submit_all()
            .setup_clamp()
            .setup_cqsize(options.completion_entries)
            .build(options.submission_entries)
            .map_err(explain)?;
        let buffers = BufferRing::register(&ring.submitter(), options.receive_blocks).map_err(explain)?;
        check_enter(&ring).map_err(explain)?;
        Ok(Ring { ring, buffers, is_enabled: false })
    }

    /// From now on this thread alone enters.
    pub(super) fn enable(&mut self) -> io::Result<()> {
        if !self.is_enabled {
            self.ring.submitter().register_enable_rings()?;
            self.is_enabled = true;
        }
        Ok(())
    }

    pub(super) fn is_enabled(&self) -> bool {
        self.is_enabled
    }

    /// Queues an entry; submits the ones before it if there is no room.
    pub(super) fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        loop {
            // SAFETY: the entry's memory belongs to its operation, which stays until its final
            // completion (first invariant).
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return Ok(());
            }
            self.ring.submitter().submit()?;
        }
    }

    /// Submits, and sleeps until something happens.
    pub(super) fn sleep(&self, timeout: Option<Duration>) -> io::Result<()> {
        let submitter = self.ring.submitter();
        // A duration beyond what the kernel can count is for ever.
        let timeout = timeout.filter(|duration| i64::try_from(duration.as_secs()).is_ok());
        match timeout {
            None => submitter.submit_and_wait(1)?,
            Some(duration) => {
                let duration = Timespec::from(duration);
                submitter.submit_with_args(1, &SubmitArgs::new().timespec(&duration))?
            }
        };
        Ok(())
    }

    /// Submits and runs deferred work without sleeping; nothing to do costs no syscall.
    pub(super) fn look(&mut self) -> io::Result<()> {
        let (submitter, submissions, _) = self.ring.split();
        if submissions.is_empty() && !submissions.taskrun() && !submissions.cq_overflow() {
            return Ok(());
        }
        let (count, flags) = (submissions.len() as u32, EnterFlags::GETEVENTS.bits());
        // SAFETY: no argument; the entries were pushed by `push`.
        unsafe { submitter.enter::<()>(count, 0, flags, None) }?;
        Ok(())
    }

    /// Takes one completion out of the queue.
    pub(super) fn next_entry(&mut self) -> Option<cqueue::Entry> {
        self.ring.completion().next()
    }

    /// Whether completions are in the queue.
    pub(super) fn has_completions(&mut self) -> bool {
        !self.ring.completion().is_empty()
    }

    /// Whether completions that found the queue full wait in the kernel's list.
    pub(super) fn has_overflowed(&mut self) -> bool {
        self.ring.submission().cq_overflow()
    }

    /// Whether there are completions, or work that only waits for us to enter.
    pub(super) fn is_ready(&self) -> bool {
        // SAFETY: no other view of this queue exists: the others live within methods on `&mut self`.
        let completions = unsafe { self.ring.completion_shared() };
        if !completions.is_empty() {
            return true;
        }
        // SAFETY: as above.
        let submissions = unsafe { self.ring.submission_shared() };
        submissions.taskrun() || submissions.cq_overflow()
    }
}

/// A sandbox may allow to set a ring up and not to enter it. The answer to a ring that is not yet enabled is
/// EBADFD (io_uring_enter(2)); any other comes from somebody who denies the call.
fn check_enter(ring: &IoUring) -> io::Result<()> {
    // SAFETY: no argument, nothing to submit.
    match unsafe { ring.submitter().enter::<()>(0, 0, 0, None) } {
        Err(error) if error.raw_os_error() != Some(Errno::BADFD.raw_os_error()) => Err(error),
        _ => Ok(()),
    }
}

/// Says why the kernel refuses, for [`Driver::reason`](crate::Driver::reason).
fn explain(error: io::Error) -> io::Error {
    let reason = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::PERM | Errno::ACCESS) => "io_uring denied",
        Some(Errno::NOSYS) => "this kernel has no io_uring",
        Some(Errno::INVAL) => "io_uring needs Linux 6.1 or newer",
        _ => "io_uring cannot be set up",
    };
    io::Error::new(error.kind(), format!("{reason}: {error}"))
}
