//! The timers against a model: a vector that is sorted (stably) whenever it is asked.

use aioxide_runtime::{Deadline, TimerKey, Timers};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Insert(u64),
    /// Inserts [`MANY`], at up to so many different times.
    InsertMany(u64),
    /// Cancels the timer that was inserted as number `n % inserted`, whether it still lives or not.
    Cancel(usize),
    /// Lets this much time pass and takes what expired, one by one.
    Advance(u64),
    /// The same at one go.
    Expire(u64),
    /// Cancels every timer but the latest, which sweeps the heap.
    CancelMost,
    Clear,
}

/// Enough for `expire` to sort what is due.
const MANY: u64 = 200;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        40 => (0_u64..50).prop_map(Step::Insert),
        25 => any::<usize>().prop_map(Step::Cancel),
        1 => (1_u64..50).prop_map(Step::InsertMany),
        15 => (0_u64..20).prop_map(Step::Advance),
        5 => (0_u64..50).prop_map(Step::Expire),
        2 => Just(Step::CancelMost),
        1 => Just(Step::Clear),
    ];
    proptest::collection::vec(step, 1..400)
}

/// Live timers as (deadline, number); the number is the value and counts insertions.
#[derive(Default)]
struct Model(Vec<(Deadline, usize)>);

impl Model {
    fn cancel(&mut self, number: usize) -> Option<usize> {
        let position = self.0.iter().position(|entry| entry.1 == number)?;
        Some(self.0.remove(position).1)
    }

    fn pop_expired(&mut self, now: Deadline) -> Option<usize> {
        self.0.sort_by_key(|entry| *entry);
        let (deadline, _) = *self.0.first()?;
        (deadline <= now).then(|| self.0.remove(0).1)
    }

    fn next_deadline(&self) -> Option<Deadline> {
        self.0.iter().map(|entry| entry.0).min()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 4 } else { 256 }, ..ProptestConfig::default() })]

    #[test]
    fn timers_behave_like_a_sorted_vector(steps in steps()) {
        let mut timers = Timers::new();
        let mut model = Model::default();
        let mut keys: Vec<TimerKey> = Vec::new();
        let mut now = Deadline(0);
        for step in steps {
            match step {
                Step::Insert(distance) => {
                    let deadline = Deadline(now.0 + distance);
                    model.0.push((deadline, keys.len()));
                    keys.push(timers.insert(deadline, keys.len()));
                }
                Step::InsertMany(times) => {
                    for turn in 0..MANY {
                        let deadline = Deadline(now.0 + turn * 7 % times);
                        model.0.push((deadline, keys.len()));
                        keys.push(timers.insert(deadline, keys.len()));
                    }
                }
                Step::Cancel(choice) if !keys.is_empty() => {
                    let number = choice % keys.len();
                    prop_assert_eq!(timers.cancel(keys[number]), model.cancel(number));
                }
                Step::Cancel(_) => {}
                Step::Advance(distance) => {
                    now = Deadline(now.0 + distance);
                    loop {
                        let expired = timers.pop_expired(now);
                        prop_assert_eq!(expired, model.pop_expired(now));
                        if expired.is_none() {
                            break;
                        }
                    }
                }
                Step::Expire(distance) => {
                    now = Deadline(now.0 + distance);
                    let mut expired = Vec::new();
                    timers.expire(now, |number| expired.push(number));
                    let expected: Vec<_> = std::iter::from_fn(|| model.pop_expired(now)).collect();
                    prop_assert_eq!(expired, expected);
                }
                Step::CancelMost => {
                    for (number, key) in keys.iter().enumerate().take(keys.len().saturating_sub(1)) {
                        prop_assert_eq!(timers.cancel(*key), model.cancel(number));
                    }
                }
                Step::Clear => {
                    let mut values: Vec<_> = timers.clear().collect();
                    values.sort_unstable();
                    let mut expected: Vec<_> = model.0.drain(..).map(|entry| entry.1).collect();
                    expected.sort_unstable();
                    prop_assert_eq!(values, expected);
                }
            }
            prop_assert_eq!(timers.len(), model.0.len());
            prop_assert_eq!(timers.next_deadline(), model.next_deadline());
            let mut visited = Vec::new();
            timers.for_each(|value| visited.push(*value));
            visited.sort_unstable();
            let mut expected: Vec<_> = model.0.iter().map(|entry| entry.1).collect();
            expected.sort_unstable();
            prop_assert_eq!(visited, expected);
        }
    }
}
