//! Which commands may share a connection.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyTuple};

/// Where a command goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// With everybody else's.
    Shared,
    /// The server answers when something happens, so nobody else's commands may follow it on its connection.
    Blocking,
    /// It changes what the connection is, or what follows it.
    Own,
}

/// The longest name that is not `Shared`, bytes.
const LONGEST: usize = 16;

/// The route of a command given as redis-py gives it: the first argument may hold several words.
pub fn route(arguments: &Bound<'_, PyTuple>) -> Route {
    let Ok(first) = arguments.get_borrowed_item(0) else { return Route::Shared };
    if let Ok(name) = first.cast::<PyString>() {
        return name.to_str().map_or(Route::Shared, |name| of_name(name.as_bytes(), arguments));
    }
    first.cast::<PyBytes>().map_or(Route::Shared, |name| of_name(name.as_bytes(), arguments))
}

fn of_name(name: &[u8], arguments: &Bound<'_, PyTuple>) -> Route {
    let word = name.split(|&byte| byte == b' ').next().unwrap_or_default();
    if word.len() > LONGEST {
        return Route::Shared;
    }
    let mut upper = [0; LONGEST];
    let upper = &mut upper[..word.len()];
    upper.copy_from_slice(word);
    upper.make_ascii_uppercase();
    match &*upper {
        b"BLPOP" | b"BRPOP" | b"BLMOVE" | b"BLMOVEM" | b"BRPOPLPUSH" | b"BLMPOP" | b"BZPOPMIN"
        | b"BZPOPMAX" | b"BZMPOP" | b"WAIT" | b"WAITAOF" => Route::Blocking,
        b"XREAD" | b"XREADGROUP" if blocks(arguments) => Route::Blocking,
        b"SUBSCRIBE" | b"UNSUBSCRIBE" | b"PSUBSCRIBE" | b"PUNSUBSCRIBE" | b"SSUBSCRIBE" | b"SUNSUBSCRIBE"
        | b"MONITOR" | b"SYNC" | b"PSYNC" | b"MULTI" | b"EXEC" | b"DISCARD" | b"WATCH" | b"UNWATCH"
        | b"HELLO" | b"RESET" | b"QUIT" | b"AUTH" | b"SELECT" | b"CLIENT" | b"READONLY" | b"READWRITE"
        | b"ASKING" | b"HIMPORT" | b"SHUTDOWN" | b"FAILOVER" => Route::Own,
        _ => Route::Shared,
    }
}

/// Whether BLOCK is among the options, which come before STREAMS.
fn blocks(arguments: &Bound<'_, PyTuple>) -> bool {
    for argument in arguments.iter_borrowed().skip(1) {
        let is = |word: &str| {
            if let Ok(text) = argument.cast::<PyString>() {
                return text.to_str().is_ok_and(|text| text.eq_ignore_ascii_case(word));
            }
            argument
                .cast::<PyBytes>()
                .is_ok_and(|bytes| bytes.as_bytes().eq_ignore_ascii_case(word.as_bytes()))
        };
        if is("BLOCK") {
            return true;
        }
        if is("STREAMS") {
            return false;
        }
    }
    false
}

/// Return where a command goes: "shared", "blocking" or "own".
#[pyfunction]
pub fn _redis_route(arguments: &Bound<'_, PyTuple>) -> &'static str {
    match route(arguments) {
        Route::Shared => "shared",
        Route::Blocking => "blocking",
        Route::Own => "own",
    }
}
