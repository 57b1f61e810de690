//! Bytes in, replies out: RESP2 and RESP3, however the bytes were split.
//!
//! A part of a reply (a string with its length, a number, the header of an aggregate) is consumed when all of it
//! is there. Aggregates that have begun wait on a stack, innermost last, so depth costs no recursion and
//! nothing is looked at again when more arrives: an incomplete string is recognised by its length, and how much
//! of an incomplete line was searched for its end is remembered.
//!
//! # Invariants
//! - Lengths are claims: what is allocated for them is bounded by the bytes that are there, by
//!   [`RESERVED_ITEMS`] and by the limits.
//! - A push is only begun between replies: the frames below it are finished attributes of it, if any.
//! - `chunks` is present exactly while a streamed string is open.

use super::error::ProtocolError;
use super::parse::{self, Length};
use super::reply::ReplyBuilder;

/// What a server may send at most.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// How many aggregates may be open within each other.
    pub depth: usize,
    /// How long a string may be, or a line, or the chunks of a streamed string together.
    pub bulk_bytes: usize,
    /// How many items all the aggregates of one reply may have together; a pair counts as two.
    pub items: usize,
}

impl Default for Limits {
    /// What fits all that Redis sends unless it was told to allow more: strings of 512 MiB
    /// (`proto-max-bulk-len`), replies of 2^27 items, 128 levels.
    fn default() -> Self {
        Self { depth: 128, bulk_bytes: 512 << 20, items: 1 << 27 }
    }
}

/// What the server sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Decoded<R> {
    /// The answer to the oldest unanswered command.
    Reply(R),
    /// Something nobody asked for: a message of a subscription, an invalidated key.
    Push(R),
}

/// Takes replies off a stream of bytes.
///
/// ```
/// use aioxide_redis::proto::{Decoded, Decoder, Limits, Value, ValueBuilder};
///
/// let mut decoder = Decoder::new(Limits::default());
/// let mut buffer = Vec::new();
/// let mut replies = Vec::new();
/// for piece in ["*2\r\n:1\r", "\n$2\r\n", "ab\r\n>1\r\n+news\r", "\n"] {
///     buffer.extend_from_slice(piece.as_bytes());
///     let mut input = &buffer[..];
///     while let Some(decoded) = decoder.decode(&mut input, &mut ValueBuilder::default())? {
///         replies.push(decoded);
///     }
///     let consumed = buffer.len() - input.len();
///     buffer.drain(..consumed);
/// }
/// assert_eq!(
///     replies,
///     [
///         Decoded::Reply(Value::Array(vec![Value::Integer(1), Value::BulkString(b"ab".into())])),
///         Decoded::Push(Value::Array(vec![Value::SimpleString(b"news".into())])),
///     ]
/// );
/// # Ok::<(), aioxide_redis::proto::ProtocolError>(())
/// ```
#[derive(Debug)]
pub struct Decoder<R> {
    limits: Limits,
    /// Aggregates that have begun, innermost last.
    stack: Vec<Frame<R>>,
    /// What came of a streamed string.
    chunks: Option<Vec<u8>>,
    /// The items that the reply in progress may still announce.
    items_left: usize,
    /// So many bytes of the line at the front of the input hold no `\n`.
    scanned: usize,
    wanted: usize,
}

/// An aggregate that has begun. Without a number of missing items, it is streamed.
#[derive(Debug)]
enum Frame<R> {
    List {
        kind: List,
        items: Vec<R>,
        missing: Option<usize>,
    },
    Pairs {
        kind: Pairs,
        pairs: Vec<(R, R)>,
        key: Option<R>,
        missing: Option<usize>,
    },
    /// Complete attributes, which wait for what they are about.
    Attributed {
        attributes: Vec<(R, R)>,
    },
}

#[derive(Clone, Copy, Debug)]
enum List {
    Array,
    Set,
    Push,
}

#[derive(Clone, Copy, Debug)]
enum Pairs {
    Map,
    Attributes,
}

/// What has been decoded, if it is whole.
type Progress<R> = Result<Option<Decoded<R>>, ProtocolError>;

impl<R> Decoder<R> {
    /// Makes a decoder at the beginning of a stream.
    pub fn new(limits: Limits) -> Self {
        Self { limits, stack: Vec::new(), chunks: None, items_left: 0, scanned: 0, wanted: 1 }
    }

    /// Takes the next whole reply off the front of `input`, which is advanced past everything consumed.
    ///
    /// Nothing: more bytes are needed. What is left in `input` must be given again, with more behind it;
    /// aggregates that have begun are kept inside. After an error the stream has no meaning any more.
    pub fn decode<B: ReplyBuilder<Reply = R>>(
        &mut self,
        input: &mut &[u8],
        builder: &mut B,
    ) -> Result<Option<Decoded<R>>, ProtocolError> {
        self.wanted = 1;
        loop {
            let before = input.len();
            let progress = self.step(input, builder);
            // A part that is not all there leaves the input as it is.
            if !matches!(progress, Ok(None)) || input.len() == before {
                return progress;
            }
        }
    }

    /// How many bytes the input must have, at least, before [`decode`](Self::decode) can get further: reading
    /// so many first spares looks at a long string that is still arriving.
    pub fn wanted(&self) -> usize {
        self.wanted
    }

    /// Takes one part.
    #[inline(always)]
    fn step<B: ReplyBuilder<Reply = R>>(&mut self, input: &mut &[u8], builder: &mut B) -> Progress<R> {
        let Some(&marker) = input.first() else { return self.wait(input) };
        if self.chunks.is_some() {
            return self.chunk(input, builder);
        }
        // Each way places its own part: a part that is chosen between ways is moved once more.
        match marker {
            b'$' => match parse::length(&input[1..])? {
                Some((Length::Known(length), used)) => match self.string(input, 1 + used, length)? {
                    Some(bytes) => self.place(builder.bulk_string(bytes), builder),
                    None => Ok(None),
                },
                Some((Length::Null, used)) => {
                    *input = &input[1 + used..];
                    self.place(builder.null(), builder)
                }
                Some((Length::Streamed, used)) => {
                    *input = &input[1 + used..];
                    self.chunks = Some(Vec::new());
                    Ok(None)
                }
                None => self.wait(input),
            },
            b':' => match parse::integer(&input[1..])? {
                Some((value, used)) => {
                    *input = &input[1 + used..];
                    self.place(builder.integer(value), builder)
                }
                None => self.wait(input),
            },
            b'+' => match self.line(input)? {
                Some(text) => self.place(builder.simple_string(text), builder),
                None => Ok(None),
            },
            b'*' => self.list(input, builder, List::Array),
            _ => self.rare_step(marker, input, builder),
        }
    }

    /// The parts that are not in every reply.
    fn rare_step<B: ReplyBuilder<Reply = R>>(
        &mut self,
        marker: u8,
        input: &mut &[u8],
        builder: &mut B,
    ) -> Progress<R> {
        let part = match marker {
            b'-' => {
                let Some(text) = self.line(input)? else { return Ok(None) };
                builder.error(text)
            }
            b'_' => {
                if !parse::literal(input, b"_\r\n", ProtocolError::InvalidNull)? {
                    return self.wait(input);
                }
                *input = &input[3..];
                builder.null()
            }
            b'#' => {
                let is_true = input.get(1) == Some(&b't');
                let expected = if is_true { b"#t\r\n" } else { b"#f\r\n" };
                if !parse::literal(input, expected, ProtocolError::InvalidBoolean)? {
                    return self.wait(input);
                }
                *input = &input[4..];
                builder.boolean(is_true)
            }
            b',' => {
                let Some(line) = self.line(input)? else { return Ok(None) };
                builder.double(parse::double(line).ok_or(ProtocolError::InvalidDouble)?)
            }
            b'(' => {
                let Some(line) = self.line(input)? else { return Ok(None) };
                if !parse::is_big_number(line) {
                    return Err(ProtocolError::InvalidBigNumber);
                }
                builder.big_number(line)
            }
            b'!' => {
                let Some(text) = self.sized_string(input)? else { return Ok(None) };
                builder.error(text)
            }
            b'=' => {
                let Some(bytes) = self.sized_string(input)? else { return Ok(None) };
                let Some((&[first, second, third, b':'], text)) = bytes.split_first_chunk() else {
                    return Err(ProtocolError::InvalidVerbatimString);
                };
                builder.verbatim_string([first, second, third], text)
            }
            b'~' => return self.list(input, builder, List::Set),
            b'>' => return self.list(input, builder, List::Push),
            b'%' => return self.pairs(input, builder, Pairs::Map),
            b'|' => return self.pairs(input, builder, Pairs::Attributes),
            b'.' => return self.end(input, builder),
            b';' => return Err(ProtocolError::UnexpectedChunk),
            _ => return Err(ProtocolError::UnknownType(marker)),
        };
        self.place(part, builder)
    }

    /// Begins an array, a set or a push.
    fn list<B: ReplyBuilder<Reply = R>>(
        &mut self,
        input: &mut &[u8],
        builder: &mut B,
        kind: List,
    ) -> Progress<R> {
        if matches!(kind, List::Push) && !self.is_between_replies() {
            return Err(ProtocolError::UnexpectedPush);
        }
        let Some((length, used)) = parse::length(&input[1..])? else {
            return self.wait(input);
        };
        let missing = match (length, kind) {
            (Length::Known(length), _) => Some(length),
            (Length::Streamed, List::Array | List::Set) => None,
            (Length::Null, List::Array) => {
                *input = &input[1 + used..];
                let null = builder.null();
                return self.place(null, builder);
            }
            _ => return Err(ProtocolError::InvalidLength),
        };
        *input = &input[1 + used..];
        self.announce(missing.unwrap_or(0))?;
        let reserved = missing.unwrap_or(0).min(RESERVED_ITEMS).min(input.len() / SMALLEST_PART);
        let frame = Frame::List { kind, items: Vec::with_capacity(reserved), missing };
        self.begin(frame, missing == Some(0), builder)
    }

    /// Begins a map or attributes.
    fn pairs<B: ReplyBuilder<Reply = R>>(
        &mut self,
        input: &mut &[u8],
        builder: &mut B,
        kind: Pairs,
    ) -> Progress<R> {
        let Some((length, used)) = parse::length(&input[1..])? else {
            return self.wait(input);
        };
        let missing = match (length, kind) {
            (Length::Known(length), _) => Some(length),
            (Length::Streamed, Pairs::Map) => None,
            _ => return Err(ProtocolError::InvalidLength),
        };
        *input = &input[1 + used..];
        self.announce(missing.unwrap_or(0).saturating_mul(2))?;
        let reserved = missing.unwrap_or(0).min(RESERVED_ITEMS / 2).min(input.len() / (2 * SMALLEST_PART));
        let frame = Frame::Pairs { kind, pairs: Vec::with_capacity(reserved), key: None, missing };
        self.begin(frame, missing == Some(0), builder)
    }

    /// Opens an aggregate, unless it is empty.
    fn begin<B: ReplyBuilder<Reply = R>>(
        &mut self,
        frame: Frame<R>,
        is_empty: bool,
        builder: &mut B,
    ) -> Progress<R> {
        if self.stack.len() >= self.limits.depth {
            return Err(ProtocolError::TooDeep);
        }
        self.stack.push(frame);
        if is_empty { self.close(builder) } else { Ok(None) }
    }

    /// Ends a streamed aggregate.
    fn end<B: ReplyBuilder<Reply = R>>(&mut self, input: &mut &[u8], builder: &mut B) -> Progress<R> {
        match self.stack.last() {
            Some(Frame::List { missing: None, .. } | Frame::Pairs { missing: None, key: None, .. }) => {}
            _ => return Err(ProtocolError::UnexpectedEnd),
        }
        if !parse::literal(input, b".\r\n", ProtocolError::UnexpectedEnd)? {
            return self.wait(input);
        }
        *input = &input[3..];
        self.close(builder)
    }

    /// Takes a piece of a streamed string.
    fn chunk<B: ReplyBuilder<Reply = R>>(&mut self, input: &mut &[u8], builder: &mut B) -> Progress<R> {
        if input[0] != b';' {
            return Err(ProtocolError::MissingChunk);
        }
        let (length, used) = match parse::length(&input[1..])? {
            Some((Length::Known(length), used)) => (length, used),
            Some(_) => return Err(ProtocolError::InvalidLength),
            None => return self.wait(input),
        };
        if length == 0 {
            *input = &input[1 + used..];
            let part = builder.bulk_string(&self.chunks.take().unwrap_or_default());
            return self.place(part, builder);
        }
        let before = self.chunks.as_ref().map_or(0, Vec::len);
        if length > self.limits.bulk_bytes.saturating_sub(before) {
            return Err(ProtocolError::TooLong);
        }
        let Some(bytes) = self.string(input, 1 + used, length)? else { return Ok(None) };
        self.chunks.get_or_insert_default().extend_from_slice(bytes);
        Ok(None)
    }

    /// Puts a complete part where it belongs.
    #[inline(always)]
    fn place<B: ReplyBuilder<Reply = R>>(&mut self, part: R, builder: &mut B) -> Progress<R> {
        if self.stack.is_empty() {
            return Ok(Some(Decoded::Reply(part)));
        }
        self.place_inside(part, false, builder)
    }

    /// Adds a complete part to the innermost aggregate, and what that completes to the next one.
    fn place_inside<B: ReplyBuilder<Reply = R>>(
        &mut self,
        mut part: R,
        mut is_push: bool,
        builder: &mut B,
    ) -> Progress<R> {
        loop {
            let is_full = match self.stack.last_mut() {
                None if is_push => return Ok(Some(Decoded::Push(part))),
                None => return Ok(Some(Decoded::Reply(part))),
                Some(Frame::List { items, missing, .. }) => {
                    items.push(part);
                    is_full(missing, 1, &mut self.items_left)?
                }
                Some(Frame::Pairs { key: key @ None, .. }) => {
                    *key = Some(part);
                    false
                }
                Some(Frame::Pairs { pairs, key, missing, .. }) => {
                    pairs.extend(key.take().map(|key| (key, part)));
                    is_full(missing, 2, &mut self.items_left)?
                }
                Some(Frame::Attributed { attributes }) => {
                    part = builder.attributed(std::mem::take(attributes), part);
                    self.stack.pop();
                    continue;
                }
            };
            if !is_full {
                return Ok(None);
            }
            match self.build(&mut is_push, builder) {
                Some(aggregate) => part = aggregate,
                None => return Ok(None),
            }
        }
    }

    /// Ends the innermost aggregate.
    fn close<B: ReplyBuilder<Reply = R>>(&mut self, builder: &mut B) -> Progress<R> {
        let mut is_push = false;
        match self.build(&mut is_push, builder) {
            Some(aggregate) => self.place_inside(aggregate, is_push, builder),
            None => Ok(None),
        }
    }

    /// Makes what the innermost aggregate becomes; attributes wait for what they are about.
    fn build<B: ReplyBuilder<Reply = R>>(&mut self, is_push: &mut bool, builder: &mut B) -> Option<R> {
        match self.stack.pop()? {
            Frame::List { kind: List::Array, items, .. } => Some(builder.array(items)),
            Frame::List { kind: List::Set, items, .. } => Some(builder.set(items)),
            Frame::List { kind: List::Push, items, .. } => {
                *is_push = true;
                Some(builder.array(items))
            }
            Frame::Pairs { kind: Pairs::Map, pairs, .. } => Some(builder.map(pairs)),
            Frame::Pairs { kind: Pairs::Attributes, pairs, .. } => {
                self.stack.push(Frame::Attributed { attributes: pairs });
                None
            }
            Frame::Attributed { .. } => unreachable!("attributes are taken by what they are about"),
        }
    }

    /// A line behind its marker, consumed, if all of it is there.
    #[inline]
    fn line<'input>(&mut self, input: &mut &'input [u8]) -> Result<Option<&'input [u8]>, ProtocolError> {
        let bytes = *input;
        match parse::end_of_line(bytes, self.scanned) {
            Some(end) => {
                self.scanned = 0;
                *input = &bytes[end + 2..];
                let line = &bytes[1..end];
                if line.len() > self.limits.bulk_bytes { Err(ProtocolError::TooLong) } else { Ok(Some(line)) }
            }
            // The marker and a `\r` are no content.
            None if bytes.len() - 1 > self.limits.bulk_bytes.saturating_add(1) => Err(ProtocolError::TooLong),
            None => {
                self.scanned = bytes.len();
                self.wanted = bytes.len() + 1;
                Ok(None)
            }
        }
    }

    /// A string behind its marker and its length, consumed, if all of it is there.
    fn sized_string<'input>(
        &mut self,
        input: &mut &'input [u8],
    ) -> Result<Option<&'input [u8]>, ProtocolError> {
        match parse::length(&input[1..])? {
            Some((Length::Known(length), used)) => self.string(input, 1 + used, length),
            Some(_) => Err(ProtocolError::InvalidLength),
            None => {
                self.wanted = input.len() + 1;
                Ok(None)
            }
        }
    }

    /// A string of `length` bytes and its end of line behind `header` bytes, consumed, if all of it is there.
    #[inline]
    fn string<'input>(
        &mut self,
        input: &mut &'input [u8],
        header: usize,
        length: usize,
    ) -> Result<Option<&'input [u8]>, ProtocolError> {
        if length > self.limits.bulk_bytes {
            return Err(ProtocolError::TooLong);
        }
        let bytes = *input;
        let total = length.saturating_add(header + 2);
        if bytes.len() < total {
            self.wanted = total;
            return Ok(None);
        }
        let (string, end) = bytes[header..total].split_at(length);
        if end != b"\r\n" {
            return Err(ProtocolError::MissingEndOfLine);
        }
        *input = &bytes[total..];
        Ok(Some(string))
    }

    /// Counts the items that a header announces.
    fn announce(&mut self, items: usize) -> Result<(), ProtocolError> {
        if self.stack.is_empty() {
            self.items_left = self.limits.items;
        }
        self.items_left = self.items_left.checked_sub(items).ok_or(ProtocolError::TooManyItems)?;
        Ok(())
    }

    /// Whether a push may begin here.
    fn is_between_replies(&self) -> bool {
        self.stack.iter().all(|frame| matches!(frame, Frame::Attributed { .. }))
    }

    /// One byte more may be enough.
    fn wait(&mut self, input: &[u8]) -> Progress<R> {
        self.wanted = input.len() + 1;
        Ok(None)
    }
}

/// Counts an item or a pair that has come.
#[inline]
fn is_full(missing: &mut Option<usize>, items: usize, items_left: &mut usize) -> Result<bool, ProtocolError> {
    match missing {
        Some(missing) => {
            *missing -= 1;
            Ok(*missing == 0)
        }
        // Nothing announced it.
        None => {
            *items_left = items_left.checked_sub(items).ok_or(ProtocolError::TooManyItems)?;
            Ok(false)
        }
    }
}

/// The shortest part, as `_` or an empty line, has so many bytes.
const SMALLEST_PART: usize = 3;

/// For so many items memory is reserved before they are there; a longer aggregate grows with them.
const RESERVED_ITEMS: usize = 1024;

#[cfg(test)]
mod tests {
    use super::{Decoder, Frame, Limits, RESERVED_ITEMS};
    use crate::proto::ValueBuilder;

    /// How many items there is room for in what has begun.
    fn reserved<R>(decoder: &Decoder<R>) -> usize {
        let places = decoder.stack.iter().map(|frame| match frame {
            Frame::List { items, .. } => items.capacity(),
            Frame::Pairs { pairs, .. } => 2 * pairs.capacity(),
            Frame::Attributed { attributes } => 2 * attributes.capacity(),
        });
        places.sum()
    }

    #[test]
    fn headers_reserve_no_more_than_could_be_there() {
        let limits = Limits { items: usize::MAX, ..Limits::default() };
        for header in ["*999999\r\n", "%999999\r\n", "~999999\r\n"] {
            let input = header.repeat(limits.depth);
            let mut decoder = Decoder::new(limits);
            let mut builder = ValueBuilder::default();
            assert!(matches!(decoder.decode(&mut input.as_bytes(), &mut builder), Ok(None)));
            assert_eq!(decoder.stack.len(), limits.depth);
            assert!(reserved(&decoder) <= limits.depth * input.len() / 3);
            // However much is there.
            let items = if cfg!(miri) { 1 << 11 } else { 1 << 17 };
            let input = input + &":1\r\n".repeat(items - 1);
            let mut decoder = Decoder::new(limits);
            assert!(matches!(decoder.decode(&mut input.as_bytes(), &mut builder), Ok(None)));
            assert!(reserved(&decoder) <= limits.depth * RESERVED_ITEMS + 2 * items);
        }
    }
}
