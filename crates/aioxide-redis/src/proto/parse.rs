//! Numbers and lines at the front of the input.
//!
//! # Invariants
//! - What is wrong is found at the first byte that is wrong, so that an input fails in the same way however it
//!   was split.

use super::error::ProtocolError;

/// What stands behind the marker of a string or an aggregate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Length {
    /// So many bytes, items or pairs.
    Known(usize),
    /// -1: RESP2's null.
    Null,
    /// `?`: until an end is marked.
    Streamed,
}

/// The length at the front of `bytes` and how many bytes it took with its end of line; nothing if that is not
/// there yet.
#[inline]
pub(super) fn length(bytes: &[u8]) -> Result<Option<(Length, usize)>, ProtocolError> {
    match bytes.first() {
        Some(b'?') => {
            Ok(literal(bytes, b"?\r\n", ProtocolError::InvalidLength)?.then_some((Length::Streamed, 3)))
        }
        Some(b'-') => {
            Ok(literal(bytes, b"-1\r\n", ProtocolError::InvalidLength)?.then_some((Length::Null, 4)))
        }
        _ => match digits(bytes, ProtocolError::InvalidLength)? {
            Some((number, used)) => {
                let number = usize::try_from(number).map_err(|_| ProtocolError::InvalidLength)?;
                Ok(Some((Length::Known(number), used)))
            }
            None => Ok(None),
        },
    }
}

/// The integer at the front of `bytes` and how many bytes it took with its end of line.
#[inline]
pub(super) fn integer(bytes: &[u8]) -> Result<Option<(i64, usize)>, ProtocolError> {
    let wrong = ProtocolError::InvalidInteger;
    let (is_negative, sign) = match bytes.first() {
        Some(b'-') => (true, 1),
        Some(b'+') => (false, 1),
        _ => (false, 0),
    };
    let Some((magnitude, used)) = digits(&bytes[sign..], wrong)? else { return Ok(None) };
    let value = if is_negative { 0i64.checked_sub_unsigned(magnitude) } else { magnitude.try_into().ok() };
    Ok(Some((value.ok_or(wrong)?, sign + used)))
}

/// Digits and an end of line.
#[inline]
fn digits(bytes: &[u8], wrong: ProtocolError) -> Result<Option<(u64, usize)>, ProtocolError> {
    let mut number = 0u64;
    for (index, &byte) in bytes.iter().enumerate() {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            // `\r` ends the number, and `\n` must follow.
            if byte != b'\r' || index == 0 {
                return Err(wrong);
            }
            return match bytes.get(index + 1) {
                Some(b'\n') => Ok(Some((number, index + 2))),
                Some(_) => Err(wrong),
                None => Ok(None),
            };
        }
        if index == LONGEST_NUMBER {
            return Err(wrong);
        }
        number =
            number.checked_mul(10).and_then(|number| number.checked_add(u64::from(digit))).ok_or(wrong)?;
    }
    Ok(None)
}

/// Whether all of `expected` is at the front of `bytes`, which begin no other way.
#[inline]
pub(super) fn literal(bytes: &[u8], expected: &[u8], wrong: ProtocolError) -> Result<bool, ProtocolError> {
    let there = bytes.len().min(expected.len());
    if bytes[..there] == expected[..there] { Ok(there == expected.len()) } else { Err(wrong) }
}

/// Where the first line of `input` ends, the `\r` of its end; the first `scanned` bytes hold no `\n`.
/// A `\r` or `\n` alone is part of the line.
#[inline]
pub(super) fn end_of_line(input: &[u8], scanned: usize) -> Option<usize> {
    let mut start = scanned;
    loop {
        let found = start + input.get(start..)?.iter().position(|&byte| byte == b'\n')?;
        if found > 0 && input[found - 1] == b'\r' {
            return Some(found - 1);
        }
        start = found + 1;
    }
}

/// The number that a line spells, in any way that C's `strtod` or Rust's `parse` accept and Redis sends.
pub(super) fn double(line: &[u8]) -> Option<f64> {
    std::str::from_utf8(line).ok()?.parse().ok()
}

/// Whether a line is digits, perhaps behind a sign.
pub(super) fn is_big_number(line: &[u8]) -> bool {
    let digits = line.strip_prefix(b"-").or(line.strip_prefix(b"+")).unwrap_or(line);
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}

/// So many digits has the largest number of 64 bits.
const LONGEST_NUMBER: usize = 20;
