//! The same result, or the same error, however the input was split.
#![no_main]

use aioxide_redis::proto::{Limits, ValueBuilder};
use libfuzzer_sys::fuzz_target;

#[path = "../../crates/aioxide-redis/tests/proto/feeding.rs"]
mod feeding;

/// The first bytes say how long the pieces are, over and over.
const LENGTHS: usize = 4;

fuzz_target!(|input: &[u8]| {
    let Some((lengths, input)) = input.split_at_checked(LENGTHS) else { return };
    let limits = Limits { depth: 16, bulk_bytes: 1 << 10, items: 1 << 10 };
    let mut rest = input;
    let pieces = lengths.iter().cycle().map_while(|&length| {
        let (piece, behind) = rest.split_at(usize::from(length % 32 + 1).min(rest.len()));
        rest = behind;
        (!piece.is_empty()).then_some(piece)
    });
    let split = feeding::feed(pieces, limits, &mut ValueBuilder::keeping_attributes());
    let whole = feeding::feed([input], limits, &mut ValueBuilder::keeping_attributes());
    // As text: there NaN is equal to itself.
    assert_eq!(format!("{split:?}"), format!("{whole:?}"));
});
