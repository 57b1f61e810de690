//! Every type of RESP2 and RESP3, whole and in pieces.

use aioxide_redis::proto::{Attributed, Decoded, Limits, ProtocolError, ServerError, Value, ValueBuilder};

use crate::feeding::{Outcome, feed};

fn decode_pieces<'piece>(pieces: impl IntoIterator<Item = &'piece [u8]>) -> Outcome<Value> {
    feed(pieces, Limits::default(), &mut ValueBuilder::keeping_attributes())
}

/// Decodes an input whole, byte by byte and in two pieces cut anywhere: always the same.
fn decode(input: &[u8]) -> Outcome<Value> {
    let whole = decode_pieces([input]);
    assert_eq!(decode_pieces(input.chunks(1)), whole, "byte by byte");
    for cut in 1..input.len() {
        let (front, back) = input.split_at(cut);
        assert_eq!(decode_pieces([front, back]), whole, "cut at {cut}");
    }
    whole
}

#[track_caller]
fn assert_reply(input: &[u8], expected: Value) {
    let expected = Outcome { decoded: vec![Decoded::Reply(expected)], end: Ok(0) };
    assert_eq!(decode(input), expected);
}

#[track_caller]
fn assert_error(input: &[u8], expected: ProtocolError) {
    assert_eq!(decode(input), Outcome { decoded: vec![], end: Err(expected) });
}

fn simple(text: &'static str) -> Value {
    Value::SimpleString(text.as_bytes().into())
}

fn bulk(text: &str) -> Value {
    Value::BulkString(text.into())
}

#[test]
fn simple_strings() {
    assert_reply(b"+OK\r\n", simple("OK"));
    assert_reply(b"+\r\n", simple(""));
    assert_reply(b"+with \r and \n alone\r\n", simple("with \r and \n alone"));
}

#[test]
fn errors_are_replies() {
    let error = |text: &str| Value::Error(ServerError::new(text.as_bytes()));
    assert_reply(b"-ERR unknown command\r\n", error("ERR unknown command"));
    assert_reply(b"-\r\n", error(""));
    assert_reply(b"!21\r\nSYNTAX invalid syntax\r\n", error("SYNTAX invalid syntax"));
    assert_reply(b"!5\r\nA\r\nB!\r\n", error("A\r\nB!"));
}

#[test]
fn integers() {
    assert_reply(b":0\r\n", Value::Integer(0));
    assert_reply(b":1000\r\n", Value::Integer(1000));
    assert_reply(b":+7\r\n", Value::Integer(7));
    assert_reply(b":-7\r\n", Value::Integer(-7));
    assert_reply(b":007\r\n", Value::Integer(7));
    assert_reply(b":9223372036854775807\r\n", Value::Integer(i64::MAX));
    assert_reply(b":-9223372036854775808\r\n", Value::Integer(i64::MIN));
}

#[test]
fn integers_that_are_none() {
    for input in [
        &b":\r\n"[..],
        b":-\r\n",
        b":+-1\r\n",
        b":1 \r\n",
        b": 1\r\n",
        b":1a\r\n",
        b":1\n",
        b":1\rx",
        b":9223372036854775808\r\n",
        b":-9223372036854775809\r\n",
        b":18446744073709551616\r\n",
        b":000000000000000000001\r\n",
    ] {
        assert_error(input, ProtocolError::InvalidInteger);
    }
}

#[test]
fn bulk_strings() {
    assert_reply(b"$5\r\nhello\r\n", bulk("hello"));
    assert_reply(b"$0\r\n\r\n", bulk(""));
    assert_reply(b"$4\r\n\r\n\r\n\r\n", bulk("\r\n\r\n"));
    assert_reply(b"$3\r\n\x00\xff\x80\r\n", Value::BulkString(vec![0, 0xff, 0x80]));
    assert_error(b"$3\r\nabcd\r\n", ProtocolError::MissingEndOfLine);
    assert_error(b"$3\r\nabc\rx", ProtocolError::MissingEndOfLine);
}

#[test]
fn nulls_of_both_versions() {
    assert_reply(b"$-1\r\n", Value::Null);
    assert_reply(b"*-1\r\n", Value::Null);
    assert_reply(b"_\r\n", Value::Null);
    assert_error(b"_x\r\n", ProtocolError::InvalidNull);
}

#[test]
fn lengths_that_are_none() {
    for input in [
        &b"$\r\n"[..],
        b"$-2\r\n",
        b"$-1x",
        b"$+1\r\n",
        b"$1x",
        b"$?x",
        b"*-2\r\n",
        b"*x",
        b"*99999999999999999999\r\n",
        b"%-1\r\n",
        b"~-1\r\n",
        b">-1\r\n",
        b">?\r\n",
        b"|?\r\n",
        b"|-1\r\n",
        b"!-1\r\n",
        b"!?\r\n",
        b"=-1\r\n",
    ] {
        assert_error(input, ProtocolError::InvalidLength);
    }
}

#[test]
fn booleans() {
    assert_reply(b"#t\r\n", Value::Boolean(true));
    assert_reply(b"#f\r\n", Value::Boolean(false));
    assert_error(b"#x\r\n", ProtocolError::InvalidBoolean);
    assert_error(b"#tt", ProtocolError::InvalidBoolean);
}

#[test]
fn doubles() {
    for (input, value) in [
        (&b",1.23\r\n"[..], 1.23),
        (b",10\r\n", 10.0),
        (b",-1e-5\r\n", -1e-5),
        (b",1.7976931348623157e+308\r\n", f64::MAX),
        (b",inf\r\n", f64::INFINITY),
        (b",-inf\r\n", f64::NEG_INFINITY),
    ] {
        assert_reply(input, Value::Double(value));
    }
    // Older servers send the sign that the C library wrote.
    for input in [&b",nan\r\n"[..], b",-nan\r\n"] {
        let mut outcome = decode_pieces([input]);
        assert_eq!(outcome.end, Ok(0));
        let decoded = outcome.decoded.pop();
        assert!(matches!(decoded, Some(Decoded::Reply(Value::Double(value))) if value.is_nan()));
    }
    for input in [&b",\r\n"[..], b",1,5\r\n", b",one\r\n", b",\xff\r\n"] {
        assert_error(input, ProtocolError::InvalidDouble);
    }
}

#[test]
fn big_numbers() {
    let number = "3492890328409238509324850943850943825024385";
    assert_reply(format!("({number}\r\n").as_bytes(), Value::BigNumber(number.into()));
    assert_reply(b"(-12\r\n", Value::BigNumber("-12".into()));
    assert_reply(b"(+12\r\n", Value::BigNumber("+12".into()));
    for input in [&b"(\r\n"[..], b"(-\r\n", b"(+-1\r\n", b"(1.5\r\n"] {
        assert_error(input, ProtocolError::InvalidBigNumber);
    }
}

#[test]
fn verbatim_strings() {
    let verbatim =
        |format: &[u8; 3], text: &str| Value::VerbatimString { format: *format, text: text.into() };
    assert_reply(b"=15\r\ntxt:Some string\r\n", verbatim(b"txt", "Some string"));
    assert_reply(b"=4\r\nmkd:\r\n", verbatim(b"mkd", ""));
    assert_error(b"=3\r\ntxt\r\n", ProtocolError::InvalidVerbatimString);
    assert_error(b"=5\r\ntext:\r\n", ProtocolError::InvalidVerbatimString);
}

#[test]
fn aggregates_hold_everything_also_aggregates() {
    assert_reply(b"*0\r\n", Value::Array(vec![]));
    assert_reply(b"~0\r\n", Value::Set(vec![]));
    assert_reply(b"%0\r\n", Value::Map(vec![]));
    assert_reply(b"*3\r\n:1\r\n$-1\r\n-ERR in a transaction\r\n", {
        let error = Value::Error(ServerError::new(b"ERR in a transaction"));
        Value::Array(vec![Value::Integer(1), Value::Null, error])
    });
    let nested = b"*2\r\n*2\r\n:1\r\n*0\r\n%2\r\n*1\r\n+key\r\n~1\r\n#t\r\n+other\r\n%0\r\n";
    assert_reply(
        nested,
        Value::Array(vec![
            Value::Array(vec![Value::Integer(1), Value::Array(vec![])]),
            Value::Map(vec![
                (Value::Array(vec![simple("key")]), Value::Set(vec![Value::Boolean(true)])),
                (simple("other"), Value::Map(vec![])),
            ]),
        ]),
    );
}

#[test]
fn duplicates_in_sets_and_maps_are_kept_for_the_caller_to_judge() {
    assert_reply(b"~2\r\n:1\r\n:1\r\n", Value::Set(vec![Value::Integer(1); 2]));
    let pair = (simple("a"), Value::Integer(1));
    assert_reply(b"%2\r\n+a\r\n:1\r\n+a\r\n:1\r\n", Value::Map(vec![pair.clone(), pair]));
}

#[test]
fn streamed_strings() {
    assert_reply(b"$?\r\n;4\r\nHell\r\n;5\r\no wor\r\n;2\r\nld\r\n;0\r\n", bulk("Hello world"));
    assert_reply(b"$?\r\n;0\r\n", bulk(""));
    assert_reply(b"*2\r\n$?\r\n;1\r\na\r\n;0\r\n:1\r\n", Value::Array(vec![bulk("a"), Value::Integer(1)]));
    assert_error(b"$?\r\n:1\r\n", ProtocolError::MissingChunk);
    assert_error(b"$?\r\n;1\r\na\r\n>1\r\n", ProtocolError::MissingChunk);
    assert_error(b"$?\r\n;-1\r\n", ProtocolError::InvalidLength);
    assert_error(b"$?\r\n;?\r\n", ProtocolError::InvalidLength);
    assert_error(b";1\r\na\r\n", ProtocolError::UnexpectedChunk);
}

#[test]
fn streamed_aggregates() {
    assert_reply(b"*?\r\n:1\r\n:2\r\n.\r\n", Value::Array(vec![Value::Integer(1), Value::Integer(2)]));
    assert_reply(b"*?\r\n.\r\n", Value::Array(vec![]));
    assert_reply(b"~?\r\n+a\r\n.\r\n", Value::Set(vec![simple("a")]));
    assert_reply(b"%?\r\n+a\r\n:1\r\n.\r\n", Value::Map(vec![(simple("a"), Value::Integer(1))]));
    assert_reply(b"*?\r\n*?\r\n.\r\n*1\r\n:1\r\n.\r\n", {
        Value::Array(vec![Value::Array(vec![]), Value::Array(vec![Value::Integer(1)])])
    });
}

#[test]
fn ends_where_nothing_can_end() {
    for input in [&b".\r\n"[..], b"*1\r\n.\r\n", b"%?\r\n+key\r\n.\r\n", b"*?\r\n|0\r\n.\r\n", b"*?\r\n.x"] {
        assert_error(input, ProtocolError::UnexpectedEnd);
    }
}

#[test]
fn attributes_belong_to_what_follows_them() {
    let attributed = |key: &'static str, reply: Value| {
        let attributes = vec![(simple(key), Value::Integer(1))];
        Value::Attributed(Box::new(Attributed { attributes, reply }))
    };
    assert_reply(b"|1\r\n+ttl\r\n:1\r\n+OK\r\n", attributed("ttl", simple("OK")));
    assert_reply(
        b"*2\r\n|1\r\n+ttl\r\n:1\r\n*0\r\n:2\r\n",
        Value::Array(vec![attributed("ttl", Value::Array(vec![])), Value::Integer(2)]),
    );
    assert_reply(
        b"|1\r\n+a\r\n:1\r\n|1\r\n+b\r\n:1\r\n*1\r\n:1\r\n",
        attributed("a", attributed("b", Value::Array(vec![Value::Integer(1)]))),
    );
    let empty = Attributed { attributes: vec![], reply: simple("OK") };
    assert_reply(b"|0\r\n+OK\r\n", Value::Attributed(Box::new(empty)));
}

#[test]
fn attributes_are_dropped_unless_somebody_wants_them() {
    let input = b"*1\r\n|1\r\n+ttl\r\n:1\r\n+OK\r\n";
    let outcome = feed([&input[..]], Limits::default(), &mut ValueBuilder::default());
    assert_eq!(outcome.decoded, [Decoded::Reply(Value::Array(vec![simple("OK")]))]);
}

#[test]
fn a_push_comes_between_replies() {
    let push = |text| Decoded::Push(Value::Array(vec![simple(text)]));
    let outcome = decode(b">1\r\n+a\r\n+OK\r\n>1\r\n+b\r\n>0\r\n*1\r\n:1\r\n");
    let expected = [
        push("a"),
        Decoded::Reply(simple("OK")),
        push("b"),
        Decoded::Push(Value::Array(vec![])),
        Decoded::Reply(Value::Array(vec![Value::Integer(1)])),
    ];
    assert_eq!(outcome, Outcome { decoded: expected.into(), end: Ok(0) });
}

#[test]
fn a_push_may_have_attributes_too() {
    let reply = Value::Array(vec![simple("a")]);
    let attributes = vec![(Value::Integer(1), Value::Integer(2))];
    let push = Decoded::Push(Value::Attributed(Box::new(Attributed { attributes, reply })));
    assert_eq!(decode(b"|1\r\n:1\r\n:2\r\n>1\r\n+a\r\n"), Outcome { decoded: vec![push], end: Ok(0) });
}

#[test]
fn a_push_inside_of_a_reply_is_an_error() {
    for input in [
        &b"*1\r\n>1\r\n+a\r\n"[..],
        b"*?\r\n>1\r\n+a\r\n",
        b"%1\r\n+key\r\n>1\r\n+a\r\n",
        b"|1\r\n>1\r\n+a\r\n:1\r\n",
        b"*1\r\n|0\r\n>1\r\n+a\r\n",
        b">1\r\n>1\r\n+a\r\n",
    ] {
        assert_error(input, ProtocolError::UnexpectedPush);
    }
}

#[test]
fn what_begins_no_reply_is_an_error() {
    assert_error(b"HTTP/1.1 400 Bad Request\r\n", ProtocolError::UnknownType(b'H'));
    assert_error(b"\r\n", ProtocolError::UnknownType(b'\r'));
    assert_error(b"*1\r\n@", ProtocolError::UnknownType(b'@'));
}

#[test]
fn replies_before_an_error_are_not_lost() {
    let outcome = decode(b"+OK\r\n:1\r\n?");
    let expected = vec![Decoded::Reply(simple("OK")), Decoded::Reply(Value::Integer(1))];
    assert_eq!(outcome, Outcome { decoded: expected, end: Err(ProtocolError::UnknownType(b'?')) });
}

#[test]
fn the_decoder_says_how_much_of_a_string_is_missing() {
    let mut decoder = aioxide_redis::proto::Decoder::new(Limits::default());
    let mut builder = ValueBuilder::default();
    assert_eq!(decoder.wanted(), 1);
    let mut input: &[u8] = b"*2\r\n$1000\r\nabc";
    assert_eq!(decoder.decode(&mut input, &mut builder), Ok(None));
    assert_eq!(input, b"$1000\r\nabc");
    assert_eq!(decoder.wanted(), b"$1000\r\n".len() + 1000 + 2);
    let text = "x".repeat(1000);
    let rest = format!("$1000\r\n{text}\r\n:1\r\n");
    let mut input = rest.as_bytes();
    let expected = Value::Array(vec![bulk(&text), Value::Integer(1)]);
    assert_eq!(decoder.decode(&mut input, &mut builder), Ok(Some(Decoded::Reply(expected))));
    assert_eq!(decoder.wanted(), 1);
}
