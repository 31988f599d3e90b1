//! A saga's spans laid out as a waterfall, with its critical path: what `dirigent trace` shows.
//!
//! They are the spans that a tracing backend gets, told from the history in the same way, and those that
//! have not ended.

use dirigent_contracts::{
    header::TraceContext,
    history::{Happening, HistoryEvent},
    id::{RunId, SagaAddress},
    outcome::SagaStatus,
    time::Timestamp,
    trace::{Run, Span, What},
};
use serde::Serialize;
use std::{collections::HashMap, time::Duration};

/// The spans of one saga. All times are in microseconds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Waterfall {
    #[serde(flatten)]
    pub(crate) saga: SagaAddress,
    pub(crate) run: RunId,
    /// 32 hexadecimal digits: what tracing backends find it by.
    pub(crate) trace_id: String,
    pub(crate) started_at: Timestamp,
    /// How it ended, if it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<SagaStatus>,
    /// From its start to its end, or to now.
    pub(crate) duration_us: u64,
    /// Each under the one that it lies within; the saga itself first.
    pub(crate) spans: Vec<Row>,
}

/// One span.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    /// Its id, 16 hexadecimal digits.
    pub(crate) id: String,
    /// How many spans it lies within.
    pub(crate) depth: usize,
    pub(crate) name: String,
    /// When it began, since the start of the saga.
    pub(crate) start_us: u64,
    /// How long it took, or has taken so far.
    pub(crate) duration_us: u64,
    /// Of that, until a worker began with it, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) queued_us: Option<u64>,
    pub(crate) ending: Ending,
    /// Whether it only lets time pass.
    pub(crate) is_pause: bool,
    /// Whether the saga would have ended sooner without it.
    pub(crate) is_critical: bool,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) failure: Option<String>,
}

/// How a span ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Ending {
    /// It has not.
    Open,
    Done,
    Failed,
    /// Nobody knows, or asks, how it would have ended.
    BrokenOff,
}

impl Waterfall {
    /// Lays a history out; `None` if its beginning is forgotten. What has not ended lasts until `now`, or
    /// the last thing that happened, if that is later.
    pub(crate) fn of(saga: SagaAddress, history: &[HistoryEvent], now: Timestamp) -> Option<Self> {
        let first = history.first()?;
        let Happening::SagaStarted { run, caller, .. } = &first.what else {
            return None;
        };
        let run = Run {
            id: *run,
            caller: caller.as_deref().and_then(TraceContext::parse),
            started_at: first.at,
        };
        let spans = spans(&run, history);
        let status = history.iter().find_map(|event| match &event.what {
            Happening::SagaEnded { outcome } => Some(outcome.status),
            _ => None,
        });
        let now = history
            .iter()
            .map(|event| event.at)
            .fold(now, Timestamp::max);
        let mut tree = Tree::new(&spans, now);
        tree.mark_critical(0);
        let mut rows = Vec::with_capacity(spans.len());
        tree.list(0, 0, &mut |at, depth| {
            let row = row(&spans[at], &run, &saga, tree.ends[at], depth);
            rows.push(Row {
                is_critical: tree.is_critical[at],
                ..row
            });
        });
        Some(Self {
            run: run.id,
            trace_id: format!("{:032x}", run.trace()),
            started_at: run.started_at,
            status,
            duration_us: micros(tree.ends[0].since(run.started_at)),
            spans: rows,
            saga,
        })
    }
}

/// All spans of a history, in the order of their beginnings, the saga's own first.
fn spans<'a>(run: &Run, history: &'a [HistoryEvent]) -> Vec<Span<'a>> {
    let mut spans: Vec<Span<'a>> = Vec::new();
    let mut places = HashMap::new();
    let told = history.iter().flat_map(|event| {
        let begun = run.begun(event).into_iter();
        begun.chain(run.ended(event))
    });
    for span in told {
        if let Some(&at) = places.get(&span.id) {
            spans[at] = span;
        } else {
            places.insert(span.id, spans.len());
            spans.push(span);
        }
    }
    spans
}

fn row(span: &Span<'_>, run: &Run, saga: &SagaAddress, end: Timestamp, depth: usize) -> Row {
    let name = match &span.what {
        What::Saga { .. } => saga.to_string(),
        What::Member { state, index, .. } => format!("{state} [{index}]"),
        What::Attempt { command, .. } if command.attempt > 1 => {
            format!("{}, attempt {}", span.what.name(saga), command.attempt)
        }
        what => what.name(saga).into_owned(),
    };
    let queued_us = match &span.what {
        What::Attempt {
            timing: Some(timing),
            ..
        } => Some(micros(end.since(span.start)).saturating_sub(timing.ran_us)),
        _ => None,
    };
    Row {
        id: format!("{:016x}", span.id),
        depth,
        name,
        start_us: micros(span.start.since(run.started_at)),
        duration_us: micros(end.since(span.start)),
        queued_us,
        ending: match span {
            Span { end: None, .. } => Ending::Open,
            Span {
                is_broken_off: true,
                ..
            } => Ending::BrokenOff,
            Span {
                failure: Some(_), ..
            } => Ending::Failed,
            _ => Ending::Done,
        },
        is_pause: matches!(span.what, What::Pause { .. }),
        is_critical: false,
        failure: span.failure.map(ToString::to_string),
    }
}

/// Which span lies within which.
struct Tree {
    starts: Vec<Timestamp>,
    ends: Vec<Timestamp>,
    children: Vec<Vec<usize>>,
    is_critical: Vec<bool>,
}

impl Tree {
    fn new(spans: &[Span<'_>], now: Timestamp) -> Self {
        let places: HashMap<u64, usize> = spans
            .iter()
            .zip(0..)
            .map(|(span, at)| (span.id, at))
            .collect();
        let mut children = vec![Vec::new(); spans.len()];
        let mut ends = Vec::with_capacity(spans.len());
        for (at, span) in spans.iter().enumerate() {
            // Of a saga that began with an older version, some parents are not known.
            let parent = span.parent.and_then(|parent| places.get(&parent));
            let parent = parent.copied().filter(|&parent| parent < at).unwrap_or(0);
            if at > 0 {
                children[parent].push(at);
            }
            // What is broken off without a word ends with what it lies within.
            let around = ends.get(parent).copied().unwrap_or(now);
            ends.push(span.end.unwrap_or(around).max(span.start));
        }
        Self {
            starts: spans.iter().map(|span| span.start).collect(),
            ends,
            children,
            is_critical: vec![false; spans.len()],
        }
    }

    /// Marks what the end of a span waited for: from its end backwards, always what ended last before.
    fn mark_critical(&mut self, at: usize) {
        self.is_critical[at] = true;
        let mut children = self.children[at].clone();
        children.sort_by_key(|&child| (self.ends[child], self.starts[child]));
        let mut until = self.ends[at];
        for child in children.into_iter().rev() {
            if self.ends[child] <= until {
                until = self.starts[child];
                self.mark_critical(child);
            }
        }
    }

    fn list(&self, at: usize, depth: usize, take: &mut impl FnMut(usize, usize)) {
        take(at, depth);
        let mut children = self.children[at].clone();
        children.sort_by_key(|&child| self.starts[child]);
        for child in children {
            self.list(child, depth + 1, take);
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
