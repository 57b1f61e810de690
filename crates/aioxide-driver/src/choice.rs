//! Which backend: asked for, or the best that this machine allows.

use std::ffi::OsStr;
use std::fmt;
use std::io;

/// Which backend to open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// io_uring where the kernel allows it, else epoll.
    #[default]
    Auto,
    /// io_uring, or fail.
    Uring,
    /// epoll.
    Epoll,
}

/// What to open, and how large.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Which backend.
    pub choice: Choice,
    /// Operations that io_uring takes in one batch, a power of two. More are submitted in several.
    pub submission_entries: u32,
    /// Answers that fit between two waits, a power of two. More are delayed (clause 10).
    pub completion_entries: u32,
    /// How many blocks of 4 KiB io_uring receives into, a power of two up to 2^15. More is slower:
    /// the memory falls out of the cache.
    pub receive_blocks: u16,
}

impl Options {
    /// The default sizes, with a choice.
    pub fn new(choice: Choice) -> Options {
        Options {
            choice,
            submission_entries: SUBMISSION_ENTRIES,
            completion_entries: COMPLETION_ENTRIES,
            receive_blocks: RECEIVE_BLOCKS,
        }
    }

    /// The defaults, with the choice of the environment variable `AIOXIDE_DRIVER` (`auto`, `uring`
    /// or `epoll`). Another value is an error that names it.
    pub fn from_env() -> io::Result<Options> {
        Options::from_value(std::env::var_os(VARIABLE).as_deref())
    }

    fn from_value(value: Option<&OsStr>) -> io::Result<Options> {
        let Some(value) = value else { return Ok(Options::default()) };
        let choice = match value.to_str() {
            Some("" | "auto") => Choice::Auto,
            Some("uring") => Choice::Uring,
            Some("epoll") => Choice::Epoll,
            _ => {
                let message = format!("{VARIABLE}={value:?}: expected auto, uring or epoll");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
            }
        };
        Ok(Options::new(choice))
    }
}

impl Default for Options {
    fn default() -> Options {
        Options::new(Choice::Auto)
    }
}

/// The backend that a driver runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// io_uring(7).
    Uring,
    /// epoll(7).
    Epoll,
    /// A script; no kernel.
    Scripted,
}

impl fmt::Display for Backend {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Backend::Uring => "uring",
            Backend::Epoll => "epoll",
            Backend::Scripted => "scripted",
        })
    }
}

const VARIABLE: &str = "AIOXIDE_DRIVER";
const SUBMISSION_ENTRIES: u32 = 256;
const COMPLETION_ENTRIES: u32 = 4096;
const RECEIVE_BLOCKS: u16 = 256;

#[cfg(all(test, not(loom)))]
mod tests {
    use std::ffi::OsStr;
    use std::io;

    use super::{Choice, Options};

    fn choice(value: &str) -> io::Result<Choice> {
        Options::from_value(Some(OsStr::new(value))).map(|options| options.choice)
    }

    #[test]
    fn the_environment_chooses() {
        assert_eq!(choice("uring").unwrap(), Choice::Uring);
        assert_eq!(choice("epoll").unwrap(), Choice::Epoll);
        assert_eq!(choice("auto").unwrap(), Choice::Auto);
        assert_eq!(choice("").unwrap(), Choice::Auto);
        assert_eq!(Options::from_value(None).unwrap(), Options::default());
    }

    #[test]
    fn a_value_that_is_no_choice_is_named() {
        let error = choice("kqueue").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains("kqueue"), "{error}");
    }
}
