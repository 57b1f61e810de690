//! Conversions between Rust's and Python's values.

pub mod address;
