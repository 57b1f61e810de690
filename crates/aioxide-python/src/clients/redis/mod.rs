//! The Redis client's native half: [`connection`] is the menu; [`arguments`] turns Python's arguments into bytes,
//! [`receiver`] turns replies into Python objects, [`call`] is what a caller awaits, [`route`] tells which commands may
//! share a connection and [`settings`] reads the client's options.
//!
//! The Python half, `aioxide.redis`, knows redis-py: its commands, its exceptions and how its replies are shaped. Here
//! nothing is known of it but two callables that it hands over.

mod arguments;
pub mod call;
pub mod connection;
mod receiver;
pub mod route;
pub mod settings;
