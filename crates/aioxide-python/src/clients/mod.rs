//! Native clients: what a client crate does, as Python objects. No protocol logic here.

pub mod redis;
