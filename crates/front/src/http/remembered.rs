//! The short forms of what requests came to: runs of words, for at most 160 bytes are remembered of each.

use api::{Code, Delivery, ItemResult};
use serde_json::Value;

use super::once::Remembered;
use crate::devices::{PartNames, Reached, WriteKey, id_of, text_of};

/// Results of a list, in its order: so often this word.
pub(super) type Runs = Vec<(u32, String)>;

impl Remembered for Delivery {
    type Short = Self;

    fn shorten(&self, _: &WriteKey) -> Option<Self> {
        Some(*self)
    }

    fn restore(short: Self, _: &WriteKey) -> Option<Self> {
        Some(short)
    }
}

/// A batch that is one thing: what its receipt is called, if it is stored.
impl Remembered for Reached<()> {
    type Short = Option<String>;

    fn shorten(&self, _: &WriteKey) -> Option<Option<String>> {
        Some(match self {
            Self::Hub(()) => None,
            Self::Stored(receipt) => Some(text_of(*receipt)),
        })
    }

    fn restore(short: Option<String>, _: &WriteKey) -> Option<Self> {
        match short {
            None => Some(Self::Hub(())),
            Some(receipt) => id_of(&receipt).map(Self::Stored),
        }
    }
}

impl Remembered for Vec<ItemResult> {
    type Short = Runs;

    fn shorten(&self, key: &WriteKey) -> Option<Runs> {
        shorten(self, &Receipts::of(key))
    }

    fn restore(short: Runs, key: &WriteKey) -> Option<Self> {
        restore(&short, &Receipts::of(key))
    }
}

/// The names under which the messages of a request are stored.
pub(super) struct Receipts(PartNames);

impl Receipts {
    pub(super) fn of(key: &WriteKey) -> Self {
        Self(key.part_names())
    }

    fn first(&self, place: usize) -> String {
        text_of(self.0.first(place))
    }

    fn again(&self, place: usize) -> String {
        text_of(self.0.again(place))
    }
}

/// The short form of a list's results; none if an item of it may fare better when it is tried again.
pub(super) fn shorten(results: &[ItemResult], receipts: &Receipts) -> Option<Runs> {
    let mut runs = Runs::new();
    for (place, result) in results.iter().enumerate() {
        let word = word(result, place, receipts)?;
        match runs.last_mut() {
            Some((times, last)) if *last == word => *times += 1,
            Some(_) | None => runs.push((1, word.to_owned())),
        }
    }
    Some(runs)
}

/// The results that a short form stands for.
pub(super) fn restore(runs: &Runs, receipts: &Receipts) -> Option<Vec<ItemResult>> {
    let mut results = Vec::new();
    for (times, word) in runs {
        for _ in 0..*times {
            results.push(result(word, results.len(), receipts)?);
        }
    }
    Some(results)
}

fn word(result: &ItemResult, place: usize, receipts: &Receipts) -> Option<&'static str> {
    match &result.receipt {
        Some(receipt) if *receipt == receipts.again(place) => Some(AGAIN),
        Some(_) | None => shorten_one(result),
    }
}

fn result(word: &str, place: usize, receipts: &Receipts) -> Option<ItemResult> {
    match word {
        AGAIN => Some(ItemResult::stored(receipts.again(place))),
        STORED => restore_one(word, Some(receipts.first(place))),
        _ => restore_one(word, None),
    }
}

/// The short form of one result, its receipt aside; none if it may fare better when it is tried again.
pub(super) fn shorten_one(result: &ItemResult) -> Option<&'static str> {
    match (result.delivery, result.code) {
        (Some(delivery), _) => Some(delivery.as_str()),
        (None, Some(code)) if result.retryable != Some(true) => Some(code.as_str()),
        (None, _) => None,
    }
}

/// The result that a short form stands for, with this receipt.
pub(super) fn restore_one(word: &str, receipt: Option<String>) -> Option<ItemResult> {
    let value = || Value::from(word);
    if let Ok(delivery) = serde_json::from_value(value()) {
        return Some(ItemResult {
            receipt,
            ..ItemResult::delivered(delivery)
        });
    }
    let code: Code = serde_json::from_value(value()).ok()?;
    Some(ItemResult::failed(code, code.title(), None).without_retry())
}

/// Stored after its session had failed it, under a second name.
const AGAIN: &str = "again";
const STORED: &str = Delivery::Stored.as_str();

#[cfg(test)]
mod tests {
    use store::{Answer, Fingerprint};

    use super::*;

    fn key() -> WriteKey {
        WriteKey::new(&[b"call"], "key", Fingerprint::of(&[]))
    }

    #[test]
    fn the_results_of_a_list_are_remembered_in_few_bytes() {
        let names = key().part_names();
        let mut results = vec![ItemResult::delivered(Delivery::Hub); 480];
        results.push(
            ItemResult::failed(Code::InvalidRequest, Code::InvalidRequest.title(), None)
                .without_retry(),
        );
        results.extend((481..490).map(|place| ItemResult::stored(text_of(names.first(place)))));
        results.extend((490..500).map(|place| ItemResult::stored(text_of(names.again(place)))));
        let short = results.shorten(&key()).unwrap();
        let text = serde_json::to_vec(&short).unwrap();
        assert!(Answer::new(&text).is_ok(), "{} bytes", text.len());
        let short = serde_json::from_slice(&text).unwrap();
        assert_eq!(Vec::restore(short, &key()), Some(results));
    }

    #[test]
    fn what_may_fare_better_another_time_is_not_remembered() {
        let full = ItemResult::failed(Code::OutboxFull, "full", None);
        let results = vec![ItemResult::delivered(Delivery::Hub), full];
        assert_eq!(results.shorten(&key()), None);
        assert_eq!(
            Vec::<ItemResult>::restore(vec![(1, "no word of ours".to_owned())], &key()),
            None
        );
    }

    #[test]
    fn a_batch_that_is_one_thing_is_remembered_with_its_receipt() {
        for reached in [
            Reached::Hub(()),
            Reached::Stored(key().part_names().first(3)),
        ] {
            let short = reached.shorten(&key()).unwrap();
            assert_eq!(Reached::restore(short, &key()), Some(reached));
        }
    }
}
