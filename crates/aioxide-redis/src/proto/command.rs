//! A command of its own, for Rust callers.

use std::fmt::{self, Debug, Formatter};

use super::encoder;
use super::parse::{self, Length};

/// A command: its name and its arguments, encoded already.
///
/// ```
/// use aioxide_redis::proto::Command;
///
/// let command = Command::new("ZADD").arg("scores").arg(1.5).arg("player:7");
/// assert_eq!(command.arguments().collect::<Vec<_>>(), [&b"ZADD"[..], b"scores", b"1.5", b"player:7"]);
/// ```
#[derive(Clone, Eq, PartialEq)]
pub struct Command {
    /// Bulk strings, one after the other.
    encoded: Vec<u8>,
    count: usize,
}

impl Command {
    /// Begins a command. A name of two words is a name and an argument: `Command::new("CONFIG").arg("GET")`.
    pub fn new(name: &str) -> Self {
        let mut command = Self { encoded: Vec::with_capacity(64), count: 0 };
        command.push(name.as_bytes());
        command
    }

    /// Appends an argument.
    #[must_use = "a command is built by value"]
    pub fn arg(mut self, argument: impl Argument) -> Self {
        argument.append_to(&mut self);
        self
    }

    /// Appends arguments.
    #[must_use = "a command is built by value"]
    pub fn args(mut self, arguments: impl IntoIterator<Item: Argument>) -> Self {
        for argument in arguments {
            argument.append_to(&mut self);
        }
        self
    }

    /// Appends an argument to a command that is not built by value.
    pub fn push(&mut self, bytes: &[u8]) {
        encoder::bulk(&mut self.encoded, bytes);
        self.count += 1;
    }

    /// Appends what goes over the wire to a buffer.
    pub fn encode_into(&self, buffer: &mut Vec<u8>) {
        encoder::begin(buffer, self.count);
        buffer.extend_from_slice(&self.encoded);
    }

    /// The name.
    pub fn name(&self) -> &[u8] {
        self.arguments().next().unwrap_or_default()
    }

    /// The name and the arguments.
    pub fn arguments(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.encoded[..];
        std::iter::from_fn(move || {
            // What we have written ourselves is well formed.
            let Ok(Some((Length::Known(length), used))) = parse::length(rest.get(1..)?) else { return None };
            let start = 1 + used;
            let argument = rest.get(start..start + length)?;
            rest = &rest[start + length + 2..];
            Some(argument)
        })
    }

    /// How many arguments it has, its name among them.
    pub fn argument_count(&self) -> usize {
        self.count
    }
}

impl Debug for Command {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        // Not the arguments: they may be secret, or long.
        write!(formatter, "Command({}, {} arguments)", self.name().escape_ascii(), self.count - 1)
    }
}

/// What can be an argument of a command.
///
/// ```
/// use aioxide_redis::proto::{Argument, Command};
///
/// struct User(u64);
///
/// impl Argument for User {
///     fn append_to(&self, command: &mut Command) {
///         command.push(format!("user:{}", self.0).as_bytes());
///     }
/// }
///
/// assert_eq!(Command::new("GET").arg(User(7)).arguments().last(), Some(&b"user:7"[..]));
/// ```
pub trait Argument {
    /// Appends itself, as one argument or several.
    fn append_to(&self, command: &mut Command);
}

impl<T: Argument + ?Sized> Argument for &T {
    fn append_to(&self, command: &mut Command) {
        (**self).append_to(command);
    }
}

macro_rules! byte_arguments {
    ($($bytes:ty)*) => {$(
        impl Argument for $bytes {
            fn append_to(&self, command: &mut Command) {
                command.push(self.as_ref());
            }
        }
    )*};
}

byte_arguments!(str String [u8] Vec<u8>);

impl<const N: usize> Argument for [u8; N] {
    fn append_to(&self, command: &mut Command) {
        command.push(self);
    }
}

macro_rules! integer_arguments {
    ($($integer:ty)*) => {$(
        impl Argument for $integer {
            fn append_to(&self, command: &mut Command) {
                encoder::integer(&mut command.encoded, i64::from(*self));
                command.count += 1;
            }
        }
    )*};
}

integer_arguments!(i8 i16 i32 i64 u8 u16 u32);

macro_rules! large_integer_arguments {
    ($($integer:ty)*) => {$(
        impl Argument for $integer {
            fn append_to(&self, command: &mut Command) {
                match i64::try_from(*self) {
                    Ok(value) => value.append_to(command),
                    Err(_) => command.push(self.to_string().as_bytes()),
                }
            }
        }
    )*};
}

large_integer_arguments!(u64 usize isize i128 u128);

impl Argument for f64 {
    fn append_to(&self, command: &mut Command) {
        encoder::double(&mut command.encoded, *self);
        command.count += 1;
    }
}

impl Argument for f32 {
    /// Its own fewest digits, not those of the double.
    fn append_to(&self, command: &mut Command) {
        command.push(self.to_string().as_bytes());
    }
}

/// Nothing appends nothing.
impl<T: Argument> Argument for Option<T> {
    fn append_to(&self, command: &mut Command) {
        if let Some(argument) = self {
            argument.append_to(command);
        }
    }
}

/// A pair appends both, as `MSET` and `HSET` want them.
impl<A: Argument, B: Argument> Argument for (A, B) {
    fn append_to(&self, command: &mut Command) {
        self.0.append_to(command);
        self.1.append_to(command);
    }
}

#[cfg(test)]
mod tests {
    use super::Command;

    fn arguments(command: &Command) -> Vec<String> {
        command.arguments().map(|argument| String::from_utf8(argument.to_vec()).unwrap()).collect()
    }

    #[test]
    fn arguments_of_every_type_are_written_as_redis_reads_them() {
        let command = Command::new("X")
            .arg("text")
            .arg(String::from("owned"))
            .arg(b"array")
            .arg(&b"slice"[..])
            .arg(vec![b'v'])
            .arg(-1)
            .arg(u64::MAX)
            .arg(1.5)
            .arg(0.1f32)
            .arg(Some(7u8))
            .arg(None::<&str>)
            .args([("key", 1), ("other", 2)]);
        let expected = [
            "X",
            "text",
            "owned",
            "array",
            "slice",
            "v",
            "-1",
            "18446744073709551615",
            "1.5",
            "0.1",
            "7",
            "key",
            "1",
            "other",
            "2",
        ];
        assert_eq!(arguments(&command), expected);
        assert_eq!(command.argument_count(), expected.len());
    }

    #[test]
    fn a_command_is_encoded_behind_what_is_in_the_buffer() {
        let mut buffer = b"+".to_vec();
        Command::new("GET").arg("k").encode_into(&mut buffer);
        assert_eq!(buffer, b"+*2\r\n$3\r\nGET\r\n$1\r\nk\r\n");
    }

    #[test]
    fn the_debugging_form_keeps_secrets() {
        let command = Command::new("AUTH").arg("password");
        assert_eq!(format!("{command:?}"), "Command(AUTH, 1 arguments)");
    }
}
