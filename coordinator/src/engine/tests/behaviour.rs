//! What the engine decides, case by case.

use super::*;
use dirigent_contracts::{error_name, journal::Child, limits::SagaLimits, outcome::Outcome};
use serde_json::json;

const TWO: &str = "
Extensions: [saga/1]
QueryLanguage: JSONata
StartAt: A
States:
  A:
    Type: Task
    Resource: task:a
    TimeoutSeconds: 10
    Retry: [ { ErrorEquals: [Flaky], IntervalSeconds: 2, MaxAttempts: 2 } ]
    Compensate: { Resource: 'task:undo-a', Arguments: { was: '{% $states.result %}' } }
    Next: B
  B: { Type: Task, Resource: 'task:b', Compensate: { Resource: 'task:undo-b' }, Next: C }
  C: { Type: Task, Resource: 'task:c', End: true }
";

#[test]
fn the_output_of_a_step_is_the_input_of_the_next() {
    let mut play = Play::started(TWO, json!(1));
    let a = play.commands[0].clone();
    assert_eq!(
        (a.attempt, &*a.input, a.state.as_str()),
        (1, &json!(1), "A")
    );
    let a = play.command("a");
    play.succeed(a, json!(2));
    assert_eq!(*play.commands[0].input, json!(2));
    let b = play.command("b");
    play.succeed(b, json!(3));
    let c = play.command("c");
    play.succeed(c, json!(4));
    assert_eq!(play.status(), SagaStatus::Succeeded);
    assert_eq!(play.output(), &json!(4));
    assert!(
        play.effects
            .iter()
            .any(|effect| matches!(effect, Effect::Ended { .. }))
    );
}

#[test]
fn a_second_start_and_a_second_reply_change_nothing() {
    let mut play = Play::started(TWO, json!(1));
    let digest = "1".repeat(64).parse().unwrap();
    let start = Start {
        digest,
        input: Arc::new(json!(9)),
        trigger: None,
        parent: None,
        part: None,
        limits: SagaLimits::default(),
    };
    assert_eq!(
        play.take(Entry::Start(start)),
        Some(Ignored::AlreadyStarted)
    );
    let a = play.command("a");
    assert_eq!(play.succeed(a, json!(2)), None);
    assert_eq!(play.succeed(a, json!(5)), Some(Ignored::NotPending));
    assert_eq!(play.fail(a, "Late"), Some(Ignored::NotPending));
    assert_eq!(*play.commands[0].input, json!(2));
    assert_eq!(play.commands.len(), 1);
}

#[test]
fn a_failure_undoes_what_was_done_last_in_first_out() {
    let mut play = Play::started(TWO, json!(1));
    let a = play.command("a");
    play.succeed(a, json!("did a"));
    let b = play.command("b");
    play.succeed(b, json!("did b"));
    let c = play.command("c");
    play.fail(c, "Declined");
    assert_eq!(play.status(), SagaStatus::Compensating);
    assert_eq!(play.commands.len(), 1, "one at a time");
    let undo = play.command("undo-b");
    play.succeed(undo, json!(null));
    assert_eq!(*play.commands[0].input, json!({"was": "did a"}));
    assert_eq!(play.commands[0].undoes, Some(a.effect));
    let undo = play.command("undo-a");
    play.succeed(undo, json!(null));
    assert_eq!(play.status(), SagaStatus::Compensated);
    assert_eq!(play.error(), "Declined");
    assert_eq!(play.undone(), ["B", "A"]);
}

#[test]
fn retries_keep_the_effect_and_wait() {
    let mut play = Play::started(TWO, json!(1));
    let first = play.command("a");
    play.fail(first, "Flaky");
    assert!(play.commands.is_empty());
    let failed_at = play.now;
    play.wait();
    assert!(play.now >= failed_at + Duration::from_secs(2));
    let second = play.command("a");
    assert_eq!(second.effect, first.effect);
    assert_eq!(second.attempt, 2);
    // Its third failure is one too many.
    play.fail(second, "Flaky");
    play.wait();
    let third = play.command("a");
    play.fail(third, "Flaky");
    assert_eq!(play.status(), SagaStatus::Failed);
}

#[test]
fn a_late_success_of_an_earlier_attempt_completes_the_step() {
    let mut play = Play::started(TWO, json!(1));
    let first = play.command("a");
    play.fail(first, "Flaky");
    assert_eq!(play.succeed(first, json!("after all")), None);
    assert_eq!(*play.commands[0].input, json!("after all"));
}

#[test]
fn a_timeout_makes_the_step_unknown_and_it_is_undone() {
    let mut play = Play::started(TWO, json!(1));
    let a = play.command("a");
    play.wait();
    assert_eq!(play.status(), SagaStatus::Compensating);
    let undo = play.command("undo-a");
    play.succeed(undo, json!(null));
    assert_eq!(play.status(), SagaStatus::Compensated);
    assert_eq!(play.error(), error_name::TIMEOUT);
    // It had happened: recorded, once.
    assert_eq!(play.succeed(a, json!(1)), None);
    assert_eq!(play.succeed(a, json!(1)), Some(Ignored::NotPending));
    let late = play.count(|what| {
        matches!(
            what,
            Happening::LateReply {
                succeeded: true,
                ..
            }
        )
    });
    assert_eq!(late, 1);
}

#[test]
fn a_step_for_which_there_was_no_room_may_have_been_asked_for_by_another_owner() {
    let mut play = Play::started(TWO, json!(1));
    let a = play.command("a");
    play.fail(a, error_name::QUEUE_FULL);
    assert_eq!(play.status(), SagaStatus::Compensating);
    let undo = play.command("undo-a");
    play.succeed(undo, json!(null));
    assert_eq!(play.error(), error_name::QUEUE_FULL);
    assert_eq!(play.status(), SagaStatus::Compensated);
}

#[test]
fn a_child_that_has_failed_leaves_no_doubt_whatever_made_it_fail() {
    let document = "
Extensions: [saga/1]
QueryLanguage: JSONata
StartAt: A
States:
  A: { Type: Task, Resource: 'task:a', Compensate: { Resource: 'task:undo-a' }, Next: Child }
  Child: { Type: Task, Resource: 'saga:other', End: true }
";
    for error in [error_name::WORKER_PANIC, error_name::QUEUE_FULL] {
        let mut play = Play::started(document, json!(1));
        let a = play.command("a");
        play.succeed(a, json!(2));
        let command = play.effects.iter().find_map(|effect| match effect {
            Effect::StartChild { parent, .. } => Some(parent.command),
            _ => None,
        });
        play.take(Entry::Child(Child {
            command: command.unwrap(),
            outcome: Outcome {
                status: SagaStatus::Failed,
                output: None,
                failure: Some(Failure::new(error, "")),
            },
            holds: false,
            past_pivot: false,
        }));
        let undo = play.command("undo-a");
        play.succeed(undo, json!(null));
        assert_eq!(play.status(), SagaStatus::Compensated);
        assert_eq!(play.error(), error);
    }
}

#[test]
fn a_reply_before_its_timer_wins_and_the_timer_is_ignored() {
    let mut play = Play::started(TWO, json!(1));
    let due = play.saga.as_ref().unwrap().next_deadline();
    let a = play.command("a");
    play.succeed(a, json!(2));
    assert_eq!(
        play.take(Entry::Timer(Timer { due })),
        Some(Ignored::NothingDue)
    );
    assert_eq!(play.status(), SagaStatus::Running);
}

#[test]
fn cancelling_undoes_and_ends_as_canceled() {
    let mut play = Play::started(TWO, json!(1));
    let a = play.command("a");
    play.succeed(a, json!(2));
    let b = play.command("b");
    play.control(Control::Cancel {
        reason: "asked".into(),
    });
    // B is in flight: it is waited for, because it may have happened.
    assert!(play.commands.is_empty());
    play.succeed(b, json!(3));
    let undo = play.command("undo-b");
    play.succeed(undo, json!(null));
    let undo = play.command("undo-a");
    play.succeed(undo, json!(null));
    assert_eq!(play.status(), SagaStatus::Canceled);
    assert_eq!(
        play.control(Control::Cancel {
            reason: String::new()
        }),
        Some(Ignored::NoSuchSaga)
    );
}

#[test]
fn an_attempt_in_flight_that_never_answers_is_undone_after_a_while() {
    let mut play = Play::started(TWO, json!(1));
    let _in_flight = play.command("a");
    play.control(Control::Cancel {
        reason: String::new(),
    });
    play.wait();
    let undo = play.command("undo-a");
    play.succeed(undo, json!(null));
    assert_eq!(play.status(), SagaStatus::Canceled);
}

#[test]
fn an_exhausted_compensation_is_stuck_until_a_person_helps() {
    let document = TWO.replace(
        "{ Resource: 'task:undo-b' }",
        "{ Resource: 'task:undo-b', Retry: [ { ErrorEquals: [States.ALL], MaxAttempts: 0 } ] }",
    );
    let to_the_wall = || {
        let mut play = Play::started(&document, json!(1));
        for task in ["a", "b"] {
            let command = play.command(task);
            play.succeed(command, json!(null));
        }
        let c = play.command("c");
        play.fail(c, "Declined");
        let undo = play.command("undo-b");
        play.fail(undo, "Down");
        assert_eq!(play.status(), SagaStatus::Stuck);
        assert!(matches!(play.effects.last(), Some(Effect::Incident { .. })));
        play
    };
    let mut play = to_the_wall();
    play.control(Control::Retry {
        reason: String::new(),
    });
    let undo = play.command("undo-b");
    play.succeed(undo, json!(null));
    let undo = play.command("undo-a");
    play.succeed(undo, json!(null));
    assert_eq!(play.status(), SagaStatus::Compensated);

    let mut play = to_the_wall();
    play.control(Control::Skip {
        reason: "done by hand".into(),
    });
    let undo = play.command("undo-a");
    play.succeed(undo, json!(null));
    assert_eq!(play.status(), SagaStatus::Compensated);
}

#[test]
fn events_are_kept_for_who_comes_late() {
    let document = "
Extensions: [saga/1]
QueryLanguage: JSONata
StartAt: E
States:
  E: { Type: Task, Resource: 'event:paid.await', TimeoutSeconds: 60, End: true }
";
    let mut play = Play::new(document);
    play.event("paid", "e-1", json!({"sum": 5}));
    assert_eq!(
        play.event("paid", "e-1", json!({"sum": 6})),
        Some(Ignored::KnownEvent)
    );
    play.start(json!(null));
    assert_eq!(play.output(), &json!({"sum": 5}));

    let mut play = Play::started(document, json!(null));
    play.event("other", "e-0", json!(0));
    assert_eq!(play.status(), SagaStatus::Running);
    play.event("paid", "e-1", json!(7));
    assert_eq!(play.output(), &json!(7));

    let mut play = Play::started(document, json!(null));
    play.wait();
    assert_eq!(play.error(), error_name::TIMEOUT);
}

#[test]
fn a_catch_goes_on_and_a_compensate_state_undoes_so_far() {
    let document = "
Extensions: [saga/1]
QueryLanguage: JSONata
StartAt: A
States:
  A: { Type: Task, Resource: 'task:a', Compensate: { Resource: 'task:undo-a' }, Next: B }
  B: { Type: Task, Resource: 'task:b', Catch: [ { ErrorEquals: [No], Next: Undo } ], End: true }
  Undo: { Type: Compensate, Next: Other }
  Other: { Type: Task, Resource: 'task:other', End: true }
";
    let mut play = Play::started(document, json!(1));
    let a = play.command("a");
    play.succeed(a, json!(2));
    let b = play.command("b");
    play.fail(b, "No");
    let undo = play.command("undo-a");
    play.succeed(undo, json!(null));
    let other = play.command("other");
    play.succeed(other, json!("instead"));
    assert_eq!(play.status(), SagaStatus::Succeeded);
    assert_eq!(play.output(), &json!("instead"));
}

#[test]
fn a_map_that_tolerates_failures_says_when_they_are_too_many() {
    let document = |tolerance: &str| {
        format!(
            "{{ StartAt: M, States: {{ M: {{ Type: Map, {tolerance} End: true, ItemProcessor: {{ \
             StartAt: C, States: {{ C: {{ Type: Choice, Default: Fine, Choices: [ {{ Variable: $, \
             NumericEquals: 2, Next: Bad }} ] }}, Fine: {{ Type: Succeed }}, \
             Bad: {{ Type: Fail, Error: Own }} }} }} }} }} }}"
        )
    };
    let too_many = error_name::EXCEED_TOLERATED_FAILURE_THRESHOLD;
    for (tolerance, error) in [
        ("", "Own"),
        ("ToleratedFailurePercentage: 33,", too_many),
        ("ToleratedFailureCount: 0,", too_many),
    ] {
        let play = Play::started(&document(tolerance), json!([1, 2, 3]));
        assert_eq!(play.error(), error, "{tolerance}");
    }
    let play = Play::started(
        &document("ToleratedFailurePercentage: 34,"),
        json!([1, 2, 3]),
    );
    assert_eq!(play.output(), &json!([1, 3]));
}

#[test]
fn a_definition_that_is_missing_makes_an_incident_that_a_retry_mends() {
    let mut play = Play::new(TWO);
    let digest = "0".repeat(64).parse().unwrap();
    let start = Start {
        digest,
        input: Arc::new(json!(1)),
        trigger: None,
        parent: None,
        part: None,
        limits: SagaLimits::default(),
    };
    let record = Record {
        partition: PartitionId(0),
        seq: JournalSeq(1),
        at: play.now,
        address: SagaAddress {
            definition: "test".parse().unwrap(),
            key: "key".parse().unwrap(),
        },
        trace: None,
        entry: Entry::Start(start),
    };
    let effects = fold(&mut play.saga, None, &record);
    play.records.push(record);
    assert!(matches!(effects.effects[..], [Effect::Incident { .. }]));
    assert_eq!(play.status(), SagaStatus::Stuck);
    play.control(Control::Retry {
        reason: String::new(),
    });
    assert_eq!(play.status(), SagaStatus::Running);
    let _ = play.command("a");
}
