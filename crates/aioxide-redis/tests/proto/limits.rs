//! What a server cannot make a client do.

use aioxide_redis::proto::{Decoded, Decoder, Limits, ProtocolError, ReplyBuilder, Value, ValueBuilder};

use crate::feeding::{Outcome, feed};

fn limited(limits: Limits, input: &[u8]) -> Outcome<Value> {
    let whole = feed([input], limits, &mut ValueBuilder::default());
    assert_eq!(feed(input.chunks(1), limits, &mut ValueBuilder::default()), whole, "byte by byte");
    whole
}

#[track_caller]
fn assert_fits(limits: Limits, input: &[u8]) {
    let outcome = limited(limits, input);
    assert_eq!((outcome.decoded.len(), outcome.end), (1, Ok(0)));
}

#[track_caller]
fn assert_refused(limits: Limits, input: &[u8], error: ProtocolError) {
    assert_eq!(limited(limits, input), Outcome { decoded: vec![], end: Err(error) });
}

#[test]
fn aggregates_are_nested_as_deeply_as_the_limit_says() {
    let limits = Limits { depth: 3, ..Limits::default() };
    assert_fits(limits, b"*1\r\n%1\r\n:1\r\n~1\r\n:1\r\n");
    assert_refused(limits, b"*1\r\n%1\r\n:1\r\n~1\r\n*1\r\n", ProtocolError::TooDeep);
    assert_refused(limits, b"|0\r\n|0\r\n|0\r\n|0\r\n+OK\r\n", ProtocolError::TooDeep);
}

#[test]
#[cfg_attr(miri, ignore = "too much for an interpreter")]
fn depth_costs_no_stack() {
    let depth = 1_000_000;
    let limits = Limits { depth, ..Limits::default() };
    /// How deep a reply is: nothing that recurses when it is dropped.
    struct Depth;
    impl ReplyBuilder for Depth {
        type Reply = usize;
        fn null(&mut self) -> usize {
            0
        }
        fn simple_string(&mut self, _: &[u8]) -> usize {
            0
        }
        fn error(&mut self, _: &[u8]) -> usize {
            0
        }
        fn integer(&mut self, _: i64) -> usize {
            0
        }
        fn bulk_string(&mut self, _: &[u8]) -> usize {
            0
        }
        fn boolean(&mut self, _: bool) -> usize {
            0
        }
        fn double(&mut self, _: f64) -> usize {
            0
        }
        fn big_number(&mut self, _: &[u8]) -> usize {
            0
        }
        fn verbatim_string(&mut self, _: [u8; 3], _: &[u8]) -> usize {
            0
        }
        fn array(&mut self, items: Vec<usize>) -> usize {
            1 + items.into_iter().max().unwrap_or(0)
        }
        fn set(&mut self, items: Vec<usize>) -> usize {
            self.array(items)
        }
        fn map(&mut self, pairs: Vec<(usize, usize)>) -> usize {
            1 + pairs.into_iter().map(|(key, value)| key.max(value)).max().unwrap_or(0)
        }
    }
    let input = b"*1\r\n".repeat(depth - 1).into_iter().chain(*b"*0\r\n").collect::<Vec<_>>();
    let decoded = Decoder::new(limits).decode(&mut &input[..], &mut Depth);
    assert_eq!(decoded, Ok(Some(Decoded::Reply(depth))));
    // Attributes of attributes of attributes.
    let input = b"|0\r\n".repeat(depth - 1).into_iter().chain(*b"+OK\r\n").collect::<Vec<_>>();
    let decoded = Decoder::new(limits).decode(&mut &input[..], &mut Depth);
    assert_eq!(decoded, Ok(Some(Decoded::Reply(0))));
}

#[test]
fn strings_are_as_long_as_the_limit_says() {
    let limits = Limits { bulk_bytes: 4, ..Limits::default() };
    for fits in [
        &b"$4\r\nabcd\r\n"[..],
        b"+abcd\r\n",
        b"-abcd\r\n",
        b"(1234\r\n",
        b"!4\r\nabcd\r\n",
        b"=4\r\ntxt:\r\n",
        b"$?\r\n;2\r\nab\r\n;2\r\ncd\r\n;0\r\n",
    ] {
        assert_fits(limits, fits);
    }
    for too_long in [
        &b"$5\r\n"[..],
        b"+abcde\r\n",
        b"-abcde\r\n",
        b"(12345\r\n",
        b"!5\r\n",
        b"=5\r\n",
        b"$?\r\n;2\r\nab\r\n;3\r\n",
    ] {
        assert_refused(limits, too_long, ProtocolError::TooLong);
    }
}

#[test]
fn a_line_without_an_end_is_refused_as_soon_as_it_is_too_long() {
    let limits = Limits { bulk_bytes: 4, ..Limits::default() };
    assert_eq!(limited(limits, b"+abcd\r").end, Ok(6));
    assert_refused(limits, b"+abcdefg", ProtocolError::TooLong);
}

#[test]
fn the_items_of_a_reply_are_counted_together() {
    let limits = Limits { items: 4, ..Limits::default() };
    assert_fits(limits, b"*2\r\n*2\r\n:1\r\n:2\r\n*0\r\n");
    assert_fits(limits, b"%2\r\n:1\r\n:1\r\n:2\r\n:2\r\n");
    assert_fits(limits, b"*?\r\n:1\r\n:2\r\n:3\r\n:4\r\n.\r\n");
    assert_refused(limits, b"*5\r\n", ProtocolError::TooManyItems);
    assert_refused(limits, b"%3\r\n", ProtocolError::TooManyItems);
    assert_refused(limits, b"*2\r\n*3\r\n", ProtocolError::TooManyItems);
    assert_refused(limits, b"%1\r\n:1\r\n~3\r\n", ProtocolError::TooManyItems);
    assert_refused(limits, b"|1\r\n:1\r\n:1\r\n*3\r\n", ProtocolError::TooManyItems);
    assert_refused(limits, b"*?\r\n:1\r\n:2\r\n:3\r\n:4\r\n:5\r\n", ProtocolError::TooManyItems);
    assert_refused(limits, b"%?\r\n:1\r\n:2\r\n:3\r\n:4\r\n:5\r\n:6\r\n", ProtocolError::TooManyItems);
}

#[test]
fn every_reply_has_all_the_items_for_itself() {
    let limits = Limits { items: 2, ..Limits::default() };
    let outcome = limited(limits, b"*2\r\n:1\r\n:2\r\n*2\r\n:1\r\n:2\r\n>1\r\n:1\r\n*?\r\n:1\r\n:2\r\n.\r\n");
    assert_eq!((outcome.decoded.len(), outcome.end), (4, Ok(0)));
}

#[test]
fn the_largest_lengths_are_refused_or_waited_for_but_never_reserved() {
    let unlimited = Limits { depth: 128, bulk_bytes: usize::MAX, items: usize::MAX };
    for (input, length) in [
        (&b"$18446744073709551615\r\nabc"[..], 26),
        (b"*18446744073709551615\r\n", 0),
        (b"%9223372036854775807\r\n", 0),
        (b"!18446744073709551614\r\n", 23),
    ] {
        assert_eq!(limited(unlimited, input), Outcome { decoded: vec![], end: Ok(length) });
    }
    assert_refused(Limits::default(), b"%18446744073709551615\r\n", ProtocolError::TooManyItems);
}

#[test]
#[cfg_attr(miri, ignore = "too much for an interpreter")]
fn a_long_string_in_small_pieces_is_not_looked_at_again() {
    // Were all of it searched for each piece, this would take minutes.
    let length = 64 << 20;
    let mut decoder = Decoder::new(Limits::default());
    let mut builder = ValueBuilder::default();
    let mut whole = format!("${length}\r\n").into_bytes();
    let header = whole.len();
    whole.resize(header + length, b'x');
    whole.extend_from_slice(b"\r\n");
    for end in (0..whole.len()).step_by(1024) {
        assert_eq!(decoder.decode(&mut &whole[..end], &mut builder), Ok(None));
    }
    assert!(decoder.decode(&mut &whole[..], &mut builder).unwrap().is_some());

    let mut line = vec![b'+'];
    line.resize(16 << 20, b'x');
    line.extend_from_slice(b"\r\n");
    for end in (0..line.len()).step_by(256) {
        assert_eq!(decoder.decode(&mut &line[..end], &mut builder), Ok(None));
    }
    assert!(decoder.decode(&mut &line[..], &mut builder).unwrap().is_some());
}

#[test]
#[cfg_attr(miri, ignore = "too much for an interpreter")]
fn a_million_items_in_small_pieces() {
    let items = 1_000_000;
    let mut input = format!("*{items}\r\n").into_bytes();
    input.extend(b":1\r\n".repeat(items));
    let outcome = feed(input.chunks(1000), Limits::default(), &mut ValueBuilder::default());
    assert_eq!(outcome.end, Ok(0));
    assert_eq!(outcome.decoded, [Decoded::Reply(Value::Array(vec![Value::Integer(1); items]))]);
}
