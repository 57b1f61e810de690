//! Commands as they go over the wire: an array of bulk strings, written straight into a buffer.
//!
//! ```
//! use aioxide_redis::proto::encoder;
//!
//! let mut buffer = Vec::new();
//! encoder::begin(&mut buffer, 3);
//! encoder::bulk(&mut buffer, b"INCRBYFLOAT");
//! encoder::bulk(&mut buffer, b"key");
//! encoder::double(&mut buffer, 0.1);
//! assert_eq!(buffer, b"*3\r\n$11\r\nINCRBYFLOAT\r\n$3\r\nkey\r\n$3\r\n0.1\r\n");
//! ```

use std::fmt::Write;

/// Begins a command: so many arguments follow, the command's name the first of them.
#[inline]
pub fn begin(buffer: &mut Vec<u8>, arguments: usize) {
    header(buffer, b'*', arguments);
}

/// Writes an argument.
#[inline]
pub fn bulk(buffer: &mut Vec<u8>, bytes: &[u8]) {
    // Once, not for each of the three parts.
    buffer.reserve(bytes.len() + LONGEST_HEADER + 2);
    header(buffer, b'$', bytes.len());
    buffer.extend_from_slice(bytes);
    buffer.extend_from_slice(b"\r\n");
}

/// Writes an integer as an argument.
#[inline]
pub fn integer(buffer: &mut Vec<u8>, value: i64) {
    let mut digits = Digits::new(value.unsigned_abs());
    if value < 0 {
        digits.push_front(b'-');
    }
    bulk(buffer, digits.as_bytes());
}

/// Writes a floating-point number as an argument: the fewest digits that mean this number, at least one of them
/// behind the point; below 1e-4 and from 1e16 on with an exponent, of at least two digits.
pub fn double(buffer: &mut Vec<u8>, value: f64) {
    let mut text = Text::default();
    write_double(&mut text, value).expect("the longest number fits");
    bulk(buffer, text.as_bytes());
}

#[inline]
fn header(buffer: &mut Vec<u8>, marker: u8, length: usize) {
    // Most lengths have one digit.
    if let Ok(digit @ 0..10) = u8::try_from(length) {
        buffer.extend_from_slice(&[marker, b'0' + digit, b'\r', b'\n']);
        return;
    }
    let mut digits = Digits::new(length as u64);
    digits.push_front(marker);
    buffer.extend_from_slice(digits.as_bytes());
    buffer.extend_from_slice(b"\r\n");
}

fn write_double(text: &mut Text, value: f64) -> std::fmt::Result {
    if !value.is_finite() {
        return text.write_str(match (value.is_nan(), value > 0.0) {
            (true, _) => "nan",
            (false, true) => "inf",
            (false, false) => "-inf",
        });
    }
    let magnitude = value.abs();
    if magnitude == 0.0 || (1e-4..1e16).contains(&magnitude) {
        // `{:?}` writes at least one decimal, and no exponent in this range.
        return write!(text, "{value:?}");
    }
    let mut scientific = Text::default();
    write!(scientific, "{value:e}")?;
    let (mantissa, exponent) = scientific.as_str().split_once('e').ok_or(std::fmt::Error)?;
    match exponent.strip_prefix('-') {
        Some(exponent) => write!(text, "{mantissa}e-{exponent:0>2}"),
        None => write!(text, "{mantissa}e+{exponent:0>2}"),
    }
}

/// The decimal digits of a number, and perhaps a byte in front of them.
struct Digits {
    bytes: [u8; 21],
    start: usize,
}

impl Digits {
    #[inline]
    fn new(mut number: u64) -> Self {
        let mut digits = Self { bytes: [0; 21], start: 21 };
        loop {
            digits.push_front(b'0' + (number % 10) as u8);
            number /= 10;
            if number == 0 {
                return digits;
            }
        }
    }

    #[inline]
    fn push_front(&mut self, byte: u8) {
        self.start -= 1;
        self.bytes[self.start] = byte;
    }

    #[inline]
    fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

/// A short text without an allocation.
#[derive(Default)]
struct Text {
    bytes: [u8; 32],
    length: usize,
}

impl Text {
    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.length + text.len();
        let room = self.bytes.get_mut(self.length..end).ok_or(std::fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

/// A marker, a length of 20 digits and an end of line.
const LONGEST_HEADER: usize = 23;

#[cfg(test)]
mod tests {
    use super::{begin, bulk, double, integer};

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut buffer = Vec::new();
        write(&mut buffer);
        String::from_utf8(buffer).unwrap()
    }

    #[test]
    fn lengths_have_as_many_digits_as_they_need() {
        assert_eq!(written(|buffer| begin(buffer, 1)), "*1\r\n");
        assert_eq!(written(|buffer| begin(buffer, 10)), "*10\r\n");
        assert_eq!(written(|buffer| begin(buffer, usize::MAX)), "*18446744073709551615\r\n");
        assert_eq!(written(|buffer| bulk(buffer, b"")), "$0\r\n\r\n");
        assert_eq!(written(|buffer| bulk(buffer, &[b'x'; 10])), "$10\r\nxxxxxxxxxx\r\n");
    }

    #[test]
    fn integers_are_written_in_decimal() {
        for value in [0, 1, -1, 9, 10, -10, 12345, i64::MAX, i64::MIN] {
            let digits = value.to_string();
            assert_eq!(
                written(|buffer| integer(buffer, value)),
                format!("${}\r\n{digits}\r\n", digits.len())
            );
        }
    }

    #[test]
    fn doubles_are_written_with_the_fewest_digits() {
        let cases = [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (-1.5, "-1.5"),
            (0.1, "0.1"),
            (0.1 + 0.2, "0.30000000000000004"),
            (1e15, "1000000000000000.0"),
            (9999999999999998.0, "9999999999999998.0"),
            (1e16, "1e+16"),
            (1.5e16, "1.5e+16"),
            (1e22, "1e+22"),
            (1e100, "1e+100"),
            (0.0001, "0.0001"),
            (0.00012345, "0.00012345"),
            (0.00001, "1e-05"),
            (-1.5e-7, "-1.5e-07"),
            (f64::MAX, "1.7976931348623157e+308"),
            (f64::MIN_POSITIVE, "2.2250738585072014e-308"),
            (-5e-324, "-5e-324"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
        ];
        for (value, text) in cases {
            assert_eq!(written(|buffer| double(buffer, value)), format!("${}\r\n{text}\r\n", text.len()));
        }
    }
}
