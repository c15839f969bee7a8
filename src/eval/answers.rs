//! `eval --answers`: how often logged answers had the item that their user took next.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use crate::Failure;
use crate::columns::aligned;
use crate::printable::printable;
use canet_data::TimedDataset;
use canet_domain::Proportion;
use canet_serving::JUDGED;

/// One line of the answer log. Fields that do not matter here are ignored.
#[derive(Debug, Deserialize)]
struct AnswerLine {
    time: String,
    user: Option<Box<str>>,
    model: Box<str>,
    version: u64,
    route: Option<Box<str>>,
    reason: Box<str>,
    /// Older logs lack it.
    #[serde(default)]
    budget: Option<f64>,
    k: usize,
    #[serde(rename = "candidates")]
    narrowed: bool,
    items: Vec<Box<str>>,
}

/// A logged answer to a user.
struct LoggedAnswer {
    /// Nanoseconds since 1970.
    time: i64,
    group: usize,
    best: Vec<Box<str>>,
}

/// What answers are grouped by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Group {
    model: Box<str>,
    version: u64,
    /// `None` for a cold start.
    route: Option<Box<str>>,
    reason: Box<str>,
    /// The budget that the request named, as text.
    budget: Option<Box<str>>,
}

/// The answers of a directory.
#[derive(Default)]
struct AnswerFiles {
    by_user: HashMap<Box<str>, Vec<LoggedAnswer>>,
    groups: Vec<Group>,
    counts: Counts,
}

/// What became of the logged answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Counts {
    /// All answers.
    answers: u64,
    /// The user's next item decided.
    judged: u64,
    /// No user.
    without_user: u64,
    /// Fewer than ten items were asked for, or the request narrowed the choice.
    not_judgeable: u64,
    /// Another answer to the user came before the next item.
    superseded: u64,
    /// The data have no later item of the user.
    open: u64,
    /// Lines that end early: a server was stopped within one, or the disk was full.
    cut_lines: u64,
}

/// The hit rate of a group of answers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Rate {
    model: String,
    version: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    budget: Option<String>,
    judged: u64,
    hits: u64,
    hit_rate: f64,
    /// Wilson's 95 % interval.
    interval: [f64; 2],
    /// The mean of 1 / rank, 0 for a miss.
    mrr: f64,
}

/// Hit rates of logged answers.
#[derive(Debug, Serialize)]
pub(super) struct AnswerReport {
    #[serde(flatten)]
    counts: Counts,
    by_version: Vec<Rate>,
    by_reason: Vec<Rate>,
    by_route: Vec<Rate>,
    /// Empty if no request named a budget.
    by_budget: Vec<Rate>,
}

#[derive(Clone, Copy, Default)]
struct Tally {
    hits: Proportion,
    reciprocal_ranks: f64,
}

/// What tells groups apart in a table.
#[derive(Default, PartialEq, Eq, PartialOrd, Ord)]
struct GroupKey {
    model: String,
    version: u64,
    route: Option<String>,
    reason: Option<String>,
    budget: Option<String>,
}

/// Nanoseconds of a day.
const DAY: i64 = 86_400_000_000_000;

/// Judges the answers in `path`, a file or a directory of `.jsonl` files, by the interactions of `data`.
pub(super) fn judge(path: &Path, data: &TimedDataset) -> Result<AnswerReport, Failure> {
    let mut answers = AnswerFiles::read(path)?;
    if data.times.iter().flatten().all(|time| time % DAY == 0) {
        return Err(Failure::Data(
            "the data have dates without times of day, which do not tell what came after an answer of the same day: give \
             data with times of day"
                .to_owned(),
        ));
    }
    let places: HashMap<&str, usize> =
        data.dataset.users.iter().enumerate().map(|(place, user)| (&**user, place)).collect();
    let mut tallies = vec![Tally::default(); answers.groups.len()];
    let counts = &mut answers.counts;
    for (user, logged) in &mut answers.by_user {
        logged.sort_by_key(|answer| answer.time);
        let place = places.get(&**user).copied();
        let times = place.map_or(&[][..], |place| &data.times[place]);
        for (index, answer) in logged.iter().enumerate() {
            let next = times.partition_point(|time| *time <= answer.time);
            let (Some(time), Some(sequence)) = (times.get(next), place.map(|place| &data.dataset.sequences[place]))
            else {
                counts.open += 1;
                continue;
            };
            if logged.get(index + 1).is_some_and(|later| later.time < *time) {
                counts.superseded += 1;
            } else {
                counts.judged += 1;
                let item = &data.dataset.ids[sequence[next].column() - 1];
                let rank = answer.best.iter().position(|best| best == item).map(|place| place + 1);
                tallies[answer.group].add(rank);
            }
        }
    }
    let groups = || answers.groups.iter().zip(&tallies);
    let rates = |key: fn(&Group) -> GroupKey| -> Vec<Rate> {
        let mut sums = BTreeMap::<_, Tally>::new();
        for (group, tally) in groups() {
            let of_model = GroupKey { model: group.model.to_string(), version: group.version, ..key(group) };
            sums.entry(of_model).or_default().merge(tally);
        }
        sums.into_iter().filter_map(|(key, tally)| tally.rate(key)).collect()
    };
    let names_budgets = answers.groups.iter().any(|group| group.budget.is_some());
    Ok(AnswerReport {
        counts: answers.counts,
        by_version: rates(|_| GroupKey::default()),
        by_reason: rates(|group| GroupKey { reason: Some(group.reason.to_string()), ..GroupKey::default() }),
        by_route: rates(|group| GroupKey {
            route: Some(group.name().to_owned()),
            reason: Some(group.reason.to_string()),
            ..GroupKey::default()
        }),
        by_budget: match names_budgets {
            true => rates(|group| GroupKey {
                budget: Some(group.budget.as_deref().unwrap_or("server's").to_owned()),
                ..GroupKey::default()
            }),
            false => Vec::new(),
        },
    })
}

impl Group {
    fn name(&self) -> &str {
        self.route.as_deref().unwrap_or("none")
    }
}

impl Tally {
    fn add(&mut self, rank: Option<usize>) {
        self.hits.trials += 1;
        self.hits.successes += u64::from(rank.is_some());
        self.reciprocal_ranks += rank.map_or(0.0, |rank| 1.0 / rank as f64);
    }

    fn merge(&mut self, other: &Tally) {
        self.hits.trials += other.hits.trials;
        self.hits.successes += other.hits.successes;
        self.reciprocal_ranks += other.reciprocal_ranks;
    }

    /// `None` if nothing is judged.
    fn rate(self, GroupKey { model, version, route, reason, budget }: GroupKey) -> Option<Rate> {
        let Proportion { successes: hits, trials: judged } = self.hits;
        let (hit_rate, interval) = (self.hits.share()?, self.hits.interval()?);
        Some(Rate {
            model,
            version,
            route,
            reason,
            budget,
            judged,
            hits,
            hit_rate,
            interval,
            mrr: self.reciprocal_ranks / judged as f64,
        })
    }
}

impl AnswerFiles {
    fn read(path: &Path) -> Result<AnswerFiles, Failure> {
        let mut files = AnswerFiles::default();
        let mut groups = HashMap::new();
        for path in log_files(path)? {
            files.read_file(&path, &mut groups)?;
        }
        Ok(files)
    }

    fn read_file(&mut self, path: &Path, groups: &mut HashMap<Group, usize>) -> Result<(), Failure> {
        let unreadable = |error| Failure::Data(format!("{}: {error}", path.display()));
        let mut reader = BufReader::new(File::open(path).map_err(unreadable)?);
        let (mut line, mut number) = (Vec::new(), 0_u64);
        loop {
            line.clear();
            if reader.read_until(b'\n', &mut line).map_err(unreadable)? == 0 {
                return Ok(());
            }
            number += 1;
            let whole = line.strip_suffix(b"\n").unwrap_or(&line);
            let parsed = match serde_json::from_slice::<AnswerLine>(whole) {
                // A server was stopped within the line, or the disk was full.
                Err(error) if error.is_eof() => {
                    self.counts.cut_lines += 1;
                    continue;
                }
                parsed => parsed.map_err(|error| error.to_string()),
            };
            match parsed.and_then(|answer| Ok((nanoseconds(&answer.time)?, answer))) {
                Ok((time, answer)) => self.add(time, answer, groups),
                Err(error) => {
                    return Err(Failure::Data(format!(
                        "{}: line {number} is no line of an answer log: {error}",
                        path.display()
                    )));
                }
            }
        }
    }

    fn add(&mut self, time: i64, answer: AnswerLine, groups: &mut HashMap<Group, usize>) {
        self.counts.answers += 1;
        let AnswerLine { user, model, version, route, reason, budget, k, narrowed, mut items, .. } = answer;
        let Some(user) = user else {
            self.counts.without_user += 1;
            return;
        };
        // Such an answer does not take the place of the one before: a page may have both.
        if k < JUDGED || narrowed {
            self.counts.not_judgeable += 1;
            return;
        }
        let group = Group { model, version, route, reason, budget: budget.map(|budget| budget.to_string().into()) };
        let group = *groups.entry(group.clone()).or_insert_with(|| {
            self.groups.push(group);
            self.groups.len() - 1
        });
        items.truncate(JUDGED);
        self.by_user.entry(user).or_default().push(LoggedAnswer { time, group, best: items });
    }
}

fn nanoseconds(time: &str) -> Result<i64, String> {
    let time = humantime::parse_rfc3339(time).map_err(|error| format!("its `time` {error}"))?;
    let since = time.duration_since(UNIX_EPOCH).map_err(|error| error.to_string())?;
    i64::try_from(since.as_nanos()).map_err(|error| error.to_string())
}

/// The file itself, or the `.jsonl` files of a directory in the order of their names.
fn log_files(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    let unreadable = |error: std::io::Error| Failure::Data(format!("{}: {error}", path.display()));
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(unreadable)?;
    let mut files: Vec<PathBuf> = entries.iter().map(fs::DirEntry::path).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "jsonl"));
    files.sort();
    if files.is_empty() {
        return Err(Failure::Data(format!("{}: there is no .jsonl file of an answer log", path.display())));
    }
    Ok(files)
}

impl AnswerReport {
    /// The report as text.
    pub(super) fn text(&self) -> String {
        let Counts { answers, judged, without_user, not_judgeable, superseded, open, cut_lines } = self.counts;
        let mut text = format!(
            "{answers} answers, {judged} judged by the user's next item. Not judged: {without_user} without a user, \
             {not_judgeable} of fewer than {JUDGED} items or narrowed by candidates, a filter or max_per, {superseded} followed by another answer first, \
             {open} without a later item in the data.\n"
        );
        if cut_lines > 0 {
            text += &format!("Lines that are cut off: {cut_lines}.\n");
        }
        if judged == 0 {
            return text;
        }
        text += &format!("Hit rate: the next item is among the first {JUDGED}. Intervals are Wilson's, of 95 %.\n");
        for (heading, rates) in [
            ("version", &self.by_version),
            ("version and reason", &self.by_reason),
            ("version and route", &self.by_route),
            ("version and budget", &self.by_budget),
        ] {
            if rates.is_empty() {
                continue;
            }
            text += &format!("\nBy {heading}\n");
            text += &aligned(
                &[
                    "model",
                    "version",
                    "route",
                    "reason",
                    "budget",
                    "judged",
                    "hits",
                    "hit rate",
                    "95 % interval",
                    "MRR@10",
                ],
                rates.iter().map(Rate::row),
            );
        }
        text
    }

    /// The report as one JSON document.
    ///
    /// # Errors
    /// [`serde_json::Error`] if a value has no JSON form.
    pub(super) fn document(&self) -> Result<String, serde_json::Error> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }
}

impl Rate {
    fn row(&self) -> Vec<String> {
        let [low, high] = self.interval;
        let name = |name: &Option<String>| name.as_deref().map_or_else(|| "all".to_owned(), printable);
        vec![
            printable(&self.model),
            self.version.to_string(),
            name(&self.route),
            name(&self.reason),
            name(&self.budget),
            self.judged.to_string(),
            self.hits.to_string(),
            format!("{:.4}", self.hit_rate),
            format!("{low:.4} to {high:.4}"),
            format!("{:.4}", self.mrr),
        ]
    }
}
