//! The runtime as its users and its hosts see it.
#![expect(clippy::disallowed_methods, reason = "the tests need threads that are not the runtime's")]

mod examples;
mod net;
mod operations;
mod support;
mod tasks;
mod time;
mod watch;
