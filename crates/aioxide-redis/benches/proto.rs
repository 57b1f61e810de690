//! What a reply and a command cost: nanoseconds for small ones, bytes a second for large ones.
#![expect(missing_docs, reason = "criterion makes a public function")]

use std::hint::black_box;

use aioxide_redis::proto::{Command, Decoder, Limits, ReplyBuilder, ValueBuilder, encoder, slot};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

/// Makes nothing, so that only decoding is measured.
struct Nothing;

impl ReplyBuilder for Nothing {
    type Reply = ();

    fn null(&mut self) {}

    fn simple_string(&mut self, text: &[u8]) {
        black_box(text);
    }

    fn error(&mut self, text: &[u8]) {
        black_box(text);
    }

    fn integer(&mut self, value: i64) {
        black_box(value);
    }

    fn bulk_string(&mut self, bytes: &[u8]) {
        black_box(bytes);
    }

    fn boolean(&mut self, value: bool) {
        black_box(value);
    }

    fn double(&mut self, value: f64) {
        black_box(value);
    }

    fn big_number(&mut self, digits: &[u8]) {
        black_box(digits);
    }

    fn verbatim_string(&mut self, _: [u8; 3], text: &[u8]) {
        black_box(text);
    }

    fn array(&mut self, items: Vec<()>) {
        black_box(items);
    }

    fn set(&mut self, items: Vec<()>) {
        black_box(items);
    }

    fn map(&mut self, pairs: Vec<((), ())>) {
        black_box(pairs);
    }
}

/// Decodes all replies of an input.
fn decode_all<B: ReplyBuilder>(decoder: &mut Decoder<B::Reply>, mut input: &[u8], builder: &mut B) -> usize {
    let mut count = 0;
    while let Some(decoded) = decoder.decode(&mut input, builder).expect("the input is valid") {
        black_box(decoded);
        count += 1;
    }
    assert!(input.is_empty());
    count
}

fn decoding(criterion: &mut Criterion) {
    /// So many in a row, as a busy connection receives them.
    const REPLIES: usize = 1000;
    let mut group = criterion.benchmark_group("decode a reply");
    group.throughput(Throughput::Elements(REPLIES as u64));
    let hash = format!("%8\r\n{}", "$5\r\nfield\r\n$5\r\nvalue\r\n".repeat(8));
    for (name, reply) in [
        ("simple string", "+OK\r\n"),
        ("integer", ":1\r\n"),
        ("bulk string", "$5\r\nhello\r\n"),
        ("null", "_\r\n"),
        ("array of 3 integers", "*3\r\n:1\r\n:2\r\n:3\r\n"),
        ("map of 8", &hash),
    ] {
        let input = reply.repeat(REPLIES).into_bytes();
        group.bench_function(format!("{name}, to nothing"), |bencher| {
            let mut decoder = Decoder::new(Limits::default());
            bencher.iter(|| decode_all(&mut decoder, black_box(&input), &mut Nothing));
        });
        group.bench_function(format!("{name}, to a value"), |bencher| {
            let mut decoder = Decoder::new(Limits::default());
            bencher.iter(|| decode_all(&mut decoder, black_box(&input), &mut ValueBuilder::default()));
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("decode bytes");
    let bulk = format!("$65536\r\n{}\r\n", "x".repeat(65536)).repeat(16);
    let array = format!("*100000\r\n{}", "$8\r\n12345678\r\n".repeat(100_000));
    for (name, input) in [("bulk strings of 64 KiB", bulk), ("an array of 100,000 strings", array)] {
        group.throughput(Throughput::Bytes(input.len() as u64));
        group.bench_function(name, |bencher| {
            let mut decoder = Decoder::new(Limits::default());
            bencher
                .iter(|| decode_all(&mut decoder, black_box(input.as_bytes()), &mut ValueBuilder::default()));
        });
    }
    group.finish();
}

fn encoding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    group.bench_function("GET, straight into a buffer", |bencher| {
        let mut buffer = Vec::with_capacity(64);
        bencher.iter(|| {
            buffer.clear();
            encoder::begin(&mut buffer, 2);
            encoder::bulk(&mut buffer, b"GET");
            encoder::bulk(&mut buffer, black_box(b"user:1000:name"));
            black_box(&buffer);
        });
    });
    group.bench_function("SET with a number, as a command", |bencher| {
        let mut buffer = Vec::with_capacity(64);
        bencher.iter(|| {
            buffer.clear();
            Command::new("SET").arg(black_box("user:1000:age")).arg(42).encode_into(&mut buffer);
            black_box(&buffer);
        });
    });
    group.bench_function("a double", |bencher| {
        let mut buffer = Vec::with_capacity(64);
        bencher.iter(|| {
            buffer.clear();
            encoder::double(&mut buffer, black_box(1.2345));
            black_box(&buffer);
        });
    });
    let value = vec![b'x'; 65536];
    group.throughput(Throughput::Bytes(value.len() as u64));
    group.bench_function("64 KiB", |bencher| {
        bencher.iter_batched_ref(
            || Vec::with_capacity(value.len() + 64),
            |buffer| encoder::bulk(buffer, black_box(&value)),
            BatchSize::SmallInput,
        );
    });
    group.finish();
    criterion
        .bench_function("slot of a key", |bencher| bencher.iter(|| slot(black_box(b"{user:1000}:name"))));
}

criterion_group!(benches, decoding, encoding);
criterion_main!(benches);
