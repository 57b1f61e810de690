//! Replies as the types that callers ask for, from either version of the protocol.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use aioxide_redis::proto::{
    Attributed, ConversionError, Decoded, Decoder, FromValue, Limits, ServerError, Value, ValueBuilder,
};

#[track_caller]
fn convert<T: FromValue>(mut input: &[u8]) -> Result<T, ConversionError> {
    let decoded = Decoder::new(Limits::default()).decode(&mut input, &mut ValueBuilder::default());
    match decoded {
        Ok(Some(Decoded::Reply(value))) => value.convert(),
        other => panic!("no reply but {other:?}"),
    }
}

#[test]
fn numbers_come_as_integers_strings_or_doubles() {
    assert_eq!(convert::<i64>(b":-5\r\n"), Ok(-5));
    assert_eq!(convert::<u16>(b"$3\r\n500\r\n"), Ok(500));
    assert_eq!(convert::<u128>(b"(340282366920938463463374607431768211455\r\n"), Ok(u128::MAX));
    assert_eq!(convert::<f64>(b",1.5\r\n"), Ok(1.5));
    assert_eq!(convert::<f64>(b"$3\r\n1.5\r\n"), Ok(1.5));
    assert_eq!(convert::<f64>(b":2\r\n"), Ok(2.0));
    assert_eq!(convert::<f32>(b",0.5\r\n"), Ok(0.5));
}

#[test]
fn numbers_that_do_not_fit_are_errors() {
    fn assert_malformed<T: FromValue + std::fmt::Debug>(input: &[u8], expected: &'static str) {
        assert_eq!(convert::<T>(input).unwrap_err(), ConversionError::Malformed { expected });
    }
    assert_malformed::<u16>(b":70000\r\n", "an integer of type u16");
    assert_malformed::<u64>(b":-1\r\n", "an integer of type u64");
    assert_malformed::<i64>(b"$1\r\nx\r\n", "an integer of type i64");
    assert_malformed::<f64>(b"$1\r\nx\r\n", "a float");
}

#[test]
fn text_and_bytes_come_as_strings_of_any_kind() {
    for input in [&b"+text\r\n"[..], b"$4\r\ntext\r\n", b"=8\r\ntxt:text\r\n"] {
        assert_eq!(convert::<String>(input), Ok("text".into()));
        assert_eq!(convert::<Vec<u8>>(input), Ok(b"text".into()));
    }
    assert_eq!(convert::<String>(b":5\r\n"), Ok("5".into()));
    let malformed = ConversionError::Malformed { expected: "text in UTF-8" };
    assert_eq!(convert::<String>(b"$1\r\n\xff\r\n"), Err(malformed));
}

#[test]
fn null_is_none_and_nothing_else() {
    assert_eq!(convert::<Option<String>>(b"_\r\n"), Ok(None));
    assert_eq!(convert::<Option<i64>>(b"$-1\r\n"), Ok(None));
    assert_eq!(convert::<Option<i64>>(b":1\r\n"), Ok(Some(1)));
    let mismatch = ConversionError::Mismatch { expected: "bytes", found: "null" };
    assert_eq!(convert::<String>(b"_\r\n"), Err(mismatch));
}

#[test]
fn booleans_come_in_the_ways_of_both_versions() {
    for (input, value) in [
        (&b"#t\r\n"[..], true),
        (b"#f\r\n", false),
        (b":1\r\n", true),
        (b":0\r\n", false),
        (b"+OK\r\n", true),
        (b"_\r\n", false),
    ] {
        assert_eq!(convert::<bool>(input), Ok(value));
    }
    let mismatch = ConversionError::Mismatch { expected: "a boolean", found: "integer" };
    assert_eq!(convert::<bool>(b":2\r\n"), Err(mismatch));
}

#[test]
fn collections_come_from_arrays_sets_and_maps() {
    assert_eq!(convert::<Vec<i64>>(b"*2\r\n:1\r\n$1\r\n2\r\n"), Ok(vec![1, 2]));
    assert_eq!(convert::<HashSet<i64>>(b"~2\r\n:1\r\n:2\r\n"), Ok(HashSet::from([1, 2])));
    assert_eq!(convert::<BTreeSet<i64>>(b"*2\r\n:1\r\n:2\r\n"), Ok(BTreeSet::from([1, 2])));
    let expected = HashMap::from([("a".to_owned(), 1), ("b".to_owned(), 2)]);
    for input in [
        &b"%2\r\n+a\r\n:1\r\n+b\r\n:2\r\n"[..],
        b"*4\r\n+a\r\n:1\r\n+b\r\n:2\r\n",
        b"*2\r\n*2\r\n+a\r\n:1\r\n*2\r\n+b\r\n:2\r\n",
    ] {
        assert_eq!(convert::<HashMap<String, i64>>(input).as_ref(), Ok(&expected));
    }
    assert_eq!(convert::<BTreeMap<i64, i64>>(b"*0\r\n"), Ok(BTreeMap::new()));
    let malformed = ConversionError::Malformed { expected: "a map" };
    assert_eq!(convert::<HashMap<String, i64>>(b"*1\r\n+a\r\n"), Err(malformed));
    let pairs = vec![("a".to_owned(), 1.5)];
    assert_eq!(convert::<Vec<(String, f64)>>(b"%1\r\n+a\r\n,1.5\r\n"), Ok(pairs));
}

#[test]
fn tuples_come_from_arrays_of_their_length() {
    let expected = (0, vec!["a".to_owned()]);
    assert_eq!(convert::<(u64, Vec<String>)>(b"*2\r\n$1\r\n0\r\n*1\r\n+a\r\n"), Ok(expected));
    let malformed = ConversionError::Malformed { expected: "an array of 2" };
    assert_eq!(convert::<(u64, u64)>(b"*1\r\n:1\r\n"), Err(malformed));
}

#[test]
fn an_error_of_the_server_is_an_error_unless_it_is_asked_for() {
    let error = ServerError::new(b"ERR no");
    assert_eq!(convert::<i64>(b"-ERR no\r\n"), Err(ConversionError::Server(error.clone())));
    assert_eq!(convert::<()>(b"-ERR no\r\n"), Err(ConversionError::Server(error.clone())));
    assert_eq!(convert::<Option<i64>>(b"-ERR no\r\n"), Err(ConversionError::Server(error.clone())));
    assert_eq!(convert::<()>(b":1\r\n"), Ok(()));
    assert_eq!(convert::<Value>(b"-ERR no\r\n"), Ok(Value::Error(error.clone())));
    let replies = convert::<Vec<Result<i64, ServerError>>>(b"*2\r\n:1\r\n-ERR no\r\n");
    assert_eq!(replies, Ok(vec![Ok(1), Err(error)]));
}

#[test]
fn attributes_are_no_hindrance() {
    let attributed = Attributed { attributes: vec![], reply: Value::Integer(1) };
    let value = Value::Attributed(Box::new(attributed));
    assert_eq!(value.clone().convert::<i64>(), Ok(1));
    assert_eq!(value.convert::<Option<f64>>(), Ok(Some(1.0)));
}
