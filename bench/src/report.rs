//! What is printed: progress and complaints to standard error, the tables to standard output, all samples as JSON.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "printing is what this part is for"
)]

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;

use crate::machine::Machine;
use crate::options::Options;
use crate::rows::{Comparison, Figure, Goal, Measure, Samples, Spread, Subject};
use crate::stage::PeerKind;

/// Tells how far things are.
pub(crate) fn say(line: fmt::Arguments<'_>) {
    eprintln!("{line}");
}

/// Tells why it did not work: the whole chain of reasons.
pub(crate) fn complain(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}

/// A whole run, ready to be read.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    machine: Machine,
    run: String,
    skipped: BTreeMap<&'static str, String>,
    tables: Vec<Table>,
}

#[derive(Debug, Serialize)]
struct Table {
    figure: Figure,
    title: &'static str,
    unit: &'static str,
    subjects: Vec<Line>,
    comparisons: Vec<Line>,
}

#[derive(Debug, Serialize)]
struct Line {
    name: String,
    /// One for each round.
    values: Vec<f64>,
    spread: Spread,
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<Verdict>,
}

#[derive(Debug, Serialize)]
struct Verdict {
    goal: String,
    is_reached: bool,
}

impl Report {
    pub(crate) fn new(
        machine: Machine,
        options: &Options,
        skipped: Vec<(PeerKind, String)>,
        samples: &Samples,
    ) -> Self {
        let figures = options.rows.iter().flat_map(|row| row.figures());
        Self {
            machine,
            run: describe(options),
            skipped: skipped
                .into_iter()
                .map(|(peer, reason)| (peer.name(), reason))
                .collect(),
            tables: figures.map(|&figure| Table::new(figure, samples)).collect(),
        }
    }

    /// Prints the tables.
    pub(crate) fn print(&self) {
        println!("{self}");
    }

    /// Writes everything, samples included.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        std::fs::write(path, text).with_context(|| format!("could not write {}", path.display()))
    }
}

fn describe(options: &Options) -> String {
    format!(
        "hub {}; {} rounds of {} s, {} connections over {}, {} devices, 100 bytes of JSON; memory: {} sessions, quiet for {} s; recovery: {} messages",
        options.hub.name(),
        options.rounds,
        options.measured.as_secs(),
        options.connections,
        if options.http2 { "HTTP/2" } else { "HTTP/1.1" },
        options.devices,
        options.sessions,
        options.quiet.as_secs(),
        options.messages,
    )
}

impl Table {
    fn new(figure: Figure, samples: &Samples) -> Self {
        let line = |name: String, values: &[f64], verdict: Option<Verdict>| {
            Some(Line {
                name,
                values: values.to_vec(),
                spread: Spread::of(values)?,
                verdict,
            })
        };
        let comparisons = figure.comparisons().iter().filter_map(|comparison| {
            let Comparison { of, by, goal: _ } = *comparison;
            let values = samples.compare(figure, of, by);
            let verdict = Verdict::of(*comparison, figure, &values, samples);
            line(label(of, by), &values, verdict)
        });
        Self {
            figure,
            title: figure.title(),
            unit: figure.unit(),
            subjects: samples
                .subjects(figure)
                .filter_map(|who| line(who.name().to_owned(), samples.get(figure, who), None))
                .collect(),
            comparisons: comparisons.collect(),
        }
    }
}

impl Verdict {
    fn of(
        comparison: Comparison,
        figure: Figure,
        values: &[f64],
        samples: &Samples,
    ) -> Option<Self> {
        let median = Spread::of(values)?.median;
        let unit = match comparison.by {
            Measure::RatioTo(_) => "",
            Measure::Alone | Measure::LessThan(_) => figure.unit(),
        };
        let (sign, bound, is_reached) = match comparison.goal? {
            Goal::Least(bound) => ("≥", bound, median >= bound),
            Goal::Most(bound) => ("≤", bound, median <= bound),
            Goal::NoMoreThan(other, whose) => {
                let bound = Spread::of(samples.get(other, whose))?.median;
                ("≤", bound, median <= bound)
            }
        };
        let goal = format!("{sign} {} {unit}", Number(bound));
        Some(Self {
            goal: goal.trim_end().to_owned(),
            is_reached,
        })
    }
}

/// What is set against what.
fn label(whose: Subject, by: Measure) -> String {
    let whose = whose.name();
    match by {
        Measure::Alone => whose.to_owned(),
        Measure::RatioTo(other) => format!("{whose} / {}", other.name()),
        Measure::LessThan(other) => format!("{whose} - {}", other.name()),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine {
            processor,
            cores,
            memory_gib,
            kernel,
            programs,
        } = &self.machine;
        writeln!(
            f,
            "machine: {processor}, {cores} cores, {memory_gib:.0} GiB, kernel {kernel}"
        )?;
        writeln!(f, "         {}", programs.join(", "))?;
        writeln!(f, "run:     {}", self.run)?;
        for (peer, reason) in &self.skipped {
            writeln!(f, "skipped: {peer}: {reason}")?;
        }
        for table in &self.tables {
            let heading = format!("{} [{}]", table.title, table.unit);
            writeln!(
                f,
                "\n{heading:<58} {:>10} {:>10} {:>10}",
                "min", "median", "max"
            )?;
            for line in table.subjects.iter().chain(&table.comparisons) {
                let Spread { min, median, max } = line.spread;
                let [min, median, max] = [min, median, max].map(|value| Number(value).to_string());
                write!(f, "  {:<56} {min:>10} {median:>10} {max:>10}", line.name)?;
                if let Some(Verdict { goal, is_reached }) = &line.verdict {
                    let word = if *is_reached { "reached" } else { "MISSED" };
                    write!(f, "   goal {goal}: {word}")?;
                }
                writeln!(f)?;
            }
            if table.subjects.is_empty() {
                writeln!(f, "  not measured")?;
            }
        }
        Ok(())
    }
}

/// A number with about three digits that matter.
struct Number(f64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = match self.0.abs() {
            size if size >= 100.0 => 0,
            size if size >= 10.0 => 1,
            _ => 2,
        };
        write!(f, "{:.decimals$}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Gained;

    #[test]
    fn a_table_says_whether_the_goal_is_reached() {
        let mut samples = Samples::default();
        for (peer, rate) in [
            (PeerKind::Gateway, 41_000.0),
            (PeerKind::BareProxy, 45_000.0),
        ] {
            let mut gained = Gained::default();
            gained.note(Figure::Rate, rate);
            samples.add(Subject::Peer(peer), &gained);
        }
        let table = Table::new(Figure::Rate, &samples);
        assert_eq!(table.subjects.len(), 2);
        let [ratio] = &table.comparisons[..] else {
            panic!("one comparison has values: {:?}", table.comparisons);
        };
        assert_eq!(ratio.name, "gateway / bare proxy");
        let verdict = ratio.verdict.as_ref().unwrap();
        assert_eq!(verdict.goal, "≥ 0.90");
        assert!(verdict.is_reached);
    }

    #[test]
    fn numbers_have_the_digits_that_matter() {
        let shown = [45_123.4, 99.94, 0.9049, -3.21].map(|value| Number(value).to_string());
        assert_eq!(shown, ["45123", "99.9", "0.90", "-3.21"]);
    }
}
