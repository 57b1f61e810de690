//! Whatever a server sends: no panic, and a decoder that either wants more, or has failed.
#![no_main]

use aioxide_redis::proto::{Limits, Value, ValueBuilder};
use libfuzzer_sys::fuzz_target;

#[path = "../../crates/aioxide-redis/tests/proto/feeding.rs"]
mod feeding;

fuzz_target!(|input: &[u8]| {
    let small = Limits { depth: 16, bulk_bytes: 1 << 10, items: 1 << 10 };
    for limits in [Limits::default(), small] {
        let outcome = feeding::feed([input], limits, &mut ValueBuilder::keeping_attributes());
        for decoded in outcome.decoded {
            use aioxide_redis::proto::Decoded::{Push, Reply};
            let (Push(value) | Reply(value)) = decoded;
            convert(&value);
        }
    }
});

/// Conversions take any reply.
fn convert(value: &Value) {
    use std::collections::{BTreeMap, BTreeSet};
    drop(value.clone().convert::<Option<Vec<String>>>());
    drop(value.clone().convert::<BTreeMap<Vec<u8>, Vec<u8>>>());
    drop(value.clone().convert::<BTreeSet<i64>>());
    drop(value.clone().convert::<(f64, String)>());
    drop(value.clone().convert::<bool>());
}
