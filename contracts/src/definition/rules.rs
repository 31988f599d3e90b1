//! `Retry` and `Catch`: what happens when a state fails.

use super::{
    machine::Reader,
    model::{Catcher, ErrorRules, QueryLanguage, Retrier},
    place::{Place, nearest},
};
use crate::error_name;

/// The longest time that Step Functions counts, in seconds.
pub(super) const MOST_SECONDS: u64 = 99_999_999;
/// The longest `MaxDelaySeconds` of Step Functions: below 366 days.
const MOST_DELAY_SECONDS: u64 = 31_622_400;

const RETRY_FIELDS: [&str; 7] = [
    "ErrorEquals",
    "IntervalSeconds",
    "MaxAttempts",
    "BackoffRate",
    "MaxDelaySeconds",
    "JitterStrategy",
    "Comment",
];

/// The reserved error names that a rule may match.
const RESERVED: [&str; 16] = [
    error_name::ALL,
    error_name::HEARTBEAT_TIMEOUT,
    error_name::TIMEOUT,
    error_name::TASK_FAILED,
    error_name::PERMISSIONS,
    error_name::RESULT_PATH_MATCH_FAILURE,
    error_name::PARAMETER_PATH_FAILURE,
    error_name::BRANCH_FAILED,
    error_name::NO_CHOICE_MATCHED,
    error_name::INTRINSIC_FAILURE,
    error_name::EXCEED_TOLERATED_FAILURE_THRESHOLD,
    error_name::ITEM_READER_FAILED,
    error_name::RESULT_WRITER_FAILED,
    error_name::QUERY_EVALUATION_ERROR,
    error_name::DATA_LIMIT_EXCEEDED,
    error_name::RUNTIME,
];

impl Reader {
    /// `Retry` and `Catch` of a state.
    pub(super) fn error_rules(&mut self, state: &Place<'_>, language: QueryLanguage) -> ErrorRules {
        ErrorRules {
            retry: self.retry(state),
            catch: self.catch(state, language),
        }
    }

    /// `Retry`.
    pub(super) fn retry(&mut self, state: &Place<'_>) -> Vec<Retrier> {
        let Some(rules) = state.get("Retry").map(|place| self.problems.array(&place)) else {
            return Vec::new();
        };
        let last = rules.len().saturating_sub(1);
        let rules = rules.iter().enumerate();
        rules
            .map(|(index, rule)| self.retrier(rule, index == last))
            .collect()
    }

    fn retrier(&mut self, rule: &Place<'_>, is_last: bool) -> Retrier {
        const WHAT: &str = "a rule of `Retry`";
        let is_object = self.problems.is_object(rule);
        self.problems.known_fields(rule, &RETRY_FIELDS, WHAT);
        self.comment(rule);
        let error_equals = self.error_equals(rule, is_object, is_last, WHAT);
        let mut integer = |name: &str, range| {
            rule.get(name)
                .and_then(|place| self.problems.integer(&place, range))
        };
        let interval_seconds = integer("IntervalSeconds", 1..=MOST_SECONDS).unwrap_or(1);
        let max_attempts = integer("MaxAttempts", 0..=MOST_SECONDS).unwrap_or(3);
        let max_delay_seconds = integer("MaxDelaySeconds", 1..=MOST_DELAY_SECONDS);
        let backoff_rate = rule
            .get("BackoffRate")
            .and_then(|place| self.problems.number(&place, 1.0..=f64::INFINITY))
            .unwrap_or(2.0);
        let has_full_jitter = rule
            .get("JitterStrategy")
            .is_some_and(|place| self.problems.word(&place, &["FULL", "NONE"]) == Some("FULL"));
        if let Some(place) = rule.get("MaxDelaySeconds")
            && max_delay_seconds.is_some_and(|longest| longest <= interval_seconds)
        {
            let message = "`MaxDelaySeconds` must be greater than `IntervalSeconds`";
            self.problems
                .error("out-of-range", &place, message)
                .label(format!("the first interval is {interval_seconds} s"));
        }
        Retrier {
            error_equals,
            interval_seconds,
            max_attempts: u32::try_from(max_attempts).unwrap_or(u32::MAX),
            backoff_rate,
            max_delay_seconds,
            has_full_jitter,
        }
    }

    fn catch(&mut self, state: &Place<'_>, language: QueryLanguage) -> Vec<Catcher> {
        let Some(rules) = state.get("Catch").map(|place| self.problems.array(&place)) else {
            return Vec::new();
        };
        let last = rules.len().saturating_sub(1);
        let rules = rules.iter().enumerate();
        rules
            .map(|(index, rule)| self.catcher(rule, index == last, language))
            .collect()
    }

    fn catcher(&mut self, rule: &Place<'_>, is_last: bool, language: QueryLanguage) -> Catcher {
        const WHAT: &str = "a rule of `Catch`";
        let is_object = self.problems.is_object(rule);
        let fields = [
            "ErrorEquals",
            "Next",
            "Assign",
            "Comment",
            "ResultPath",
            "Output",
        ];
        self.fields_of_language(rule, &fields, &["ResultPath"], &["Output"], language, WHAT);
        self.comment(rule);
        let error_equals = self.error_equals(rule, is_object, is_last, WHAT);
        let next = self.next(rule, is_object, WHAT);
        let output = rule
            .get("Output")
            .map(|place| self.problems.template(&place, language));
        Catcher {
            error_equals,
            next,
            result_path: self.problems.result_path(rule.get("ResultPath")),
            output,
            assign: self.assign(rule, language),
        }
    }

    fn error_equals(
        &mut self,
        rule: &Place<'_>,
        is_object: bool,
        is_last: bool,
        what: &str,
    ) -> Vec<String> {
        let Some(place) = rule.get("ErrorEquals") else {
            if is_object {
                self.problems.missing(rule, "ErrorEquals", what);
            }
            return Vec::new();
        };
        let items = self.problems.filled_array(&place);
        let names: Vec<String> = items
            .iter()
            .map(|item| self.problems.string(item).unwrap_or_default().to_owned())
            .collect();
        for (item, name) in items.iter().zip(&names) {
            if name == error_name::ALL && names.len() > 1 {
                self.problems
                    .error(
                        "all-not-alone",
                        item,
                        "`States.ALL` must stand alone in `ErrorEquals`",
                    )
                    .label("matches every error")
                    .help("remove the other names, or give it a last rule of its own");
            } else if name == error_name::ALL && !is_last {
                self.problems
                    .error(
                        "all-not-last",
                        item,
                        "`States.ALL` must stand in the last rule",
                    )
                    .label("the rules after this one are never asked")
                    .help("move this rule to the end");
            } else if name.starts_with("States.") && !RESERVED.contains(&name.as_str()) {
                let near = nearest(name, RESERVED);
                let warning = self.problems.warning(
                    "unknown-error-name",
                    item,
                    format!("no error is called `{name}`"),
                );
                warning.label("matches nothing that the language defines");
                if let Some(near) = near {
                    warning.help(format!("did you mean `{near}`?"));
                }
            }
        }
        names
    }
}
