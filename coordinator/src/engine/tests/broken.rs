//! Sagas that cannot be folded: nothing of them is lost.

use super::*;
use dirigent_contracts::error_name;
use serde_json::json;

const TWO: &str = "
Extensions: [saga/1]
QueryLanguage: JSONata
StartAt: A
States:
  A: { Type: Task, Resource: 'task:a', TimeoutSeconds: 60, Compensate: { Resource: 'task:undo-a' }, Next: B }
  B: { Type: Task, Resource: 'event:paid.await', TimeoutSeconds: 60, End: true }
";

fn reply(command: CommandId, output: Value) -> Entry {
    Entry::Reply(Reply {
        command,
        result: TaskResult::Succeeded {
            output: Arc::new(output),
        },
        callback: false,
        worker: String::new(),
        timing: None,
    })
}

fn stored(document: &str) -> Play {
    let mut play = Play::new(document);
    play.is_stored = true;
    play
}

#[test]
fn an_entry_whose_fold_breaks_off_makes_an_incident_and_waits_in_it() {
    let mut play = stored(TWO);
    play.start(json!(1));
    let a = play.command("a");
    play.break_off(reply(a, json!("did a")));
    assert_eq!(play.status(), SagaStatus::Stuck);
    let run = play.saga.as_ref().unwrap().run().unwrap();
    let failure = run.failure().unwrap();
    assert_eq!(failure.error, error_name::BROKEN);
    assert!(failure.cause.contains("entry 2"), "{}", failure.cause);
    assert!(failure.cause.contains("a mistake"), "{}", failure.cause);
    assert_eq!(
        play.saga.as_ref().unwrap().next_deadline(),
        Timestamp::NEVER
    );
    // More comes while it waits, and a person who is too early.
    play.event("paid", "e-1", json!(7));
    let due = play.now;
    assert_eq!(
        play.take(Entry::Timer(Timer { due })),
        Some(Ignored::NotApplicable)
    );
    assert_eq!(
        play.break_off(Entry::Control(Control::Retry {
            reason: String::new()
        })),
        Some(Ignored::NotApplicable)
    );
    assert_eq!(play.status(), SagaStatus::Stuck);
    // A build that can fold it has missed nothing.
    play.control(Control::Retry {
        reason: String::new(),
    });
    assert_eq!(play.status(), SagaStatus::Succeeded);
    assert_eq!(play.output(), &json!(7));
}

#[test]
fn what_breaks_off_again_after_it_was_mended_is_an_incident_again() {
    let mut play = stored(TWO);
    play.start(json!(1));
    let a = play.command("a");
    play.break_off(reply(a, json!("did a")));
    play.control(Control::Retry {
        reason: String::new(),
    });
    assert_eq!(play.status(), SagaStatus::Running);
    play.break_off(Entry::Control(Control::Cancel {
        reason: "no more".to_owned(),
    }));
    assert_eq!(play.status(), SagaStatus::Stuck);
    play.control(Control::Retry {
        reason: String::new(),
    });
    let undo = play.command("undo-a");
    play.succeed(undo, json!(null));
    assert_eq!(play.status(), SagaStatus::Canceled);
    let incidents = play.effects.iter();
    let incidents = incidents.filter(|effect| matches!(effect, Effect::Incident { .. }));
    assert_eq!(incidents.count(), 2);
}

#[test]
fn a_start_whose_fold_breaks_off_begins_when_it_is_mended() {
    let mut play = stored(TWO);
    let start = Start {
        digest: "0".repeat(64).parse().unwrap(),
        input: Arc::new(json!(1)),
        trigger: None,
        parent: None,
        part: None,
        limits: SagaLimits::default(),
    };
    play.event("paid", "early", json!(7));
    play.break_off(Entry::Start(start));
    assert_eq!(play.status(), SagaStatus::Stuck);
    assert!(play.commands.is_empty());
    play.control(Control::Retry {
        reason: String::new(),
    });
    let a = play.command("a");
    play.succeed(a, json!(null));
    assert_eq!(play.output(), &json!(7));
}

#[test]
fn what_breaks_off_without_a_saga_changes_nothing() {
    let mut play = stored(TWO);
    assert_eq!(
        play.break_off(Entry::Control(Control::Retry {
            reason: String::new()
        })),
        Some(Ignored::NoSuchSaga)
    );
    assert!(play.saga.is_none());
}

#[test]
fn only_so_much_waits_in_a_broken_saga() {
    let mut play = Play::new(TWO);
    play.start(json!(1));
    let a = play.command("a");
    play.break_off(reply(a, json!(null)));
    let most = dirigent_contracts::limit::MISSED_ENTRIES;
    for n in 1..most {
        assert_eq!(play.event("paid", &format!("e-{n}"), json!(n)), None);
    }
    assert_eq!(
        play.event("paid", "one too many", json!(0)),
        Some(Ignored::NotApplicable)
    );
}
