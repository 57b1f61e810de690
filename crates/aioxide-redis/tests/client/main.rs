//! The client on scripted servers, which say what a test wants.

mod calls;
mod cluster;
mod scripted;
mod sentinel;
