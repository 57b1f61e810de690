//! What holds for every input: the same result for every split, what was encoded comes back, and a server that
//! lies gets neither a panic nor memory.

use aioxide_redis::proto::{
    Attributed, Command, Decoded, Limits, ReplyBuilder, ServerError, Value, ValueBuilder,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::feeding::{Outcome, feed};

/// Any reply, as a server of RESP3 could send it.
fn any_value() -> impl Strategy<Value = Value> {
    let line = || "[ -~]{0,20}".prop_map(String::into_bytes);
    let leaf = prop_oneof![
        Just(Value::Null),
        line().prop_map(|text| Value::SimpleString(text.into())),
        line().prop_map(|text| Value::Error(ServerError::new(&text))),
        any::<i64>().prop_map(Value::Integer),
        vec(any::<u8>(), 0..40).prop_map(Value::BulkString),
        any::<bool>().prop_map(Value::Boolean),
        // Not NaN, which equals nothing.
        any::<f64>().prop_filter("a number", |value| !value.is_nan()).prop_map(Value::Double),
        "-?[0-9]{1,40}".prop_map(Value::BigNumber),
        ("[a-z]{3}", vec(any::<u8>(), 0..40)).prop_map(|(format, text)| {
            let format = format.into_bytes().try_into().expect("three letters");
            Value::VerbatimString { format, text }
        }),
    ];
    leaf.prop_recursive(5, 64, 6, |inner| {
        let pairs = || vec((inner.clone(), inner.clone()), 0..4);
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::Array),
            vec(inner.clone(), 0..6).prop_map(Value::Set),
            pairs().prop_map(Value::Map),
            (pairs(), inner.clone()).prop_map(|(attributes, reply)| {
                Value::Attributed(Box::new(Attributed { attributes, reply }))
            }),
        ]
    })
}

/// A server: writes a value in one of the ways that it may be written.
struct Writer<'choice> {
    output: Vec<u8>,
    /// Decides, over and over, between ways.
    choices: std::iter::Cycle<std::slice::Iter<'choice, u8>>,
}

impl Writer<'_> {
    fn choice(&mut self, ways: u8) -> u8 {
        self.choices.next().map_or(0, |choice| choice % ways)
    }

    fn line(&mut self, marker: char, text: &[u8]) {
        self.output.push(marker as u8);
        self.output.extend_from_slice(text);
        self.output.extend_from_slice(b"\r\n");
    }

    fn string(&mut self, marker: char, bytes: &[u8]) {
        self.line(marker, bytes.len().to_string().as_bytes());
        self.output.extend_from_slice(bytes);
        self.output.extend_from_slice(b"\r\n");
    }

    /// The header of an aggregate, with a length or streamed, and what ends it.
    fn header(&mut self, marker: char, length: usize) -> &'static [u8] {
        if marker != '|' && self.choice(3) == 0 {
            self.line(marker, b"?");
            b".\r\n"
        } else {
            self.line(marker, length.to_string().as_bytes());
            b""
        }
    }

    fn list(&mut self, marker: char, items: &[Value]) {
        let end = self.header(marker, items.len());
        items.iter().for_each(|item| self.value(item));
        self.output.extend_from_slice(end);
    }

    fn pairs(&mut self, marker: char, pairs: &[(Value, Value)]) {
        let end = self.header(marker, pairs.len());
        for (key, value) in pairs {
            self.value(key);
            self.value(value);
        }
        self.output.extend_from_slice(end);
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Null => {
                let null: &[u8] = [&b"_\r\n"[..], b"$-1\r\n", b"*-1\r\n"][usize::from(self.choice(3))];
                self.output.extend_from_slice(null);
            }
            Value::SimpleString(text) => self.line('+', text),
            Value::Error(error) if self.choice(2) == 0 => self.line('-', error.text().as_bytes()),
            Value::Error(error) => self.string('!', error.text().as_bytes()),
            Value::Integer(value) => self.line(':', value.to_string().as_bytes()),
            Value::BulkString(bytes) if self.choice(3) == 0 => {
                self.line('$', b"?");
                let length = usize::from(self.choice(9)) + 1;
                bytes.chunks(length).for_each(|chunk| self.string(';', chunk));
                self.line(';', b"0");
            }
            Value::BulkString(bytes) => self.string('$', bytes),
            Value::Boolean(value) => self.line('#', if *value { b"t" } else { b"f" }),
            Value::Double(value) => self.line(',', value.to_string().as_bytes()),
            Value::BigNumber(digits) => self.line('(', digits.as_bytes()),
            Value::VerbatimString { format, text } => {
                let bytes = [&format[..], b":", text].concat();
                self.string('=', &bytes);
            }
            Value::Array(items) => self.list('*', items),
            Value::Set(items) => self.list('~', items),
            Value::Map(pairs) => self.pairs('%', pairs),
            Value::Attributed(attributed) => {
                self.pairs('|', &attributed.attributes);
                self.value(&attributed.reply);
            }
        }
    }
}

fn written(values: &[Value], choices: &[u8]) -> Vec<u8> {
    let mut writer = Writer { output: Vec::new(), choices: choices.iter().cycle() };
    values.iter().for_each(|value| writer.value(value));
    writer.output
}

/// The pieces between the cuts.
fn pieces<'input>(input: &'input [u8], cuts: &[Index]) -> Vec<&'input [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
    cuts.extend([0, input.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|ends| &input[ends[0]..ends[1]]).collect()
}

fn decode(pieces: &[&[u8]]) -> Outcome<Value> {
    feed(pieces.iter().copied(), Limits::default(), &mut ValueBuilder::keeping_attributes())
}

/// Limits that small inputs reach.
const TIGHT: Limits = Limits { depth: 4, bulk_bytes: 12, items: 12 };

/// Bytes that are often nearly the protocol.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let token = prop_oneof![
        8 => proptest::sample::select(vec![
            "+", "-", ":", "$", "*", "_", "#", ",", "(", "!", "=", "%", "~", "|", ">", ";", ".", "?", "-1", "0",
            "1", "2", "3", "10", "99999999999999999999", "\r\n", "\r\n", "\r\n", "\r", "\n", "t", "f", "txt:", "ab",
            "nan", "inf", "$?\r\n", "*?\r\n", ";0\r\n", ".\r\n", "_\r\n", ":1\r\n", "$1\r\na\r\n", "*2\r\n", "%1\r\n",
            "|1\r\n", ">1\r\n", "~1\r\n",
        ])
        .prop_map(|token| token.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 1..4),
    ];
    vec(token, 0..40).prop_map(|tokens| tokens.concat())
}

/// Writes down what it is told: unlike values, the texts are equal even with NaN in them.
struct Comparable;

impl ReplyBuilder for Comparable {
    type Reply = String;

    fn null(&mut self) -> String {
        "null".into()
    }

    fn simple_string(&mut self, text: &[u8]) -> String {
        format!("simple {}", text.escape_ascii())
    }

    fn error(&mut self, text: &[u8]) -> String {
        format!("error {}", text.escape_ascii())
    }

    fn integer(&mut self, value: i64) -> String {
        format!("integer {value}")
    }

    fn bulk_string(&mut self, bytes: &[u8]) -> String {
        format!("bulk {}", bytes.escape_ascii())
    }

    fn boolean(&mut self, value: bool) -> String {
        format!("boolean {value}")
    }

    fn double(&mut self, value: f64) -> String {
        format!("double {value}")
    }

    fn big_number(&mut self, digits: &[u8]) -> String {
        format!("big {}", digits.escape_ascii())
    }

    fn verbatim_string(&mut self, format: [u8; 3], text: &[u8]) -> String {
        format!("verbatim {} {}", format.escape_ascii(), text.escape_ascii())
    }

    fn array(&mut self, items: Vec<String>) -> String {
        format!("array {items:?}")
    }

    fn set(&mut self, items: Vec<String>) -> String {
        format!("set {items:?}")
    }

    fn map(&mut self, pairs: Vec<(String, String)>) -> String {
        format!("map {pairs:?}")
    }

    fn attributed(&mut self, attributes: Vec<(String, String)>, reply: String) -> String {
        format!("{reply} with {attributes:?}")
    }
}

/// Checks that nothing is reserved for items that are only claimed.
struct Miser {
    input_length: usize,
}

impl Miser {
    #[track_caller]
    fn check(&self, capacity: usize, items: usize) {
        // What the remaining input could hold at most, or what a growing vector has in reserve.
        assert!(capacity <= (self.input_length / 3).max(2 * items).max(4), "{capacity} places for {items}");
    }
}

/// As large as a [`Value`].
type Part = [u64; 4];

impl ReplyBuilder for Miser {
    type Reply = Part;

    fn null(&mut self) -> Part {
        Part::default()
    }

    fn simple_string(&mut self, _: &[u8]) -> Part {
        Part::default()
    }

    fn error(&mut self, _: &[u8]) -> Part {
        Part::default()
    }

    fn integer(&mut self, _: i64) -> Part {
        Part::default()
    }

    fn bulk_string(&mut self, bytes: &[u8]) -> Part {
        assert!(bytes.len() <= self.input_length);
        Part::default()
    }

    fn boolean(&mut self, _: bool) -> Part {
        Part::default()
    }

    fn double(&mut self, _: f64) -> Part {
        Part::default()
    }

    fn big_number(&mut self, _: &[u8]) -> Part {
        Part::default()
    }

    fn verbatim_string(&mut self, _: [u8; 3], _: &[u8]) -> Part {
        Part::default()
    }

    fn array(&mut self, items: Vec<Part>) -> Part {
        self.check(items.capacity(), items.len());
        Part::default()
    }

    fn set(&mut self, items: Vec<Part>) -> Part {
        self.array(items)
    }

    fn map(&mut self, pairs: Vec<(Part, Part)>) -> Part {
        self.check(pairs.capacity(), pairs.len());
        Part::default()
    }

    fn attributed(&mut self, attributes: Vec<(Part, Part)>, _: Part) -> Part {
        self.map(attributes)
    }
}

proptest! {
    // Miri is some hundred times slower.
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 4 } else { 300 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_a_server_writes_comes_back_however_it_was_split(
        values in vec(any_value(), 0..5),
        choices in vec(any::<u8>(), 1..30),
        cuts in vec(any::<Index>(), 0..20),
    ) {
        let input = written(&values, &choices);
        let expected = Outcome { decoded: values.into_iter().map(Decoded::Reply).collect(), end: Ok(0) };
        prop_assert_eq!(decode(&[&input]), decode(&pieces(&input, &cuts)));
        prop_assert_eq!(decode(&[&input]), expected);
    }

    #[test]
    fn a_command_that_was_encoded_comes_back(arguments in vec(vec(any::<u8>(), 0..300), 0..30)) {
        let command = Command::new("NAME").args(&arguments);
        let mut input = Vec::new();
        command.encode_into(&mut input);
        let expected: Vec<Value> =
            std::iter::once(b"NAME".to_vec()).chain(arguments).map(Value::BulkString).collect();
        let decoded = vec![Decoded::Reply(Value::Array(expected))];
        prop_assert_eq!(decode(&[&input]), Outcome { decoded, end: Ok(0) });
    }

    #[test]
    fn numbers_in_a_command_mean_the_same_when_they_come_back(integer: i64, double: f64) {
        let command = Command::new("NAME").arg(integer).arg(double);
        let arguments: Vec<String> = command.arguments().map(|argument| argument.escape_ascii().to_string()).collect();
        prop_assert_eq!(arguments[1].parse(), Ok(integer));
        let returned: f64 = arguments[2].parse().expect("a number");
        prop_assert!(returned == double || double.is_nan() && returned.is_nan());
    }

    #[test]
    fn noise_ends_in_the_same_way_however_it_was_split(input in noise(), cuts in vec(any::<Index>(), 0..20)) {
        for limits in [Limits::default(), TIGHT] {
            let whole = feed([&input[..]], limits, &mut Comparable);
            let split = feed(pieces(&input, &cuts), limits, &mut Comparable);
            prop_assert_eq!(whole, split);
        }
    }

    #[test]
    fn damaged_replies_end_in_the_same_way_however_they_were_split(
        values in vec(any_value(), 1..5),
        choices in vec(any::<u8>(), 1..30),
        damage in vec((any::<Index>(), any::<u8>()), 1..4),
        cuts in vec(any::<Index>(), 0..20),
    ) {
        let mut input = written(&values, &choices);
        for (place, byte) in damage {
            let place = place.index(input.len());
            input[place] = byte;
        }
        let whole = feed([&input[..]], Limits::default(), &mut Comparable);
        let split = feed(pieces(&input, &cuts), Limits::default(), &mut Comparable);
        prop_assert_eq!(whole, split);
    }

    #[test]
    fn nothing_is_reserved_for_items_that_are_only_claimed(input in noise()) {
        feed([&input[..]], Limits { depth: 128, bulk_bytes: usize::MAX, items: usize::MAX }, &mut Miser {
            input_length: input.len(),
        });
    }
}
