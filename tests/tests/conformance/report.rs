//! How far the language goes: counts, the cases that differ, and a table of all of them.

use crate::{cases::Class, compare::Difference, deviations, player::Fault};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

/// How a case came out.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) id: String,
    pub(crate) class: Class,
    pub(crate) differences: Vec<Difference>,
}

/// How all of them did.
#[derive(Debug)]
pub(crate) struct Report {
    fault: Fault,
    rows: Vec<Row>,
}

/// How many cases agree.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Score {
    cases: usize,
    level_1: usize,
    level_2: usize,
}

impl Row {
    fn agrees_in_outcome(&self) -> bool {
        !self.differences.iter().any(Difference::is_of_level_1)
    }

    fn agrees(&self) -> bool {
        self.differences.is_empty()
    }
}

impl Score {
    fn add(&mut self, row: &Row) {
        self.cases += 1;
        self.level_1 += usize::from(row.agrees_in_outcome());
        self.level_2 += usize::from(row.agrees());
    }

    fn percent(part: usize, of: usize) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a few hundred cases")]
        let percent = part as f64 * 100.0 / of.max(1) as f64;
        percent
    }

    /// Share of the cases whose outcome, output and payloads agree, in percent.
    pub(crate) fn level_1(&self) -> f64 {
        Self::percent(self.level_1, self.cases)
    }

    /// Share of the cases whose events agree as well, in percent.
    pub(crate) fn level_2(&self) -> f64 {
        Self::percent(self.level_2, self.cases)
    }
}

impl Report {
    pub(crate) fn new(fault: Fault) -> Self {
        Self {
            fault,
            rows: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// The score of some classes together.
    pub(crate) fn score(&self, is_wanted: impl Fn(Class) -> bool) -> Score {
        let mut score = Score::default();
        for row in self.rows.iter().filter(|row| is_wanted(row.class)) {
            score.add(row);
        }
        score
    }

    fn title(&self) -> &'static str {
        match self.fault {
            Fault::None => "as recorded",
            Fault::Doubled => "every entry twice",
            Fault::Rebuilt => "the state rebuilt after every entry",
        }
    }

    /// The counts, and every case that differs, with why it may.
    pub(crate) fn summary(&self, is_verbose: bool) -> String {
        let mut text = format!("\n{}\n", self.title());
        let mut classes: BTreeMap<Class, Score> = BTreeMap::new();
        for row in &self.rows {
            classes.entry(row.class).or_default().add(row);
        }
        for (class, score) in classes {
            let Score {
                cases,
                level_1,
                level_2,
            } = score;
            let class = format!("{class:?}").to_lowercase();
            let _ = writeln!(
                text,
                "  {class:<9} L1 {level_1:>3} of {cases:>3} {:>6.1} %    L2 {level_2:>3} of {cases:>3} {:>6.1} %",
                score.level_1(),
                score.level_2(),
            );
        }
        for (level, is_of_level) in [("L1", true), ("L2 only", false)] {
            let differing = self.rows.iter().filter(|row| !row.agrees());
            for row in differing.filter(|row| row.agrees_in_outcome() != is_of_level) {
                let why = deviations::reason(&row.id).map_or_else(
                    || "not looked into yet".to_owned(),
                    |reason| format!("reviewed: {reason}"),
                );
                let _ = writeln!(text, "  {level} differs: {}\n    {why}", row.id);
                for difference in row.differences.iter().filter(|_| is_verbose) {
                    let _ = writeln!(text, "    {difference}");
                }
            }
        }
        text
    }

    /// Writes a table of all cases, and gives the file's name.
    pub(crate) fn write(&self) -> io::Result<PathBuf> {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("conformance");
        fs::create_dir_all(&folder)?;
        let path = folder.join(format!("{}.csv", self.title().replace(' ', "-")));
        let mut text = "class,id,outcome,events,first difference,reviewed\n".to_owned();
        let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\"").replace('\n', " "));
        for row in &self.rows {
            let word = |agrees: bool| if agrees { "agrees" } else { "differs" };
            let first = row.differences.first().map(ToString::to_string);
            let _ = writeln!(
                text,
                "{},{},{},{},{},{}",
                format!("{:?}", row.class).to_lowercase(),
                quoted(&row.id),
                word(row.agrees_in_outcome()),
                word(row.agrees()),
                quoted(&first.unwrap_or_default()),
                quoted(deviations::reason(&row.id).unwrap_or_default()),
            );
        }
        fs::write(&path, text)?;
        Ok(path)
    }
}
