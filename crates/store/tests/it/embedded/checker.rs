//! Judges what is there after a restart by what happened before. It knows nothing of engines: a history is a list of
//! things, each with the moments at which it was asked for, promised, asked to end, and known to have ended.

use std::collections::BTreeMap;

/// A moment of a history: how many operations the disk had carried out.
pub(super) type Moment = usize;

/// Something that an engine was asked to keep.
#[derive(Clone, Debug)]
pub(super) struct Thing {
    /// Things of one lane have an order.
    pub(super) lane: String,
    pub(super) name: u64,
    pub(super) text: String,
    /// When it was asked for.
    pub(super) begun: Moment,
    /// When it was promised.
    pub(super) promised: Option<Moment>,
    /// When its end was asked for: from then on it may be gone.
    pub(super) ending: Option<Moment>,
    /// When its end was promised: from then on it is gone.
    pub(super) ended: Option<Moment>,
}

/// Something that is there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Seen {
    pub(super) lane: String,
    pub(super) name: u64,
    pub(super) text: String,
}

/// What must not be.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Violation {
    /// It was promised, and is not there.
    Lost(u64),
    /// It is there, and says something else.
    Corrupt(u64),
    /// It is there, and nobody asked for it.
    Invented(u64),
    /// It is there more than once.
    Doubled(u64),
    /// It is there after its end was promised.
    Returned(u64),
    /// It is before one that was asked for earlier.
    Disordered(u64),
}

/// What is wrong with what is there after everything was cut at a moment.
pub(super) fn judge(history: &[Thing], cut: Moment, seen: &[Seen]) -> Vec<Violation> {
    let mut violations = Vec::new();
    let things: BTreeMap<u64, &Thing> = history.iter().map(|thing| (thing.name, thing)).collect();
    let mut count: BTreeMap<u64, usize> = BTreeMap::new();
    let mut last_by_lane: BTreeMap<&str, u64> = BTreeMap::new();
    for seen in seen {
        *count.entry(seen.name).or_default() += 1;
        let known = things.get(&seen.name).filter(|thing| thing.begun <= cut);
        let Some(thing) = known.filter(|thing| thing.lane == seen.lane) else {
            violations.push(Violation::Invented(seen.name));
            continue;
        };
        if thing.text != seen.text {
            violations.push(Violation::Corrupt(seen.name));
        }
        if thing.ended.is_some_and(|ended| ended <= cut) {
            violations.push(Violation::Returned(seen.name));
        }
        let last = last_by_lane.insert(&seen.lane, seen.name);
        if last.is_some_and(|last| last > seen.name) {
            violations.push(Violation::Disordered(seen.name));
        }
    }
    for (name, count) in &count {
        if *count > 1 {
            violations.push(Violation::Doubled(*name));
        }
    }
    for thing in history {
        let is_promised = thing.promised.is_some_and(|promised| promised <= cut);
        let may_be_gone = thing.ending.is_some_and(|ending| ending <= cut);
        if is_promised && !may_be_gone && !count.contains_key(&thing.name) {
            violations.push(Violation::Lost(thing.name));
        }
    }
    violations
}

mod tests {
    use super::*;

    #[test]
    fn planted_violations_are_found() {
        let history: Vec<_> = (1..=6).map(thing).collect();
        let honest: Vec<_> = [1, 2, 3, 4].map(seen).to_vec();
        // 5 is ended, 6 is promised after the cut.
        let judge = |seen: &[Seen]| judge(&history, 100, seen);
        assert_eq!(judge(&honest), []);
        // 4 may be gone.
        assert_eq!(judge(&honest[..3]), []);

        type Plant = fn(&mut Vec<Seen>);
        let planted: [(Plant, Violation); 20] = [
            (|seen| drop(seen.remove(0)), Violation::Lost(1)),
            (|seen| drop(seen.remove(1)), Violation::Lost(2)),
            (|seen| drop(seen.remove(2)), Violation::Lost(3)),
            (|seen| seen.clear(), Violation::Lost(2)),
            (|seen| seen[0].text.push('x'), Violation::Corrupt(1)),
            (|seen| seen[3].text.clear(), Violation::Corrupt(4)),
            (
                |seen| seen[1].text = seen[0].text.clone(),
                Violation::Corrupt(2),
            ),
            (|seen| seen.push(self::seen(7)), Violation::Invented(7)),
            (|seen| seen[0].name = 0, Violation::Invented(0)),
            (|seen| seen[0].name = 0, Violation::Lost(1)),
            (|seen| seen[2].lane = "b".to_owned(), Violation::Invented(3)),
            (|seen| seen.push(seen[3].clone()), Violation::Doubled(4)),
            (
                |seen| seen.insert(0, seen[0].clone()),
                Violation::Doubled(1),
            ),
            (|seen| seen.extend(seen.clone()), Violation::Doubled(3)),
            (|seen| seen.push(self::seen(5)), Violation::Returned(5)),
            (|seen| seen.insert(0, self::seen(5)), Violation::Returned(5)),
            (|seen| seen.swap(0, 1), Violation::Disordered(1)),
            (|seen| seen.swap(2, 3), Violation::Disordered(3)),
            (|seen| seen.reverse(), Violation::Disordered(1)),
            (|seen| seen.rotate_left(1), Violation::Disordered(1)),
        ];
        for (number, (plant, violation)) in planted.into_iter().enumerate() {
            let mut seen = honest.clone();
            plant(&mut seen);
            let found = judge(&seen);
            assert!(found.contains(&violation), "plant {number}: {found:?}");
        }
    }

    fn thing(name: u64) -> Thing {
        Thing {
            lane: "a".to_owned(),
            name,
            text: format!("text {name}"),
            begun: 10,
            promised: Some(if name == 6 { 101 } else { 20 }),
            ending: (name == 4 || name == 5).then_some(50),
            ended: (name == 5).then_some(60),
        }
    }

    fn seen(name: u64) -> Seen {
        Seen {
            lane: "a".to_owned(),
            name,
            text: format!("text {name}"),
        }
    }
}
