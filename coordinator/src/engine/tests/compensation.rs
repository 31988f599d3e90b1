//! The way back, case by case: what is undone, with which arguments, and how the saga ends.

use super::*;
use dirigent_contracts::{error_name, journal::Child, outcome::Outcome};
use serde_json::json;

/// A document in `JSONata` of these states, the first of which is A.
fn jsonata(states: &str) -> String {
    format!(
        "{{ Extensions: [saga/1], QueryLanguage: JSONata, StartAt: A, States: {{ {states} }} }}"
    )
}

fn jsonpath(states: &str) -> String {
    format!("{{ Extensions: [saga/1], StartAt: A, States: {{ {states} }} }}")
}

impl Play {
    /// The children that were started, the last one last.
    fn children(&self) -> Vec<CommandId> {
        let started = self.effects.iter().filter_map(|effect| match effect {
            Effect::StartChild { parent, .. } => Some(parent.command),
            _ => None,
        });
        started.collect()
    }

    /// The keys of the children that were asked to end.
    fn canceled(&self) -> Vec<String> {
        let canceled = self.effects.iter().filter_map(|effect| match effect {
            Effect::CancelChild { child, .. } => Some(child.key.to_string()),
            _ => None,
        });
        canceled.collect()
    }

    fn child_ends(&mut self, command: CommandId, status: SagaStatus) -> Option<Ignored> {
        let is_succeeded = status == SagaStatus::Succeeded;
        self.take(Entry::Child(Child {
            command,
            outcome: Outcome {
                status,
                output: is_succeeded.then(|| Arc::new(json!("done"))),
                failure: (!is_succeeded).then(|| Failure::new("Broken", "")),
            },
            holds: false,
            past_pivot: false,
        }))
    }

    /// The input of the next command, which must be for this task; it succeeds.
    fn undo(&mut self, task: &str) -> Value {
        let input = Value::clone(&self.commands[0].input);
        let command = self.command(task);
        self.succeed(command, json!(null));
        input
    }

    fn evaluations_failed(&self) -> usize {
        self.count(|what| matches!(what, Happening::EvaluationFailed { .. }))
    }
}

#[test]
fn an_answer_that_proves_nothing_leaves_the_doubt() {
    let document = "
Extensions: [saga/1]
StartAt: Both
States:
  Both:
    Type: Parallel
    End: true
    Branches:
      - { StartAt: A, States: { A: { Type: Task, Resource: 'task:a', End: true, Compensate: { Resource: 'task:ua' } } } }
      - { StartAt: B, States: { B: { Type: Task, Resource: 'task:b', End: true } } }
";
    for error in [error_name::WORKER_PANIC, error_name::QUEUE_FULL] {
        let mut play = Play::started(document, json!(1));
        let (a, b) = (play.command("a"), play.command("b"));
        play.fail(b, "No");
        assert_eq!(play.fail(a, error), Some(Ignored::NotPending));
        assert_eq!(play.status(), SagaStatus::Compensating);
        play.wait();
        play.undo("ua");
        assert_eq!(play.status(), SagaStatus::Compensated, "{error}");
    }
    // An error of the worker's own says that nothing was done.
    let mut play = Play::started(document, json!(1));
    let (a, b) = (play.command("a"), play.command("b"));
    play.fail(b, "No");
    play.fail(a, "Neither");
    assert_eq!(play.status(), SagaStatus::Failed);
}

#[test]
fn an_answer_that_proves_nothing_to_an_earlier_attempt_leaves_the_doubt() {
    let document = jsonata(
        "A: { Type: Task, Resource: 'task:a', TimeoutSeconds: 5, End: true, \
             Retry: [ { ErrorEquals: [States.Timeout], MaxAttempts: 1 } ], \
             Compensate: { Resource: 'task:ua' } }",
    );
    let mut play = Play::started(&document, json!(1));
    let first = play.command("a");
    play.wait();
    play.wait();
    let second = play.command("a");
    assert_eq!(
        play.fail(first, error_name::WORKER_PANIC),
        Some(Ignored::NotPending)
    );
    play.fail(second, "No");
    play.wait();
    play.undo("ua");
    assert_eq!(play.status(), SagaStatus::Compensated);
}

const CHARGE: &str = "A: { Type: Task, Resource: 'task:a', TimeoutSeconds: 10, Next: B, \
    Compensate: { Resource: 'task:ua', Arguments: { id: '{% $states.result.chargeId %}' } } }, \
    B: { Type: Task, Resource: 'task:b', End: true }";

#[test]
fn an_undo_whose_arguments_cannot_be_evaluated_waits_for_a_person() {
    for is_event in [false, true] {
        let mut document = jsonata(CHARGE);
        if is_event {
            document = document.replace("task:ua", "event:undone.a");
        }
        let mut play = Play::started(&document, json!({"card": 1}));
        let a = play.command("a");
        play.succeed(a, json!({"charge_id": 5}));
        assert_eq!(play.evaluations_failed(), 1, "it is told at once");
        let b = play.command("b");
        play.fail(b, "No");
        assert_eq!(play.status(), SagaStatus::Stuck);
        assert!(matches!(play.effects.last(), Some(Effect::Incident { .. })));
        // Another try comes to the same.
        play.control(Control::Retry {
            reason: String::new(),
        });
        assert_eq!(play.status(), SagaStatus::Stuck);
        assert!(
            play.commands.is_empty(),
            "the step's own arguments are no undo"
        );
        play.control(Control::Skip {
            reason: "done by hand".into(),
        });
        assert_eq!(play.undone(), ["A"]);
        assert_eq!(play.error(), "No");
    }
}

#[test]
fn an_undo_whose_arguments_cannot_be_evaluated_after_a_late_success_waits_for_a_person() {
    let mut play = Play::started(&jsonata(CHARGE), json!({"card": 1}));
    let a = play.command("a");
    play.control(Control::Cancel {
        reason: String::new(),
    });
    play.succeed(a, json!({"charge_id": 5}));
    assert_eq!(play.evaluations_failed(), 1);
    assert_eq!(play.status(), SagaStatus::Stuck);
}

#[test]
fn an_undo_whose_result_is_not_known_gets_what_the_step_got() {
    let mut play = Play::started(&jsonata(CHARGE), json!({"card": 1}));
    play.command("a");
    play.wait();
    assert_eq!(play.undo("ua"), json!({"card": 1}));
    assert_eq!(play.status(), SagaStatus::Compensated);
    assert_eq!(play.evaluations_failed(), 0);
}

#[test]
fn the_arguments_of_an_undo_have_a_limit() {
    let document = jsonata(
        "A: { Type: Task, Resource: 'task:a', Next: B, Compensate: { Resource: 'task:ua', \
             Arguments: { twice: ['{% $states.result %}', '{% $states.result %}'] } } }, \
         B: { Type: Task, Resource: 'task:b', End: true }",
    );
    let mut play = Play::started(&document, json!(1));
    let a = play.command("a");
    play.succeed(a, json!("x".repeat(200_000)));
    let b = play.command("b");
    play.fail(b, "No");
    assert_eq!(play.status(), SagaStatus::Stuck);
    let run = play.saga.as_ref().and_then(Saga::run).unwrap();
    let failure = run.failure().unwrap();
    assert_eq!(failure.error, error_name::DATA_LIMIT_EXCEEDED);
    assert!(failure.cause.contains("`payload`"), "{failure}");
}

#[test]
fn an_undo_without_arguments_gets_those_of_the_attempt() {
    let document = jsonata(
        "A: { Type: Task, Resource: 'task:a', Next: B, Arguments: { ref: '{% $uuid() %}' }, \
             Compensate: { Resource: 'task:ua' } }, \
         B: { Type: Task, Resource: 'task:b', End: true }",
    );
    for is_stored in [false, true] {
        let mut play = Play::new(&document);
        play.is_stored = is_stored;
        play.start(json!(1));
        let got = Value::clone(&play.commands[0].input);
        let a = play.command("a");
        play.succeed(a, json!(2));
        let b = play.command("b");
        play.fail(b, "No");
        assert_eq!(play.undo("ua"), got);
    }
    // The outcome is not known.
    let mut play = Play::started(&document, json!(1));
    let got = Value::clone(&play.commands[0].input);
    play.command("a");
    play.control(Control::Cancel {
        reason: String::new(),
    });
    play.wait();
    assert_eq!(play.undo("ua"), got);
}

#[test]
fn an_undo_without_arguments_knows_the_token_of_the_step() {
    let document = jsonata(
        "A: { Type: Task, Resource: 'task:a.waitForTaskToken', Next: B, \
             Arguments: { token: '{% $states.context.Task.Token %}' }, \
             Compensate: { Resource: 'task:ua' } }, \
         B: { Type: Task, Resource: 'task:b', End: true }",
    );
    let mut play = Play::started(&document, json!(1));
    let got = Value::clone(&play.commands[0].input);
    let a = play.command("a");
    play.succeed(a, json!(null));
    play.take(Entry::Reply(Reply {
        command: a,
        result: TaskResult::Succeeded {
            output: Arc::new(json!(2)),
        },
        callback: true,
        worker: String::new(),
        timing: None,
    }));
    let b = play.command("b");
    play.fail(b, "No");
    assert_eq!(play.undo("ua"), got);
}

#[test]
fn in_jsonpath_the_arguments_see_the_input_beside_the_result_that_there_may_be() {
    let document = jsonpath(
        "A: { Type: Task, Resource: 'task:a', TimeoutSeconds: 10, Next: B, \
             Compensate: { Resource: 'task:ua', Parameters: { id.$: $.input.id } } }, \
         B: { Type: Task, Resource: 'task:b', End: true }",
    );
    let mut play = Play::started(&document, json!({"id": 7, "more": 1}));
    play.command("a");
    play.wait();
    assert_eq!(play.undo("ua"), json!({"id": 7}));
    let mut play = Play::started(&document, json!({"id": 7, "more": 1}));
    let a = play.command("a");
    play.succeed(a, json!(2));
    let b = play.command("b");
    play.fail(b, "No");
    assert_eq!(play.undo("ua"), json!({"id": 7}));
}

#[test]
fn arguments_that_are_evaluated_late_see_what_they_would_have_seen() {
    let document = jsonpath(
        "A: { Type: Task, Resource: 'task:a', InputPath: $.order, End: true, \
             Compensate: { Resource: 'task:ua', Parameters: { id.$: $.input.id, did.$: $.result, \
                 saga.$: $$.Execution.Name, all.$: $$.Execution.Input, state.$: $$.State.Name } } }",
    );
    let input = json!({"order": {"id": 7}});
    for is_stored in [false, true] {
        let mut play = Play::new(&document);
        play.is_stored = is_stored;
        play.start(input.clone());
        let a = play.command("a");
        play.control(Control::Cancel {
            reason: String::new(),
        });
        play.succeed(a, json!("late"));
        let wanted = json!({"id": 7, "did": "late", "saga": "key", "all": input, "state": "A"});
        assert_eq!(play.undo("ua"), wanted);
        assert_eq!(play.status(), SagaStatus::Canceled);
    }
}

const REFUND: &str = "A: { Type: Task, Resource: 'task:a', Next: B, \
    Compensate: { Resource: 'saga:refund', TimeoutSeconds: 30 } }, \
    B: { Type: Task, Resource: 'task:b', End: true }";

fn refunding(document: &str) -> Play {
    let mut play = Play::started(document, json!(1));
    let a = play.command("a");
    play.succeed(a, json!(2));
    let b = play.command("b");
    play.fail(b, "No");
    assert_eq!(play.children().len(), 1);
    play
}

#[test]
fn a_saga_that_undoes_and_takes_too_long_ends_before_another_begins() {
    let document = jsonata(REFUND);
    let mut play = refunding(&document);
    play.wait();
    let first = play.children()[0];
    assert_eq!(play.canceled(), [first.to_string()]);
    assert_eq!(play.children(), [first], "none begins beside it");
    assert_eq!(play.child_ends(first, SagaStatus::Canceled), None);
    play.wait();
    let second = play.children()[1];
    assert_ne!(first, second);
    play.child_ends(second, SagaStatus::Succeeded);
    assert_eq!(play.status(), SagaStatus::Compensated);

    // It had got so far that it succeeded.
    let mut play = refunding(&document);
    play.wait();
    let first = play.children()[0];
    assert_eq!(play.child_ends(first, SagaStatus::Succeeded), None);
    assert_eq!(play.children(), [first]);
    assert_eq!(play.status(), SagaStatus::Compensated);
}

#[test]
fn a_saga_that_undoes_has_all_its_time_if_nothing_is_said() {
    let play = refunding(&jsonata(&REFUND.replace(", TimeoutSeconds: 30", "")));
    let deadline = play.saga.as_ref().unwrap().next_deadline();
    assert!(deadline > play.now + Duration::from_secs(86_400));
}

#[test]
fn a_saga_that_undoes_for_a_state_is_ended_when_the_undo_begins_again() {
    let document = jsonata(
        "A: { Type: Task, Resource: 'task:a', Next: Back, Compensate: { Resource: 'saga:refund' } }, \
         Back: { Type: Compensate, End: true }",
    );
    let mut play = Play::started(&document, json!(1));
    let a = play.command("a");
    play.succeed(a, json!(2));
    play.control(Control::Cancel {
        reason: String::new(),
    });
    assert_eq!(play.children().len(), 2);
    assert_eq!(play.canceled(), [play.children()[0].to_string()]);
}

#[test]
fn a_child_in_flight_ends_when_an_earlier_one_has_succeeded() {
    let document = jsonata(
        "A: { Type: Task, Resource: 'saga:other', TimeoutSeconds: 10, End: true, \
             Retry: [ { ErrorEquals: [States.Timeout], MaxAttempts: 1 } ] }",
    );
    let mut play = Play::started(&document, json!(1));
    play.wait();
    play.wait();
    let [first, second] = play.children()[..] else {
        panic!("two attempts")
    };
    play.child_ends(first, SagaStatus::Succeeded);
    assert_eq!(play.canceled(), [first.to_string(), second.to_string()]);
    assert_eq!(play.output(), &json!("done"));
}

const PIVOT: &str = "A: { Type: Task, Resource: 'task:a', Compensate: { Resource: 'task:ua' }, Next: P }, \
    P: { Type: Task, Resource: 'task:p', Pivot: true, Next: C }, \
    C: { Type: Task, Resource: 'task:c', Compensate: { Resource: 'task:uc' }, Next: D }, \
    D: { Type: Task, Resource: 'task:d', End: true }";

/// A saga of this document, whose last step has failed.
fn failed_past_the_pivot(document: &str) -> Play {
    let mut play = Play::started(document, json!(1));
    for task in ["a", "p", "c"] {
        let command = play.command(task);
        play.succeed(command, json!(null));
    }
    let d = play.command("d");
    play.fail(d, "No");
    play
}

#[test]
fn a_saga_that_has_passed_its_pivot_is_never_compensated() {
    let mut play = failed_past_the_pivot(&jsonata(PIVOT));
    // What came behind the pivot is undone; what came before it stands.
    play.undo("uc");
    assert_eq!(play.undone(), ["C"]);
    assert_eq!(play.status(), SagaStatus::Failed);
    assert_eq!(play.error(), "No");
}

#[test]
fn a_state_that_undoes_what_came_behind_the_pivot_ends_the_saga_as_failed() {
    let document = jsonata(&format!(
        "{}, Back: {{ Type: Compensate, End: true }}",
        PIVOT.replace(
            "'task:d', End: true",
            "'task:d', End: true, Catch: [ { ErrorEquals: [States.ALL], Next: Back } ]"
        )
    ));
    let mut play = failed_past_the_pivot(&document);
    play.undo("uc");
    assert_eq!(play.status(), SagaStatus::Failed);
    assert_eq!(play.error(), "Compensate");
}
