//! A reply as a Rust value.

use std::borrow::Cow;

use super::error::ServerError;
use super::reply::ReplyBuilder;

/// Whatever a server can reply. [`convert`](Self::convert) makes something more particular of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing: a key that does not exist.
    Null,
    /// A status. `OK`, `PONG` and `QUEUED` allocate nothing.
    SimpleString(Cow<'static, [u8]>),
    /// An error, also one among the replies of a transaction.
    Error(ServerError),
    /// An integer.
    Integer(i64),
    /// Bytes.
    BulkString(Vec<u8>),
    /// True or false, RESP3.
    Boolean(bool),
    /// A floating-point number, RESP3.
    Double(f64),
    /// The digits of an integer of any size, RESP3.
    BigNumber(String),
    /// A text that says what it is, RESP3.
    VerbatimString {
        /// `txt` for plain text, `mkd` for Markdown.
        format: [u8; 3],
        /// The text.
        text: Vec<u8>,
    },
    /// An array, or what a push carries.
    Array(Vec<Value>),
    /// A set, RESP3.
    Set(Vec<Value>),
    /// A map, RESP3.
    Map(Vec<(Value, Value)>),
    /// A reply with attributes, from a builder that [keeps](ValueBuilder::keeping_attributes) them.
    Attributed(Box<Attributed>),
}

/// A reply and what the server says about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Attributed {
    /// What the server says.
    pub attributes: Vec<(Value, Value)>,
    /// The reply.
    pub reply: Value,
}

impl Value {
    /// The name of its type, for messages.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::SimpleString(_) => "simple string",
            Self::Error(_) => "error",
            Self::Integer(_) => "integer",
            Self::BulkString(_) => "bulk string",
            Self::Boolean(_) => "boolean",
            Self::Double(_) => "double",
            Self::BigNumber(_) => "big number",
            Self::VerbatimString { .. } => "verbatim string",
            Self::Array(_) => "array",
            Self::Set(_) => "set",
            Self::Map(_) => "map",
            Self::Attributed(attributed) => attributed.reply.type_name(),
        }
    }

    /// The bytes of a string of whichever kind, also the digits of a big number.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Self::SimpleString(text) => Some(text),
            Self::BulkString(bytes) => Some(bytes),
            Self::BigNumber(digits) => Some(digits.as_bytes()),
            Self::VerbatimString { text, .. } => Some(text),
            Self::Attributed(attributed) => attributed.reply.as_bytes(),
            _ => None,
        }
    }
}

/// Makes [`Value`]s.
#[derive(Clone, Copy, Debug, Default)]
pub struct ValueBuilder {
    keeps_attributes: bool,
}

impl ValueBuilder {
    /// Makes [`Value::Attributed`] of replies with attributes, which are dropped by default.
    pub fn keeping_attributes() -> Self {
        Self { keeps_attributes: true }
    }
}

impl ReplyBuilder for ValueBuilder {
    type Reply = Value;

    fn null(&mut self) -> Value {
        Value::Null
    }

    fn simple_string(&mut self, text: &[u8]) -> Value {
        Value::SimpleString(match text {
            b"OK" => b"OK".into(),
            b"PONG" => b"PONG".into(),
            b"QUEUED" => b"QUEUED".into(),
            _ => text.to_vec().into(),
        })
    }

    fn error(&mut self, text: &[u8]) -> Value {
        Value::Error(ServerError::new(text))
    }

    fn integer(&mut self, value: i64) -> Value {
        Value::Integer(value)
    }

    fn bulk_string(&mut self, bytes: &[u8]) -> Value {
        Value::BulkString(bytes.to_vec())
    }

    fn boolean(&mut self, value: bool) -> Value {
        Value::Boolean(value)
    }

    fn double(&mut self, value: f64) -> Value {
        Value::Double(value)
    }

    fn big_number(&mut self, digits: &[u8]) -> Value {
        Value::BigNumber(String::from_utf8_lossy(digits).into_owned())
    }

    fn verbatim_string(&mut self, format: [u8; 3], text: &[u8]) -> Value {
        Value::VerbatimString { format, text: text.to_vec() }
    }

    fn array(&mut self, items: Vec<Value>) -> Value {
        Value::Array(items)
    }

    fn set(&mut self, items: Vec<Value>) -> Value {
        Value::Set(items)
    }

    fn map(&mut self, pairs: Vec<(Value, Value)>) -> Value {
        Value::Map(pairs)
    }

    fn attributed(&mut self, attributes: Vec<(Value, Value)>, reply: Value) -> Value {
        if self.keeps_attributes {
            Value::Attributed(Box::new(Attributed { attributes, reply }))
        } else {
            reply
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Value;

    #[test]
    fn a_value_is_no_larger_than_four_words() {
        assert_eq!(size_of::<Value>(), 32);
    }
}
