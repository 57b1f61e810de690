//! The protocol, through its public API.

mod conversions;
mod decoding;
mod feeding;
mod limits;
mod properties;
