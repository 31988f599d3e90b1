//! Routing rules: which events start which sagas, and which are awaited by which.
//!
//! They are read from a definition once, when it is deployed or first seen, and compiled then, so a
//! wrong expression is an error of the deployment.

use crate::{
    engine::{Fault, consumers},
    expression::{Environment, Expression, Scope, Template},
};
use dirigent_contracts::{
    definition::model::{Action, Definition, Machine, StateKind},
    event::Event,
    id::{DefinitionDigest, DefinitionName, SagaKey},
    subject,
};
use serde_json::Value;
use std::sync::Arc;

/// What a definition wants of events.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    pub(crate) rules: Vec<Rule>,
    /// The subjects of the events that it publishes: some stream must keep them.
    pub(crate) published: Vec<String>,
    /// The consumers of the tasks that its sagas may ask for.
    pub(crate) consumers: Vec<String>,
}

/// What the events are for that one consumer reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Feed {
    /// They start sagas; and all that former versions listened to with the same consumer.
    Triggers,
    /// Sagas that have begun await them: they come through when starts have to wait.
    Awaited,
}

impl Feed {
    /// The consumer that reads them.
    pub(crate) fn consumer(self) -> &'static str {
        match self {
            Self::Triggers => subject::ROUTER_CONSUMER,
            Self::Awaited => subject::AWAITED_CONSUMER,
        }
    }
}

/// One rule.
#[derive(Debug)]
pub(crate) struct Rule {
    /// The NATS subject that is listened to; with wildcards.
    pub(crate) subject: String,
    /// The CloudEvents type that it is for; any if it is not said.
    kind: Option<String>,
    /// Which saga an event is for; the event's own key if it is not said.
    key: Option<Expression>,
    pub(crate) purpose: Purpose,
}

/// What an event is for.
#[derive(Debug)]
pub(crate) enum Purpose {
    /// It starts a saga.
    Start {
        filter: Option<Box<Expression>>,
        input: Option<Box<Template>>,
    },
    /// A saga awaits it.
    Continue,
}

/// A rule with the definition that it belongs to.
#[derive(Clone, Debug)]
pub(crate) struct Owned {
    pub(crate) definition: DefinitionName,
    pub(crate) digest: DefinitionDigest,
    pub(crate) wishes: Arc<Wishes>,
}

/// What a rule makes of an event.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Decision {
    /// The filter says that it is not meant.
    NotMeant,
    /// It starts the saga with this key and input.
    Start(SagaKey, Arc<Value>),
    /// It is for the saga with this key.
    Continue(SagaKey),
}

impl Wishes {
    /// Reads the wishes of a definition.
    ///
    /// # Errors
    /// Every expression that does not parse.
    pub(crate) fn of(definition: &Definition) -> Result<Self, Vec<Fault>> {
        let mut reading = Reading::default();
        for (n, trigger) in definition.triggers.iter().enumerate() {
            let pointer = format!("/Triggers/{n}");
            let key = reading.expression(trigger.key.as_deref(), &format!("{pointer}/Key"));
            let filter =
                reading.expression(trigger.filter.as_deref(), &format!("{pointer}/Filter"));
            let input = trigger.input.as_ref().and_then(|input| {
                Template::compile_jsonata(input)
                    .map_err(|error| {
                        reading.faults.push(Fault {
                            pointer: format!("{pointer}/Input{}", error.pointer),
                            offset: None,
                            message: error.error.message,
                        });
                    })
                    .ok()
            });
            let kind = trigger.subject.as_ref().map(|_| trigger.event.clone());
            let subject = trigger
                .subject
                .clone()
                .unwrap_or_else(|| trigger.event.clone());
            let purpose = Purpose::Start {
                filter: filter.map(Box::new),
                input: input.map(Box::new),
            };
            reading.wishes.rules.push(Rule {
                subject,
                kind,
                key,
                purpose,
            });
        }
        reading.machine(&definition.machine, "");
        reading.wishes.consumers = consumers(definition);
        if reading.faults.is_empty() {
            Ok(reading.wishes)
        } else {
            Err(reading.faults)
        }
    }

    /// All subjects that some stream must keep: those that are listened to, with what for, and those
    /// that are published.
    pub(crate) fn subjects(&self) -> impl Iterator<Item = (&str, Option<Feed>)> {
        let listened = self.rules.iter().map(|rule| {
            let feed = match rule.purpose {
                Purpose::Start { .. } => Feed::Triggers,
                Purpose::Continue => Feed::Awaited,
            };
            (rule.subject.as_str(), Some(feed))
        });
        let published = self.published.iter();
        listened.chain(published.map(|subject| (subject.as_str(), None)))
    }
}

#[derive(Default)]
struct Reading {
    wishes: Wishes,
    faults: Vec<Fault>,
}

impl Reading {
    fn expression(&mut self, source: Option<&str>, pointer: &str) -> Option<Expression> {
        let compiled = Expression::compile(source?);
        compiled
            .map_err(|error| {
                let pointer = pointer.to_owned();
                // The offset counts from the braces, the source begins behind them.
                self.faults.push(Fault {
                    pointer,
                    offset: None,
                    message: error.message,
                });
            })
            .ok()
    }

    fn machine(&mut self, machine: &Machine, pointer: &str) {
        for (name, state) in &machine.states {
            let name = name.replace('~', "~0").replace('/', "~1");
            let pointer = format!("{pointer}/States/{name}");
            match &state.kind {
                StateKind::Task(task) => {
                    match &task.resource.action {
                        Action::Publish { subject } => self.wishes.published.push(subject.clone()),
                        Action::Await { subject } => {
                            let key =
                                self.expression(task.key.as_deref(), &format!("{pointer}/Key"));
                            self.wishes.rules.push(Rule {
                                subject: subject.clone(),
                                kind: None,
                                key,
                                purpose: Purpose::Continue,
                            });
                        }
                        Action::Task { .. } | Action::Saga { .. } => {}
                    }
                    if let Some(undo) = &task.compensate
                        && let Action::Publish { subject } = &undo.resource.action
                    {
                        self.wishes.published.push(subject.clone());
                    }
                }
                StateKind::Parallel { branches, .. } => {
                    for (n, branch) in branches.iter().enumerate() {
                        self.machine(branch, &format!("{pointer}/Branches/{n}"));
                    }
                }
                StateKind::Map(map) => {
                    self.machine(&map.processor, &format!("{pointer}/ItemProcessor"));
                }
                _ => {}
            }
        }
    }
}

impl Rule {
    /// Whether events that are read for that may be for this rule.
    pub(crate) fn is_read_as(&self, feed: Feed) -> bool {
        feed == Feed::Triggers || matches!(self.purpose, Purpose::Continue)
    }

    /// Whether the event is one of those that the rule listens to.
    pub(crate) fn listens_to(&self, event: &Event) -> bool {
        matches(&self.subject, &event.nats_subject)
            && self
                .kind
                .as_ref()
                .is_none_or(|kind| event.kind.as_ref() == Some(kind))
    }

    /// What the rule makes of an event. `at` and `seed` are the entry's, so that a redelivery decides
    /// the same.
    ///
    /// # Errors
    /// Why it can make nothing of it, for an operator.
    pub(crate) fn decide(
        &self,
        event: &Event,
        value: &Value,
        at: i64,
        seed: u64,
    ) -> Result<Decision, String> {
        let variables = [("event", value)];
        let scope = Scope::of_variables(&variables);
        let mut environment = Environment::new(at, seed);
        if let Purpose::Start {
            filter: Some(filter),
            ..
        } = &self.purpose
        {
            let kept = filter.evaluate(&scope, &mut environment);
            match kept.map_err(|error| format!("the filter failed: {}", error.message))? {
                Some(Value::Bool(true)) => {}
                Some(Value::Bool(false)) | None => return Ok(Decision::NotMeant),
                Some(other) => return Err(format!("the filter gives {other}, not true or false")),
            }
        }
        let key = match &self.key {
            Some(key) => {
                let key = key.evaluate(&scope, &mut environment);
                match key.map_err(|error| format!("the key failed: {}", error.message))? {
                    Some(Value::String(key)) => key,
                    Some(Value::Number(key)) => key.to_string(),
                    Some(other) => {
                        return Err(format!("the key is {other}, not a text or a number"));
                    }
                    None => return Err("the event has nothing where the key should be".to_owned()),
                }
            }
            None => event
                .own_key()
                .ok_or("no rule says which saga the event is for, and it carries no key itself")?
                .to_owned(),
        };
        let key = SagaKey::new(key).map_err(|error| error.to_string())?;
        match &self.purpose {
            Purpose::Continue => Ok(Decision::Continue(key)),
            Purpose::Start { input: None, .. } => Ok(Decision::Start(key, Arc::clone(&event.data))),
            Purpose::Start {
                input: Some(input), ..
            } => {
                let input = input.evaluate(&scope, &mut environment).map_err(|error| {
                    format!(
                        "the input failed at {:?}: {:?}",
                        error.expression, error.kind
                    )
                })?;
                Ok(Decision::Start(key, Arc::new(input)))
            }
        }
    }
}

/// Whether a NATS subject matches a pattern with `*` and `>`.
pub(crate) fn matches(pattern: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    for wanted in pattern.split('.') {
        match (wanted, tokens.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (wanted, Some(token)) if wanted == token => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}

/// The patterns without those that another one takes in: a consumer's filters must not overlap.
pub(crate) fn without_subsumed(mut patterns: Vec<String>) -> Vec<String> {
    patterns.sort();
    patterns.dedup();
    let all = patterns.clone();
    patterns.retain(|one| !all.iter().any(|other| other != one && matches(other, one)));
    patterns
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn wishes(trigger: &str) -> Wishes {
        let document = format!(
            "Extensions: [saga/1]\nStartAt: P\nTriggers: [ {trigger} ]\nStates: {{ P: {{ Type: Pass, End: true }} }}"
        );
        let (parsed, _) = crate::compile("test.yaml", &document).unwrap();
        Wishes::of(&parsed.definition).unwrap()
    }

    fn decide(trigger: &str, body: &Value) -> Result<Decision, String> {
        let wishes = wishes(trigger);
        let event = Event::parse("orders.placed", &[], body.to_string().as_bytes()).unwrap();
        assert!(wishes.rules[0].listens_to(&event));
        wishes.rules[0].decide(&event, &event.to_expression_value(), 0, 0)
    }

    #[test]
    fn subjects_match_as_nats_matches_them() {
        for (pattern, subject, expected) in [
            ("a.b", "a.b", true),
            ("a.*", "a.b", true),
            ("a.*", "a.b.c", false),
            ("a.>", "a.b.c", true),
            ("a.>", "a", false),
            ("a.b", "a.b.c", false),
        ] {
            assert_eq!(matches(pattern, subject), expected, "{pattern} {subject}");
        }
        let patterns = ["a.b", "a.*", "c", "c", "a.b.c"]
            .map(str::to_owned)
            .to_vec();
        assert_eq!(without_subsumed(patterns), ["a.*", "a.b.c", "c"]);
    }

    #[test]
    fn a_trigger_finds_key_and_input() {
        let key = |text: &str| SagaKey::new(text).unwrap();
        let body = json!({"id": 7, "name": "x"});
        let trigger = "{ Event: orders.placed, Key: '{% $event.data.id %}' }";
        let start = Decision::Start(key("7"), Arc::new(body.clone()));
        assert_eq!(decide(trigger, &body), Ok(start));
        let trigger = "{ Event: 'orders.*', Key: '{% $event.data.name %}', Input: { n: '{% $event.data.id + 1 %}' } }";
        let start = Decision::Start(key("x"), Arc::new(json!({"n": 8})));
        assert_eq!(decide(trigger, &body), Ok(start));
        let trigger = "{ Event: orders.placed, Key: '{% $event.data.id %}', Filter: '{% $event.data.id > 7 %}' }";
        assert_eq!(decide(trigger, &body), Ok(Decision::NotMeant));
    }

    #[test]
    fn a_key_that_is_none_says_why() {
        for trigger in [
            "{ Event: orders.placed, Key: '{% $event.data.missing %}' }",
            "{ Event: orders.placed, Key: '{% $event.data %}' }",
            "{ Event: orders.placed, Key: '{% $error(\"no\") %}' }",
            "{ Event: orders.placed }",
        ] {
            let reason = decide(trigger, &json!({"a": 1})).unwrap_err();
            assert!(reason.contains("key"), "{reason}");
        }
    }
}
