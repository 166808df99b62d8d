//! Between two lives a bit of the store's files flips, or the end of one goes: that is found and named, and nothing that is
//! damaged is ever sent to anybody.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use tokio::time::{Duration, sleep};

use super::{BUSY, Outcome};
use crate::{
    checker::{Rule, Violation},
    day::{Day, Special},
    history::{self, Event, Trouble},
    options::{Plan, Scenario},
    process::Line,
    rig::Crowd,
};

/// 15 times, or 200, with the file put right again; then once with what `tombolo store salvage` makes of it.
pub(super) async fn happen(plan: &Plan) -> Result<Outcome> {
    let rounds = plan.rounds.unwrap_or(if plan.long { 200 } else { 15 });
    let mut rng = fastrand::Rng::with_seed(plan.seed);
    let mut outcome = Outcome::default();
    let mut day = Day::begin(
        plan,
        Scenario::Damage,
        0,
        Crowd::of_devices(8),
        Special::default(),
    )
    .await?;
    outcome.remark(format!("in {}", day.folder().display()));
    day.work(BUSY);
    let (mut refused, mut cut_off) = (0, 0);
    for _ in 0..rounds {
        sleep(Duration::from_millis(rng.u64(200..800))).await;
        day.rig.kill_gateway().await?;
        let damage = Damage::do_some(&day.rig.store, &mut rng)?;
        day.rig.recorder.trouble(Trouble::Damaged);
        match day.rig.start_gateway(&Line::default()).await {
            Err(error) => {
                refused += 1;
                named(&day, &format!("{error:#}"), &damage).await?;
                damage.mend()?;
                day.rig.start_gateway(&Line::default()).await?;
            }
            // Nobody had been told of what was there: the checker knows.
            Ok(_) => cut_off += 1,
        }
    }
    outcome.add(day.end().await?);
    outcome.remark(format!(
        "damaged {rounds} times: {refused} starts refused by name, {cut_off} times it was what nobody had been promised"
    ));
    salvage(plan, &mut rng, &mut outcome).await?;
    Ok(outcome)
}

/// Whoever starts is told which file it is, and so is whoever asks.
async fn named(day: &Day, printed: &str, damage: &Damage) -> Result<()> {
    let name = damage
        .path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy();
    ensure!(
        printed.contains(&*name) || printed.contains("damaged"),
        "{name} is not named: {printed}"
    );
    let arguments = ["store", "verify", "--folder"].map(Into::into);
    let folder = day.rig.store.clone().into_os_string();
    let (status, printed) = day.rig.run(&[&arguments[..], &[folder]].concat()).await?;
    ensure!(status.code() == Some(1), "verify says {status}: {printed}");
    ensure!(printed.contains(&*name), "{name} is not named: {printed}");
    Ok(())
}

/// What can be read is copied, and the gateway goes on with the copy: what is damaged is lost, nothing else, and nothing is
/// sent that is not what it was.
async fn salvage(plan: &Plan, rng: &mut fastrand::Rng, outcome: &mut Outcome) -> Result<()> {
    let mut day = Day::begin(
        plan,
        Scenario::Damage,
        1,
        Crowd::of_devices(8),
        Special::default(),
    )
    .await?;
    outcome.remark(format!("in {}", day.folder().display()));
    day.work(BUSY);
    // So that what is damaged is still needed.
    let cloud = day.rig.hub.cloud();
    cloud.go_away().await?;
    sleep(Duration::from_secs(4)).await;
    day.rig.kill_gateway().await?;
    let damage = Damage::do_some(&day.rig.store, rng)?;
    day.rig.recorder.trouble(Trouble::Damaged);
    let refused = day.rig.start_gateway(&Line::default()).await;
    let refused = refused.err().context("it has started on damage")?;
    named(&day, &format!("{refused:#}"), &damage).await?;
    let copy = day.folder().join("salvaged");
    let arguments = ["store", "salvage", "--folder"].map(Into::into);
    let (from, to) = (
        day.rig.store.clone().into_os_string(),
        copy.clone().into_os_string(),
    );
    let arguments = [&arguments[..], &[from, "--to".into(), to]].concat();
    let (status, printed) = day.rig.run(&arguments).await?;
    ensure!(status.success(), "salvage says {status}: {printed}");
    // Tokens are no part of the log.
    let tokens = "tokens.jsonl";
    if !copy.join(tokens).exists() {
        fs::copy(day.rig.store.join(tokens), copy.join(tokens))?;
    }
    fs::remove_dir_all(&day.rig.store)?;
    fs::rename(&copy, &day.rig.store)?;
    day.rig.start_gateway(&Line::default()).await?;
    cloud.come_back().await?;
    let gone = damage.named_by(&printed)?;
    let (mut verdict, receipts) = day.end_and(messages_of_receipts).await?;
    let before = verdict.violations.len();
    verdict
        .violations
        .retain(|violation| !gone.excuses(violation, &receipts));
    outcome.remark(format!(
        "salvaged once: {} messages are missing of {} bytes that salvage named as unreadable; {} rules excused by them",
        verdict.counts.lost,
        gone.bytes,
        before - verdict.violations.len()
    ));
    // They are the damage's, not the gateway's: one that was elsewhere is still a violation.
    verdict.counts.lost = 0;
    outcome.add(verdict);
    Ok(())
}

/// The messages that each receipt was given for.
fn messages_of_receipts(history: &Path) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let mut messages: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for entry in history::read(history)? {
        if let Event::Promised {
            name,
            receipt: Some(receipt),
            ..
        } = entry?.event
        {
            messages.entry(receipt).or_default().insert(name);
        }
    }
    Ok(messages)
}

/// What stood in the places that cannot be read, before they were damaged.
struct Gone {
    bytes: usize,
    /// What of it is text: names, properties, bodies.
    text: String,
}

impl Gone {
    /// Whether it is because of what stood there that a promise is broken.
    fn excuses(
        &self,
        Violation { rule, of }: &Violation,
        receipts: &BTreeMap<String, BTreeSet<String>>,
    ) -> bool {
        if matches!(rule, Rule::Lost | Rule::MessageLost) {
            self.has(of)
        } else if matches!(rule, Rule::ReceiptMissing | Rule::ReceiptUntrue) {
            let messages = receipts.get(of);
            messages.is_some_and(|messages| messages.iter().any(|name| self.has(name)))
        } else if *rule == Rule::PatchLost {
            let slot = of.split(' ').next().unwrap_or_default();
            self.text.contains(&format!("\"{slot}\":"))
        } else {
            // How something ended is told without any name.
            matches!(rule, Rule::ReceiptBackwards | Rule::ShownAgain) && self.bytes > 0
        }
    }

    /// Whether a message of this name was there: one that is not the beginning of another name.
    fn has(&self, name: &str) -> bool {
        let mut found = self.text.match_indices(name);
        found.any(|(place, _)| {
            let next = self.text.as_bytes().get(place + name.len());
            !next.is_some_and(u8::is_ascii_digit)
        })
    }
}

/// What was done to a file.
struct Damage {
    path: PathBuf,
    before: Vec<u8>,
    /// How many bytes of it there are afterwards.
    left: usize,
}

impl Damage {
    fn do_some(store: &Path, rng: &mut fastrand::Rng) -> Result<Self> {
        let mut paths = Vec::new();
        for entry in fs::read_dir(store)? {
            let path = entry?.path();
            if path.extension().is_some_and(|kind| kind == "log") && path.metadata()?.len() > 0 {
                paths.push(path);
            }
        }
        paths.sort();
        let path = rng.choice(&paths).context("the store has files")?.clone();
        let before = fs::read(&path)?;
        let mut damaged = before.clone();
        // Behind it are zeros that nobody has written over.
        let end = damaged.iter().rposition(|byte| *byte != 0);
        let place = rng.usize(..=end.unwrap_or_default());
        if rng.u32(..3) == 0 {
            damaged.truncate(place);
        } else {
            damaged[place] ^= 1 << rng.u8(..8);
        }
        let left = damaged.len();
        fs::write(&path, damaged)?;
        Ok(Self { path, before, left })
    }

    /// What stood where salvage says that nothing can be read. What was cut off stands nowhere: that something is missing is
    /// all that can be said, and must be.
    fn named_by(&self, printed: &str) -> Result<Gone> {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let mut gone = Vec::new();
        let mut is_named = false;
        for line in printed.lines() {
            let Some((file, rest)) = line.split_once(": ") else {
                continue;
            };
            let place = rest.split_once(" bytes from ").and_then(|(bytes, rest)| {
                let (offset, _) = rest.split_once(" on")?;
                Some((bytes.parse::<usize>().ok()?, offset.parse::<usize>().ok()?))
            });
            let Some((bytes, offset)) = place else {
                continue;
            };
            is_named = true;
            if file == name {
                let end = self.before.len().min(offset + bytes);
                gone.extend_from_slice(self.before.get(offset..end).unwrap_or_default());
            }
        }
        ensure!(is_named, "salvage names no place: {printed}");
        gone.extend_from_slice(self.before.get(self.left..).unwrap_or_default());
        Ok(Gone {
            bytes: gone.len(),
            text: String::from_utf8_lossy(&gone).into_owned(),
        })
    }

    fn mend(self) -> Result<()> {
        Ok(fs::write(self.path, self.before)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two messages, of which the second one cannot be read; a third one is cut off.
    fn gone() -> Gone {
        let damage = Damage {
            path: "/s/0000000001.log".into(),
            before: b"<dev1-1><dev1-21 \"slot2\":7><dev1-3>".to_vec(),
            left: 27,
        };
        let printed = "0000000001.log: 19 bytes from 8 on: no whole group\n\
                       0000000002.log: 0 bytes from 48 on: groups before it are missing\n\
                       2 records are copied to /s/salvaged; 2 parts could not be read\n";
        damage.named_by(printed).expect("they are named")
    }

    fn excuses(rule: Rule, of: &str) -> bool {
        let messages = ["dev1-1", "dev1-21"].map(str::to_owned);
        let receipts = messages.map(|name| (format!("of {name}"), [name].into()));
        let of = of.to_owned();
        gone().excuses(&Violation { rule, of }, &receipts.into())
    }

    #[test]
    fn what_stood_in_the_places_that_salvage_names_may_be_missing_and_nothing_else() {
        for (name, is_gone) in [
            ("dev1-1", false),
            ("dev1-2", false),
            ("dev1-21", true),
            ("dev1-3", true),
            ("dev1-4", false),
        ] {
            assert_eq!(excuses(Rule::Lost, name), is_gone, "{name}");
        }
        assert!(excuses(Rule::ReceiptMissing, "of dev1-21"));
        assert!(!excuses(Rule::ReceiptMissing, "of dev1-1"));
        assert!(!excuses(Rule::ReceiptMissing, "of another one"));
        assert!(excuses(Rule::PatchLost, "slot2 of dev1: 6"));
        assert!(!excuses(Rule::PatchLost, "slot1 of dev1: 6"));
        assert!(!excuses(Rule::Corrupt, "dev1-21"));
    }

    #[test]
    fn damage_that_salvage_does_not_name_excuses_nothing() {
        let damage = Damage {
            path: "/s/0000000001.log".into(),
            before: b"<dev1-1>".to_vec(),
            left: 8,
        };
        assert!(
            damage
                .named_by("8 records are copied to /s/salvaged\n")
                .is_err()
        );
    }
}
