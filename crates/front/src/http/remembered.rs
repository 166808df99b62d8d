//! What is remembered of a request's results, in the few bytes that the record of a key has.
//!
//! A result is final, or it is *open*: the item may fare better when it is tried again. A copy of the request carries out what
//! is open, and gives what is final again. So an item that has taken effect does so once, whatever became of the others.
//!
//! ```text
//!   notes := 0, codes, list*       a list: number of runs, (mark, items in a row)*
//!          | 1, list*              a list: number of items, mark, a bit for each item
//! ```
//!
//! The first form says all but the texts of errors. A request whose items have fared too differently for it has the second,
//! which says of each item whether the hub, or the gateway in its place, has done it. The rest is tried again: what had
//! failed for good fails again, and what is stored is found under its name.

use api::{Code, Delivery, ItemResult};
use store::Answer;

use crate::devices::{PartNames, text_of};

/// What a request came to, as it is remembered.
pub(super) trait Remembered: Send + Sized + 'static {
    /// What of it is known; by default nothing.
    type Known: Default + Send + 'static;

    /// Writes down what of it is final.
    fn write(&self, notes: &mut Notes, names: &PartNames);

    /// What was written down. None if these are no notes of ours.
    fn read(notes: &mut Reader<'_>, names: &PartNames) -> Option<Self::Known>;

    /// The same, if all of it is known.
    fn whole(known: Self::Known) -> Option<Self>;
}

/// What is to be remembered of a request.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Memory {
    /// Nothing: none of it has taken effect.
    Nothing,
    /// What of it is done; the rest may fare better when it is tried again.
    Part(Answer),
    /// All of it, for it is over.
    All(Answer),
    /// That it has begun, and no more: too many items have fared too differently. A copy is carried out again, under the same
    /// names. Only IoT Hub's own batch can have so many.
    Begun,
}

impl Memory {
    pub(super) fn of(done: &impl Remembered, names: &PartNames) -> Self {
        for is_coarse in [false, true] {
            let mut notes = Notes::new(is_coarse);
            done.write(&mut notes, names);
            if let Ok(answer) = Answer::new(&notes.to_bytes()) {
                return match (notes.is_open, notes.has_effect) {
                    (false, _) => Self::All(answer),
                    (true, true) => Self::Part(answer),
                    (true, false) => Self::Nothing,
                };
            }
        }
        Self::Begun
    }
}

/// What is known of a request from its notes. None if they are none of ours.
pub(super) fn recall<T: Remembered>(notes: &Answer, names: &PartNames) -> Option<T::Known> {
    let mut reader = Reader::of(notes.as_bytes())?;
    let known = T::read(&mut reader, names)?;
    reader.rest.is_empty().then_some(known)
}

/// The items of a request, some of which have their results.
pub(super) struct Pending<T> {
    results: Vec<Option<ItemResult>>,
    /// Those that have none, with their places.
    pub(super) open: Vec<(usize, T)>,
}

impl<T> Pending<T> {
    /// `known`: the results that are known, in the order of the items.
    pub(super) fn of(items: Vec<T>, known: Vec<Option<ItemResult>>) -> Self {
        let mut results = known;
        results.resize(items.len(), None);
        let is_open = |(place, _): &(usize, T)| results[*place].is_none();
        let open = items.into_iter().enumerate().filter(is_open).collect();
        Self { results, open }
    }

    /// Makes something else of each item that has no result, or gives it one.
    pub(super) fn try_map<U>(mut self, map: impl Fn(T) -> Result<U, ItemResult>) -> Pending<U> {
        let mut open = Vec::with_capacity(self.open.len());
        for (place, item) in self.open {
            match map(item) {
                Ok(item) => open.push((place, item)),
                Err(result) => self.results[place] = Some(result),
            }
        }
        Pending {
            results: self.results,
            open,
        }
    }

    /// All results, with those of the items that had none, in their order.
    pub(super) fn into_results(
        self,
        of_open: impl IntoIterator<Item = ItemResult>,
    ) -> Vec<ItemResult> {
        let mut of_open = of_open.into_iter();
        let results = self.results.into_iter().map(|known| {
            known
                .or_else(|| of_open.next())
                .expect("there is a result for each item that had none")
        });
        results.collect()
    }
}

/// A request that is one thing.
impl Remembered for Delivery {
    type Known = Option<Self>;

    fn write(&self, notes: &mut Notes, names: &PartNames) {
        notes.list(&[ItemResult::delivered(*self)], names);
    }

    fn read(notes: &mut Reader<'_>, names: &PartNames) -> Option<Option<Self>> {
        let results = notes.list(names)?;
        let [result] = results.as_slice() else {
            return None;
        };
        Some(result.as_ref().and_then(|result| result.delivery))
    }

    fn whole(known: Option<Self>) -> Option<Self> {
        known
    }
}

impl Remembered for Vec<ItemResult> {
    type Known = Vec<Option<ItemResult>>;

    fn write(&self, notes: &mut Notes, names: &PartNames) {
        notes.list(self, names);
    }

    fn read(notes: &mut Reader<'_>, names: &PartNames) -> Option<Self::Known> {
        notes.list(names)
    }

    fn whole(known: Self::Known) -> Option<Self> {
        known.into_iter().collect()
    }
}

/// How an item has fared, texts aside.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Open,
    Hub,
    Gateway,
    /// It is stored, under the name that it got first.
    First,
    /// It is stored, after its session had failed it, under a second name.
    Again,
    /// It has failed for good.
    Failed(Code),
}

impl Mark {
    fn of(result: &ItemResult, place: usize, names: &PartNames) -> Self {
        match (result.delivery, result.code) {
            (Some(Delivery::Hub), _) => Self::Hub,
            (Some(Delivery::Gateway), _) => Self::Gateway,
            (Some(Delivery::Stored), _) => {
                let is_again = |receipt| receipt == text_of(names.again(place));
                if result.receipt.as_deref().is_some_and(is_again) {
                    Self::Again
                } else {
                    Self::First
                }
            }
            // A copy may have a credential that opens more.
            (None, Some(Code::Forbidden)) => Self::Open,
            (None, Some(code)) if result.retryable == Some(false) => Self::Failed(code),
            (None, _) => Self::Open,
        }
    }

    /// The result that it stands for; none if that is open.
    fn to_result(self, place: usize, names: &PartNames) -> Option<ItemResult> {
        Some(match self {
            Self::Open => return None,
            Self::Hub => ItemResult::delivered(Delivery::Hub),
            Self::Gateway => ItemResult::delivered(Delivery::Gateway),
            Self::First => ItemResult::stored(text_of(names.first(place))),
            Self::Again => ItemResult::stored(text_of(names.again(place))),
            Self::Failed(code) => ItemResult::failed(code, code.title(), None).without_retry(),
        })
    }

    /// Whether the item has taken effect, now or later.
    const fn has_effect(self) -> bool {
        match self {
            Self::Hub | Self::Gateway | Self::First | Self::Again => true,
            Self::Open | Self::Failed(_) => false,
        }
    }
}

/// Notes as they are written.
pub(super) struct Notes {
    is_coarse: bool,
    /// Codes have no numbers that every version of this program agrees on, so their texts are written, each once.
    codes: Vec<Code>,
    lists: Vec<u8>,
    has_effect: bool,
    is_open: bool,
}

impl Notes {
    const fn new(is_coarse: bool) -> Self {
        Self {
            is_coarse,
            codes: Vec::new(),
            lists: Vec::new(),
            has_effect: false,
            is_open: false,
        }
    }

    /// Writes a list of results; `names` are those of its items.
    pub(super) fn list(&mut self, results: &[ItemResult], names: &PartNames) {
        let marks = results.iter().enumerate();
        let marks: Vec<_> = marks
            .map(|(place, result)| Mark::of(result, place, names))
            .collect();
        self.has_effect |= marks.iter().any(|mark| mark.has_effect());
        if self.is_coarse {
            self.bits(&marks);
        } else {
            self.runs(&marks);
        }
    }

    /// Writes a number that may be there.
    pub(super) fn number(&mut self, number: Option<u64>) {
        self.lists.push(number.is_some().into());
        if let Some(number) = number {
            self.lists.extend(number.to_le_bytes());
        }
    }

    fn runs(&mut self, marks: &[Mark]) {
        self.is_open |= marks.contains(&Mark::Open);
        let runs: Vec<_> = marks.chunk_by(|one, next| one == next).collect();
        self.count(runs.len());
        for run in runs {
            let mark = self.mark(run[0]);
            self.lists.push(mark);
            self.count(run.len());
        }
    }

    fn bits(&mut self, marks: &[Mark]) {
        let is_done = |mark: &Mark| matches!(mark, Mark::Hub | Mark::Gateway);
        self.is_open |= !marks.iter().all(is_done);
        self.count(marks.len());
        // Where both are there, the less is said of all.
        let done = if marks.contains(&Mark::Gateway) {
            Mark::Gateway
        } else {
            Mark::Hub
        };
        let done = self.mark(done);
        self.lists.push(done);
        let bytes = marks.chunks(8).map(|eight| {
            let bits = eight.iter().enumerate();
            bits.fold(0, |byte, (bit, mark)| {
                byte | (u8::from(is_done(mark)) << bit)
            })
        });
        self.lists.extend(bytes);
    }

    fn mark(&mut self, mark: Mark) -> u8 {
        match mark {
            Mark::Open => OPEN,
            Mark::Hub => HUB,
            Mark::Gateway => GATEWAY,
            Mark::First => FIRST,
            Mark::Again => AGAIN,
            Mark::Failed(code) => {
                let known = self.codes.iter().position(|known| *known == code);
                let place = known.unwrap_or_else(|| {
                    self.codes.push(code);
                    self.codes.len() - 1
                });
                u8::try_from(place).map_or(OPEN, |place| FAILED.saturating_add(place))
            }
        }
    }

    fn count(&mut self, count: usize) {
        let count = u16::try_from(count).expect("262,144 bytes have less than 65,536 messages");
        self.lists.extend(count.to_le_bytes());
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![self.is_coarse.into()];
        if !self.is_coarse {
            let texts = self.codes.iter().map(|code| code.as_str());
            let texts: Vec<_> = texts.collect();
            let texts = texts.join(" ");
            // Too long for a byte is too long for an answer.
            bytes.push(u8::try_from(texts.len()).unwrap_or(u8::MAX));
            bytes.extend(texts.as_bytes());
        }
        bytes.extend(&self.lists);
        bytes
    }
}

/// Notes as they are read. `None` is the answer to whatever is not what [`Notes`] wrote.
pub(super) struct Reader<'a> {
    is_coarse: bool,
    codes: Vec<Code>,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn of(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Self {
            is_coarse: false,
            codes: Vec::new(),
            rest: bytes,
        };
        match reader.byte()? {
            0 => {
                let length = reader.byte()?;
                let texts = std::str::from_utf8(reader.bytes(length.into())?).ok()?;
                let codes = texts.split_ascii_whitespace().map(|text| {
                    let mut codes = Code::ALL.iter();
                    codes.find(|code| code.as_str() == text).copied()
                });
                reader.codes = codes.collect::<Option<_>>()?;
            }
            1 => reader.is_coarse = true,
            _ => return None,
        }
        Some(reader)
    }

    /// The results of a list that are known; `names` are those of its items.
    pub(super) fn list(&mut self, names: &PartNames) -> Option<Vec<Option<ItemResult>>> {
        let count = self.count()?;
        let marks = if self.is_coarse {
            self.bits(count)?
        } else {
            self.runs(count)?
        };
        let marks = marks.into_iter().enumerate();
        let results = marks.map(|(place, mark)| mark.to_result(place, names));
        Some(results.collect())
    }

    /// A number that may be there.
    pub(super) fn number(&mut self) -> Option<Option<u64>> {
        Some(match self.byte()? {
            0 => None,
            1 => Some(u64::from_le_bytes(self.bytes(8)?.try_into().ok()?)),
            _ => return None,
        })
    }

    fn runs(&mut self, runs: usize) -> Option<Vec<Mark>> {
        let mut marks = Vec::new();
        for _ in 0..runs {
            let mark = self.mark()?;
            let items = self.count()?;
            marks.resize(marks.len() + items, mark);
        }
        Some(marks)
    }

    fn bits(&mut self, items: usize) -> Option<Vec<Mark>> {
        let done = self.mark()?;
        let bytes = self.bytes(items.div_ceil(8))?;
        let is_done = |place: usize| bytes[place / 8] & (1 << (place % 8)) != 0;
        let marks = (0..items).map(|place| if is_done(place) { done } else { Mark::Open });
        Some(marks.collect())
    }

    fn mark(&mut self) -> Option<Mark> {
        Some(match self.byte()? {
            OPEN => Mark::Open,
            HUB => Mark::Hub,
            GATEWAY => Mark::Gateway,
            FIRST => Mark::First,
            AGAIN => Mark::Again,
            failed => {
                let place = failed.checked_sub(FAILED)?;
                Mark::Failed(*self.codes.get(usize::from(place))?)
            }
        })
    }

    fn count(&mut self) -> Option<usize> {
        let bytes = self.bytes(2)?.try_into().ok()?;
        Some(u16::from_le_bytes(bytes).into())
    }

    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*byte)
    }

    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(bytes)
    }
}

const OPEN: u8 = 0;
const HUB: u8 = 1;
const GATEWAY: u8 = 2;
const FIRST: u8 = 3;
const AGAIN: u8 = 4;
/// The first of the codes; the others follow.
const FAILED: u8 = 16;

#[cfg(test)]
mod tests {
    use store::Fingerprint;

    use super::*;
    use crate::devices::WriteKey;

    fn names() -> PartNames {
        WriteKey::new(&[b"call"], "key", Fingerprint::of(&[])).part_names()
    }

    fn delivered(items: usize) -> Vec<ItemResult> {
        vec![ItemResult::delivered(Delivery::Hub); items]
    }

    fn failed(code: Code) -> ItemResult {
        ItemResult::failed(code, code.title(), None)
    }

    fn known(results: &[ItemResult]) -> Vec<Option<ItemResult>> {
        results.iter().cloned().map(Some).collect()
    }

    fn part(results: &Vec<ItemResult>) -> Vec<Option<ItemResult>> {
        let Memory::Part(notes) = Memory::of(results, &names()) else {
            panic!("a part of it is done");
        };
        recall::<Vec<ItemResult>>(&notes, &names()).unwrap()
    }

    #[test]
    fn results_that_are_final_are_remembered_as_they_are() {
        let mut results = delivered(470);
        results.push(failed(Code::InvalidRequest));
        results.push(failed(Code::MessageTooLarge));
        results.push(failed(Code::HubTimeout).without_retry());
        results.push(ItemResult::delivered(Delivery::Gateway));
        let stored = |name| ItemResult::stored(text_of(name));
        results.extend((474..490).map(|place| stored(names().first(place))));
        results.extend((490..500).map(|place| stored(names().again(place))));
        let Memory::All(notes) = Memory::of(&results, &names()) else {
            panic!("nothing is open");
        };
        let read = recall::<Vec<ItemResult>>(&notes, &names()).unwrap();
        assert_eq!(Vec::whole(read), Some(results));
        for delivery in [Delivery::Hub, Delivery::Gateway] {
            let Memory::All(notes) = Memory::of(&delivery, &names()) else {
                panic!("it is over");
            };
            assert_eq!(recall::<Delivery>(&notes, &names()), Some(Some(delivery)));
        }
    }

    #[test]
    fn what_may_fare_better_another_time_stays_open() {
        let full = failed(Code::OutboxFull);
        let results = [delivered(2), vec![full.clone(), failed(Code::LockLost)]].concat();
        let mut expected = known(&results);
        expected[2] = None;
        assert_eq!(part(&results), expected);
        // Without an effect there is nothing to remember.
        for nothing in [vec![full], vec![failed(Code::Forbidden)]] {
            assert_eq!(Memory::of(&nothing, &names()), Memory::Nothing);
        }
    }

    #[test]
    fn of_items_that_fare_too_differently_it_is_remembered_which_are_done() {
        let mut results = Vec::new();
        for place in 0..500 {
            results.push(match place % 4 {
                0 => ItemResult::delivered(Delivery::Hub),
                1 => failed(Code::LockLost),
                2 => ItemResult::stored(text_of(names().first(place))),
                _ => failed(Code::HubTimeout),
            });
        }
        let mut expected = known(&results);
        for (place, result) in expected.iter_mut().enumerate() {
            result.take_if(|_| place % 4 != 0);
        }
        assert_eq!(part(&results), expected);
        // IoT Hub's batch may have more items than there are bits.
        let of = |items: usize| {
            let results: Vec<_> = results.iter().cycle().take(items).cloned().collect();
            Memory::of(&results, &names())
        };
        assert!(matches!(of(1000), Memory::Part(_)));
        assert_eq!(of(1500), Memory::Begun);
        assert!(matches!(
            Memory::of(&delivered(20_000), &names()),
            Memory::All(_)
        ));
    }

    #[test]
    fn only_what_is_open_is_carried_out_again() {
        let seven = ItemResult::delivered(Delivery::Hub);
        let pending = Pending::of(vec![1, 2, 3, 4], vec![None, Some(seven.clone())]);
        let bad = failed(Code::InvalidRequest);
        let refuse_three = |item| {
            if item == 3 {
                Err(bad.clone())
            } else {
                Ok(item)
            }
        };
        let pending = pending.try_map(refuse_three);
        assert_eq!(pending.open, [(0, 1), (3, 4)]);
        let late = failed(Code::HubTimeout);
        let results = pending.into_results([seven.clone(), late.clone()]);
        assert_eq!(results, [seven.clone(), seven, bad, late]);
    }

    #[test]
    fn notes_of_somebody_else_are_not_read() {
        for bytes in [
            &b""[..],
            b"\x02",
            b"\x00",
            b"\x00\x02no\x00\x00",
            b"\x00\x00\x01\x00\x10\x01\x00",
            b"\x00\x00\x00\x00\x00",
            b"\x01\x09\x00\x01\xff",
            b"[[1,\"hub\"]]",
        ] {
            let notes = Answer::new(bytes).unwrap();
            assert_eq!(
                recall::<Vec<ItemResult>>(&notes, &names()),
                None,
                "{bytes:?}"
            );
        }
    }
}
