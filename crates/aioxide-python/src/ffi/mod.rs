//! Where this crate's `unsafe` lives: the C-API calls that PyO3 lacks or makes slow, each behind a
//! small safe function.
//!
//! # Invariants
//! Every function takes a `Python` token or a bound object, so the calling thread is attached; every
//! pointer given to the C API comes from a live `Py`/`Bound`, so it is valid for the call.

pub mod attribute;
pub mod bound_method;
pub mod buffer;
pub mod builtin;
pub mod byte_array;
pub mod bytes;
pub mod call;
pub mod collector;
pub mod context;
pub mod extension;
pub mod free_list;
pub mod gil_cell;
pub mod iteration;
pub mod memory;
pub mod method;
pub mod object_slots;
pub mod openssl;
pub mod references;
pub mod reuse;
pub mod snapshot;
pub mod stop_iteration;
pub mod task_callbacks;
pub mod weak_set;
