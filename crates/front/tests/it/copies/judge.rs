//! What happened, and whether it may have.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use parking_lot::Mutex;

use super::writes::{Repeats, Write};

/// What the hub side and the clients have seen. An effect has the name of a part of a write.
#[derive(Default)]
pub(super) struct History(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    /// By effect: the message ids under which it came.
    effects: BTreeMap<String, Vec<Option<String>>>,
    /// By the key of a write: its answers.
    answers: BTreeMap<String, Vec<Answer>>,
    refused: u64,
    crashes: u64,
}

/// What a client was told, finally.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Answer {
    /// The parts that are done or will be.
    pub(super) done: Vec<String>,
    /// All that copies have to agree in.
    pub(super) text: String,
}

/// What is asked of the history.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// Every effect once, every copy answered alike.
    ExactlyOnce,
    /// What was answered as done has come, what came twice has one message id.
    AtLeastOnce,
}

/// What the judge says.
pub(super) struct Verdict {
    pub(super) writes: usize,
    effects: usize,
    twice: usize,
    answers: usize,
    refused: u64,
    crashes: u64,
    pub(super) violations: Vec<String>,
}

impl History {
    pub(super) fn effect(&self, name: &str, message_id: Option<&str>) {
        let mut seen = self.0.lock();
        let effects = seen.effects.entry(name.to_owned()).or_default();
        effects.push(message_id.map(str::to_owned));
    }

    pub(super) fn answer(&self, key: &str, answer: Answer) {
        let mut seen = self.0.lock();
        seen.answers.entry(key.to_owned()).or_default().push(answer);
    }

    /// A copy was refused, or not answered, and is to be sent again.
    pub(super) fn refused(&self) {
        self.0.lock().refused += 1;
    }

    pub(super) fn crashed(&self) {
        self.0.lock().crashes += 1;
    }

    pub(super) fn progress(&self, step: u64, last: u64) {
        if step.is_multiple_of(8) || step == last {
            let seen = self.0.lock();
            eprintln!("step {step} of {last}: {} effects", seen.effects.len());
        }
    }

    pub(super) fn judge(&self, writes: &[Arc<Write>], trust: Trust) -> Verdict {
        let seen = self.0.lock();
        let none = Vec::new();
        let mut violations = Vec::new();
        let mut known = BTreeSet::new();
        let mut twice = 0;
        for write in writes {
            let answers = seen
                .answers
                .get(&write.key)
                .unwrap_or(&none_of_answers())
                .clone();
            if answers.is_empty() {
                violations.push(format!("{} was never answered", write.key));
            }
            if trust == Trust::ExactlyOnce && answers.windows(2).any(|two| two[0] != two[1]) {
                let answers: BTreeSet<_> = answers.iter().collect();
                violations.push(format!(
                    "{} was answered differently: {answers:?}",
                    write.key
                ));
            }
            for part in &write.parts {
                known.insert(part.name.as_str());
                let ids = seen.effects.get(&part.name).unwrap_or(&none);
                let was_promised = answers
                    .iter()
                    .any(|answer| answer.done.contains(&part.name));
                if was_promised && ids.is_empty() {
                    violations.push(format!(
                        "{} was answered as done and has not come",
                        part.name
                    ));
                }
                if trust == Trust::ExactlyOnce && !was_promised {
                    violations.push(format!("{} was not done, without a fault", part.name));
                }
                if ids.len() < 2 {
                    continue;
                }
                twice += 1;
                let is_one = ids.iter().all(|id| id.is_some() && *id == ids[0]);
                let may_repeat = match (trust, part.repeats) {
                    (Trust::ExactlyOnce, _) | (_, Repeats::Never) => false,
                    (Trust::AtLeastOnce, Repeats::UnderOneId) => is_one,
                    (Trust::AtLeastOnce, Repeats::WithoutHarm) => true,
                };
                if !may_repeat {
                    violations.push(format!("{} came {} times: {ids:?}", part.name, ids.len()));
                }
            }
        }
        for effect in seen.effects.keys() {
            if !known.contains(effect.as_str()) {
                violations.push(format!("{effect} came, which nobody sent"));
            }
        }
        Verdict {
            writes: seen.answers.len(),
            effects: seen.effects.len(),
            twice,
            answers: seen.answers.values().map(Vec::len).sum(),
            refused: seen.refused,
            crashes: seen.crashes,
            violations,
        }
    }
}

const fn none_of_answers() -> Vec<Answer> {
    Vec::new()
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} writes answered {} times, {} effects, {} of them more than once, {} copies refused or cut off, {} crashes, {} violations",
            self.writes,
            self.answers,
            self.effects,
            self.twice,
            self.refused,
            self.crashes,
            self.violations.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::copies::writes::Part;

    fn write(repeats: Repeats) -> Vec<Arc<Write>> {
        let part = Part {
            name: "w1.t0".to_owned(),
            repeats,
        };
        vec![Arc::new(Write::of_part("key", part))]
    }

    fn done(text: &str) -> Answer {
        Answer {
            done: vec!["w1.t0".to_owned()],
            text: text.to_owned(),
        }
    }

    fn violations(
        effects: &[Option<&str>],
        answers: &[Answer],
        repeats: Repeats,
        trust: Trust,
    ) -> usize {
        let history = History::default();
        for id in effects {
            history.effect("w1.t0", *id);
        }
        for answer in answers {
            history.answer("key", answer.clone());
        }
        history.judge(&write(repeats), trust).violations.len()
    }

    #[test]
    fn planted_violations_are_found() {
        use Repeats::{Never, UnderOneId, WithoutHarm};
        use Trust::{AtLeastOnce, ExactlyOnce};
        let (a, b) = (Some("a"), Some("b"));
        let nothing = Answer {
            done: Vec::new(),
            text: "204".to_owned(),
        };
        let once = [done("204"), done("204")];
        let answered = |answers: &[Answer], trust| violations(&[a], answers, UnderOneId, trust);
        assert_eq!(answered(&once, ExactlyOnce), 0);
        assert_eq!(
            answered(&[], ExactlyOnce),
            2,
            "never answered, and so not done"
        );
        assert_eq!(answered(&[done("204"), done("202")], ExactlyOnce), 1);
        assert_eq!(answered(&[done("204"), done("202")], AtLeastOnce), 0);
        assert_eq!(answered(&[nothing], ExactlyOnce), 1);
        for (effects, repeats, exactly, at_least) in [
            (&[][..], UnderOneId, 1, 1),
            (&[a, a], UnderOneId, 1, 0),
            (&[a, b], UnderOneId, 1, 1),
            (&[None, None], UnderOneId, 1, 1),
            (&[None, None], WithoutHarm, 1, 0),
            (&[None, None], Never, 1, 1),
        ] {
            assert_eq!(violations(effects, &once, repeats, ExactlyOnce), exactly);
            assert_eq!(violations(effects, &once, repeats, AtLeastOnce), at_least);
        }
        let history = History::default();
        history.effect("w2.t0", None);
        assert_eq!(history.judge(&[], AtLeastOnce).violations.len(), 1);
    }
}
