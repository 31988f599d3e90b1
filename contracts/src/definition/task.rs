//! Task states: the resource, its times, and what the saga extension adds to them.

use super::{
    machine::Reader,
    model::{Action, Compensation, Quantity, QueryLanguage, Resource, Task},
    node::Content,
    place::Place,
    resource,
    rules::MOST_SECONDS,
};
use crate::{error_name, id::TaskName};

const WHAT: &str = "a Task state";
const COMPENSATE: &str = "a task's `Compensate`";

impl Reader {
    /// The fields of a Task.
    pub(super) fn task(&mut self, place: &Place<'_>, language: QueryLanguage) -> Task {
        let resource = match self.problems.required(place, "Resource", WHAT) {
            Some(field) => self.resource(&field),
            None => placeholder(),
        };
        self.problems
            .at_most_one(place, &["TimeoutSeconds", "TimeoutSecondsPath"]);
        self.problems
            .at_most_one(place, &["HeartbeatSeconds", "HeartbeatSecondsPath"]);
        let timeout = self.seconds(place, "TimeoutSeconds", language);
        let heartbeat = self.seconds(place, "HeartbeatSeconds", language);
        if let (Some(Quantity::Literal(timeout)), Some(Quantity::Literal(heartbeat))) =
            (&timeout, &heartbeat)
            && heartbeat >= timeout
            && let Some(field) = place.get("HeartbeatSeconds")
        {
            self.problems
                .error(
                    "out-of-range",
                    &field,
                    "`HeartbeatSeconds` must be less than `TimeoutSeconds`",
                )
                .label(format!("the step times out after {timeout} s"));
        }
        let credentials = place
            .get("Credentials")
            .map(|field| self.credentials(&field, language));
        Task {
            timeout,
            heartbeat,
            credentials,
            rules: self.error_rules(place, language),
            compensate: place
                .get("Compensate")
                .map(|field| self.compensation(&field, language)),
            pivot: place
                .get("Pivot")
                .is_some_and(|field| self.problems.boolean(&field)),
            key: place
                .get("Key")
                .and_then(|field| self.key(place, &field, &resource)),
            transition: self.transition(place, WHAT),
            resource,
        }
    }

    fn resource(&mut self, field: &Place<'_>) -> Resource {
        let Some(text) = self.problems.string(field) else {
            return placeholder();
        };
        match resource::parse(text) {
            Ok(resource) => {
                if resource::needs_extension(&resource.action) {
                    let scheme = text.split(':').next().unwrap_or_default();
                    self.is_extended(field, &format!("{scheme}:"));
                }
                if let Some(what) =
                    resource::waits_for_answer(&resource).filter(|_| self.is_express)
                {
                    self.problems
                        .error(
                            "express",
                            field,
                            format!("an Express workflow cannot use {what}"),
                        )
                        .label("waits for an answer")
                        .help("use the execution type STANDARD");
                }
                resource
            }
            Err(error) => {
                self.problems
                    .error("bad-resource", field, error.message)
                    .label("not a resource")
                    .help(error.help);
                placeholder()
            }
        }
    }

    /// A number of seconds under `name`, or a path under `name` with `Path` behind it.
    fn seconds(
        &mut self,
        place: &Place<'_>,
        name: &str,
        language: QueryLanguage,
    ) -> Option<Quantity> {
        if let Some(field) = place.get(name) {
            return Some(self.problems.quantity(&field, language, 1..=MOST_SECONDS));
        }
        let field = place.get(&format!("{name}Path"))?;
        Some(Quantity::Path(self.problems.reference_path(&field, true)))
    }

    /// `Credentials`: the role that Step Functions would take on. Checked as it checks, and not used.
    fn credentials(&mut self, field: &Place<'_>, language: QueryLanguage) -> serde_json::Value {
        const CREDENTIALS: &str = "`Credentials`";
        let is_expression =
            language == QueryLanguage::Jsonata && matches!(field.node.content, Content::String(_));
        if !is_expression {
            let known: &[&str] = match language {
                QueryLanguage::JsonPath => &["RoleArn", "RoleArn.$"],
                QueryLanguage::Jsonata => &["RoleArn"],
            };
            if self.problems.is_object(field) {
                if !known.iter().any(|name| field.has(name)) {
                    self.problems.missing(field, "RoleArn", CREDENTIALS);
                }
                self.problems.known_fields(field, known, CREDENTIALS);
            }
        }
        self.problems.template(field, language)
    }

    /// `Key`: of an awaited event, or of a child saga.
    fn key(&mut self, task: &Place<'_>, field: &Place<'_>, resource: &Resource) -> Option<String> {
        if !matches!(resource.action, Action::Await { .. } | Action::Saga { .. }) {
            self.problems
                .misplaced(
                    "misplaced-field",
                    field,
                    "`Key` is for `event:SUBJECT.await` and `saga:NAME`",
                )
                .label("this resource has no key");
            return None;
        }
        if matches!(resource.action, Action::Saga { .. })
            && let Some(retry) = task.get("Retry")
        {
            self.problems
                .warning(
                    "taken-key",
                    &retry,
                    "a second attempt finds its key taken by the child of the first",
                )
                .label("only a step without `Key` can be tried again")
                .help(format!(
                    "leave out `Key`, which gives each attempt a key of its own, or let the child \
                     try again; another attempt fails with `{}`",
                    error_name::CHILD_NOT_STARTED
                ));
        }
        self.problems.expression(field)
    }

    /// `Compensate`: how to undo the step.
    fn compensation(&mut self, field: &Place<'_>, language: QueryLanguage) -> Compensation {
        let known = [
            "Resource",
            "Arguments",
            "Parameters",
            "TimeoutSeconds",
            "Retry",
            "Comment",
        ];
        self.problems.is_object(field);
        self.fields_of_language(
            field,
            &known,
            &["Parameters"],
            &["Arguments"],
            language,
            COMPENSATE,
        );
        self.comment(field);
        let resource = match self.problems.required(field, "Resource", COMPENSATE) {
            Some(place) => {
                let resource = self.resource(&place);
                self.may_undo(&place, &resource.action);
                resource
            }
            None => placeholder(),
        };
        let arguments = match language {
            QueryLanguage::Jsonata => field.get("Arguments"),
            QueryLanguage::JsonPath => field.get("Parameters"),
        };
        let retry = self.retry(field);
        for (rule, place) in retry
            .iter()
            .zip(field.get("Retry").iter().flat_map(Place::items))
        {
            if rule.error_equals.iter().any(|name| name == error_name::ALL)
                && rule.max_attempts == 0
            {
                self.problems
                    .warning(
                        "no-second-try",
                        &place,
                        "an undo that is not tried again needs a person at its first failure",
                    )
                    .label("gives up at once");
            }
        }
        Compensation {
            resource,
            arguments: arguments.map(|place| self.problems.template(&place, language)),
            timeout_seconds: field
                .get("TimeoutSeconds")
                .and_then(|place| self.problems.integer(&place, 1..=MOST_SECONDS)),
            retry,
        }
    }

    fn may_undo(&mut self, place: &Place<'_>, action: &Action) {
        let (what, label) = match action {
            Action::Task {
                waits_for_token: true,
                ..
            } => ("wait for a token", "waits for a token"),
            Action::Await { .. } => ("wait for an event", "waits for an event"),
            _ => return,
        };
        self.problems
            .error("bad-resource", place, format!("an undo cannot {what}"))
            .label(label)
            .help("undo with `task:NAME`, `event:SUBJECT` or `saga:NAME`");
    }
}

/// Stands for a resource that could not be read; an error was reported.
fn placeholder() -> Resource {
    #[expect(clippy::expect_used, reason = "a constant that is a name")]
    let task = TaskName::new("unreadable").expect("a valid name");
    Resource {
        text: String::new(),
        action: Action::Task {
            task,
            waits_for_token: false,
        },
    }
}
