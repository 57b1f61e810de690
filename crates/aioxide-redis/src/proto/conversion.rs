//! From a reply to the Rust type that a caller asked for.
//!
//! RESP2 says less than RESP3: a map comes as a flat array, a double or a boolean as a string or an integer.
//! Conversions take either, so that a program need not know which protocol its connection speaks.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::{self, Display, Formatter};
use std::hash::{BuildHasher, Hash};

use super::error::ServerError;
use super::value::Value;

/// Why a reply is not what the caller asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ConversionError {
    /// The server replied with an error.
    Server(ServerError),
    /// It is something else.
    Mismatch {
        /// What was asked for.
        expected: &'static str,
        /// What the reply is.
        found: &'static str,
    },
    /// It is the right thing, but does not fit or is not spelt as it should be.
    Malformed {
        /// What was asked for.
        expected: &'static str,
    },
}

impl Display for ConversionError {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(error) => error.fmt(formatter),
            Self::Mismatch { expected, found } => {
                write!(formatter, "expected {expected}, the reply is of type {found}")
            }
            Self::Malformed { expected } => write!(formatter, "the reply makes no {expected}"),
        }
    }
}

impl std::error::Error for ConversionError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Server(error) => Some(error),
            _ => None,
        }
    }
}

/// What a reply can become.
///
/// There is no conversion to `u8`, so that `Vec<u8>` means bytes.
///
/// ```
/// use std::collections::HashMap;
///
/// use aioxide_redis::proto::{ConversionError, Value};
///
/// let text = |text: &str| Value::BulkString(text.into());
/// let flat = Value::Array(vec![text("a"), text("1"), text("b"), text("2")]);
/// let numbers: HashMap<String, u32> = flat.convert()?;
/// assert_eq!(numbers["b"], 2);
/// assert_eq!(Value::Null.convert::<Option<f64>>()?, None);
/// # Ok::<(), ConversionError>(())
/// ```
pub trait FromValue: Sized {
    /// Makes one of a reply.
    fn from_value(value: Value) -> Result<Self, ConversionError>;
}

impl Value {
    /// Makes whatever the caller asks for. An error of the server is an error, unless a [`Value`] or a
    /// `Result<_, ServerError>` is asked for.
    pub fn convert<T: FromValue>(self) -> Result<T, ConversionError> {
        T::from_value(self)
    }

    /// Takes attributes off, and errors out.
    fn plain(self) -> Result<Self, ConversionError> {
        match self {
            Self::Attributed(attributed) => attributed.reply.plain(),
            Self::Error(error) => Err(ConversionError::Server(error)),
            value => Ok(value),
        }
    }

    fn mismatch(&self, expected: &'static str) -> ConversionError {
        ConversionError::Mismatch { expected, found: self.type_name() }
    }
}

impl FromValue for Value {
    fn from_value(value: Value) -> Result<Self, ConversionError> {
        Ok(value)
    }
}

/// Whatever it is, as long as it is no error.
impl FromValue for () {
    fn from_value(value: Value) -> Result<Self, ConversionError> {
        value.plain().map(drop)
    }
}

/// An error among replies that are none, as a transaction may have.
impl<T: FromValue> FromValue for Result<T, ServerError> {
    fn from_value(value: Value) -> Result<Self, ConversionError> {
        match T::from_value(value) {
            Ok(value) => Ok(Ok(value)),
            Err(ConversionError::Server(error)) => Ok(Err(error)),
            Err(error) => Err(error),
        }
    }
}

/// Null is `None`.
impl<T: FromValue> FromValue for Option<T> {
    fn from_value(value: Value) -> Result<Self, ConversionError> {
        match value.plain()? {
            Value::Null => Ok(None),
            value => T::from_value(value).map(Some),
        }
    }
}

impl FromValue for bool {
    fn from_value(value: Value) -> Result<Self, ConversionError> {
        match value.plain()? {
            Value::Boolean(value) => Ok(value),
            Value::Integer(0) => Ok(false),
            Value::Integer(1) => Ok(true),
            // What `SET key value NX` says.
            Value::SimpleString(text) if text == &b"OK"[..] => Ok(true),
            Value::Null => Ok(false),
            value => Err(value.mismatch("a boolean")),
        }
    }
}

macro_rules! from_integers {
    ($($integer:ty)*) => {$(
        impl FromValue for $integer {
            fn from_value(value: Value) -> Result<Self, ConversionError> {
                const EXPECTED: &str = concat!("an integer of type ", stringify!($integer));
                let malformed = ConversionError::Malformed { expected: EXPECTED };
                match value.plain()? {
                    Value::Integer(value) => value.try_into().map_err(|_| malformed),
                    value => match value.as_bytes() {
                        Some(digits) => parse(digits).ok_or(malformed),
                        None => Err(value.mismatch(EXPECTED)),
                    },
                }
            }
        }
    )*};
}

// Without u8, see `FromValue`.
from_integers!(i8 i16 i32 i64 i128 isize u16 u32 u64 u128 usize);

impl FromValue for f64 {
    fn from_value(value: Value) -> Result<Self, ConversionError> {
        match value.plain()? {
            Value::Double(value) => Ok(value),
            #[expect(clippy::cast_precision_loss, reason = "a float was asked for")]
            Value::Integer(value) => Ok(value as Self),
            value => match value.as_bytes() {
                Some(digits) => parse(digits).ok_or(ConversionError::Malformed { expected: "a float" }),
                None => Err(value.mismatch("a float")),
            },
        }
    }
}

impl FromValue for f32 {
    fn from_value(value: Value) -> Result<Self, ConversionError> {
        #[expect(clippy::cast_possible_truncation, reason = "the shorter float was asked for")]
        f64::from_value(value).map(|value| value as Self)
    }
}

impl FromValue for Vec<u8> {
    fn from_value(value: Value) -> Result<Self, ConversionError> {
        match value.plain()? {
            Value::BulkString(bytes) => Ok(bytes),
            Value::SimpleString(text) => Ok(text.into_owned()),
            Value::VerbatimString { text, .. } => Ok(text),
            Value::BigNumber(digits) => Ok(digits.into_bytes()),
            Value::Integer(value) => Ok(value.to_string().into_bytes()),
            value => Err(value.mismatch("bytes")),
        }
    }
}

impl FromValue for String {
    fn from_value(value: Value) -> Result<Self, ConversionError> {
        Self::from_utf8(Vec::from_value(value)?)
            .map_err(|_| ConversionError::Malformed { expected: "text in UTF-8" })
    }
}

impl<T: FromValue> FromValue for Vec<T> {
    fn from_value(value: Value) -> Result<Self, ConversionError> {
        items(value, "an array")?.into_iter().map(T::from_value).collect()
    }
}

impl<T: FromValue + Eq + Hash, S: BuildHasher + Default> FromValue for HashSet<T, S> {
    fn from_value(value: Value) -> Result<Self, ConversionError> {
        items(value, "a set")?.into_iter().map(T::from_value).collect()
    }
}

impl<T: FromValue + Ord> FromValue for BTreeSet<T> {
    fn from_value(value: Value) -> Result<Self, ConversionError> {
        items(value, "a set")?.into_iter().map(T::from_value).collect()
    }
}

impl<K: FromValue + Eq + Hash, V: FromValue, S: BuildHasher + Default> FromValue for HashMap<K, V, S> {
    fn from_value(value: Value) -> Result<Self, ConversionError> {
        pairs(value)?.into_iter().map(pair).collect()
    }
}

impl<K: FromValue + Ord, V: FromValue> FromValue for BTreeMap<K, V> {
    fn from_value(value: Value) -> Result<Self, ConversionError> {
        pairs(value)?.into_iter().map(pair).collect()
    }
}

macro_rules! from_tuples {
    ($(($count:literal: $($item:ident)+))*) => {$(
        /// An array of as many items.
        impl<$($item: FromValue),+> FromValue for ($($item,)+) {
            #[expect(non_snake_case, reason = "an item is named as its type")]
            fn from_value(value: Value) -> Result<Self, ConversionError> {
                const EXPECTED: &str = concat!("an array of ", $count);
                let items: [Value; $count] = items(value, EXPECTED)?
                    .try_into()
                    .map_err(|_| ConversionError::Malformed { expected: EXPECTED })?;
                let [$($item),+] = items;
                Ok(($($item::from_value($item)?,)+))
            }
        }
    )*};
}

from_tuples! {
    (1: A)
    (2: A B)
    (3: A B C)
    (4: A B C D)
    (5: A B C D E)
    (6: A B C D E F)
}

fn parse<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The items of an array or a set; the pairs of a map, each as an array.
fn items(value: Value, expected: &'static str) -> Result<Vec<Value>, ConversionError> {
    match value.plain()? {
        Value::Array(items) | Value::Set(items) => Ok(items),
        Value::Map(pairs) => {
            Ok(pairs.into_iter().map(|(key, value)| Value::Array(vec![key, value])).collect())
        }
        value => Err(value.mismatch(expected)),
    }
}

/// The pairs of a map, or of an array that is a map in RESP2: keys and values in turn, or pairs as arrays.
fn pairs(value: Value) -> Result<Vec<(Value, Value)>, ConversionError> {
    let malformed = ConversionError::Malformed { expected: "a map" };
    let items = match value.plain()? {
        Value::Map(pairs) => return Ok(pairs),
        Value::Array(items) => items,
        value => return Err(value.mismatch("a map")),
    };
    let is_pair = |item: &Value| matches!(item, Value::Array(pair) if pair.len() == 2);
    if items.iter().all(is_pair) {
        return items.into_iter().map(|pair| pair.convert()).collect();
    }
    if items.len() % 2 != 0 {
        return Err(malformed);
    }
    let mut pairs = Vec::with_capacity(items.len() / 2);
    let mut items = items.into_iter();
    while let (Some(key), Some(value)) = (items.next(), items.next()) {
        pairs.push((key, value));
    }
    Ok(pairs)
}

fn pair<K: FromValue, V: FromValue>((key, value): (Value, Value)) -> Result<(K, V), ConversionError> {
    Ok((K::from_value(key)?, V::from_value(value)?))
}
