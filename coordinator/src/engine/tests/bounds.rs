//! The limits that a saga keeps from its start to its end.

use super::*;
use dirigent_contracts::error_name;
use serde_json::json;

const ON_AND_ON: &str = "
Extensions: [saga/1]
QueryLanguage: JSONata
StartAt: A
States:
  A: { Type: Task, Resource: 'task:a', Compensate: { Resource: 'task:undo-a' }, Next: B }
  B:
    Type: Task
    Resource: task:b
    HeartbeatSeconds: 60
    Retry: [ { ErrorEquals: [States.ALL], IntervalSeconds: 1, MaxAttempts: 99999999 } ]
    Next: B
";

fn cause(play: &Play) -> &str {
    let failure = play.outcome().failure.as_ref();
    failure.map_or("", |failure| &failure.cause)
}

/// Answers what undoes the first step, which is all that there is to undo.
fn undo(play: &mut Play) {
    let command = play.commands.pop_back().expect("a command");
    assert_eq!(command.task.as_str(), "undo-a");
    play.succeed(command.command, json!(null));
}

#[test]
fn a_saga_that_is_too_old_is_undone() {
    let limits = SagaLimits {
        saga_age: 3_600,
        ..SagaLimits::default()
    };
    let mut play = Play::limited(ON_AND_ON, json!(1), limits);
    let started_at = play.now;
    let a = play.command("a");
    play.succeed(a, json!(2));
    // What it waits for has the heartbeat's deadline; it is alive until the saga is too old.
    let b = play.command("b");
    for _ in 0..70 {
        play.now = play.now + Duration::from_secs(55);
        if play.now < started_at + Duration::from_hours(1) {
            play.reply(b, TaskResult::Heartbeat);
        }
    }
    play.wait();
    // It may have happened: it is waited for a while.
    play.wait();
    undo(&mut play);
    assert_eq!(play.status(), SagaStatus::Compensated);
    assert_eq!(play.error(), error_name::SAGA_TOO_OLD);
    assert!(cause(&play).contains("3600 seconds, which is the limit `saga-age`"));
}

#[test]
fn a_saga_has_the_shorter_of_its_own_time_and_the_limit() {
    let document = |timeout: u32| {
        format!(
            "{{ TimeoutSeconds: {timeout}, StartAt: W, \
               States: {{ W: {{ Type: Wait, Seconds: 99999, End: true }} }} }}"
        )
    };
    let limits = SagaLimits {
        saga_age: 60,
        ..SagaLimits::default()
    };
    for (timeout, error) in [
        (59, error_name::TIMEOUT),
        (60, error_name::TIMEOUT),
        (61, error_name::SAGA_TOO_OLD),
    ] {
        let mut play = Play::limited(&document(timeout), json!(1), limits);
        play.wait();
        assert_eq!(play.error(), error);
    }
}

#[test]
fn a_saga_with_too_long_a_history_is_undone_with_what_it_did_last() {
    let limits = SagaLimits {
        history: 10,
        ..SagaLimits::default()
    };
    let mut play = Play::limited(ON_AND_ON, json!(1), limits);
    let a = play.command("a");
    play.succeed(a, json!(2));
    for _ in 2..10 {
        let b = play.command("b");
        for _ in 0..5 {
            play.reply(b, TaskResult::Heartbeat);
        }
        play.succeed(b, json!(3));
        assert_eq!(play.status(), SagaStatus::Running);
    }
    let b = play.command("b");
    play.succeed(b, json!(3));
    undo(&mut play);
    assert_eq!(play.status(), SagaStatus::Compensated);
    assert_eq!(play.error(), error_name::HISTORY_TOO_LONG);
    assert!(cause(&play).contains("more than 10 entries"));
}

#[test]
fn a_step_has_no_more_attempts_than_the_limit_whatever_its_retry_says() {
    let limits = SagaLimits {
        attempts: 3,
        ..SagaLimits::default()
    };
    let mut play = Play::limited(ON_AND_ON, json!(1), limits);
    let a = play.command("a");
    play.succeed(a, json!(2));
    for attempt in 1..=3 {
        let b = play.command("b");
        assert_eq!(b.attempt, attempt);
        play.fail(b, "Flaky");
        if attempt < 3 {
            play.wait();
        }
    }
    undo(&mut play);
    assert_eq!(
        play.error(),
        "Flaky",
        "Catch matches on the step's own error"
    );
    assert_eq!(
        cause(&play),
        "given up after 3 attempts, which is the limit `attempts`"
    );
}

#[test]
fn an_undo_has_no_more_attempts_than_the_limit() {
    let limits = SagaLimits {
        attempts: 2,
        ..SagaLimits::default()
    };
    let mut play = Play::limited(ON_AND_ON, json!(1), limits);
    let a = play.command("a");
    play.succeed(a, json!(2));
    let b = play.command("b");
    play.reply(
        b,
        TaskResult::Failed {
            failure: Failure::new("No", ""),
            retryable: false,
        },
    );
    let undo = play.command("undo-a");
    play.fail(undo, "Down");
    play.wait();
    let undo = play.command("undo-a");
    play.fail(undo, "Down");
    assert_eq!(play.status(), SagaStatus::Stuck);
    // A person may let it try again, as often as before.
    play.control(Control::Retry {
        reason: String::new(),
    });
    let undo = play.command("undo-a");
    play.succeed(undo, json!(null));
    assert_eq!(play.status(), SagaStatus::Compensated);
}

#[test]
fn the_limit_of_a_payload_is_that_of_the_saga() {
    let document = "{ StartAt: P, States: { P: { Type: Pass, End: true } } }";
    let input = json!("x".repeat(300_000));
    let play = Play::started(document, input.clone());
    assert_eq!(play.error(), error_name::DATA_LIMIT_EXCEEDED);
    assert!(cause(&play).contains("the maximum of 262144 bytes"));
    let limits = SagaLimits {
        payload: 400_000,
        ..SagaLimits::default()
    };
    let play = Play::limited(document, input, limits);
    assert_eq!(play.status(), SagaStatus::Succeeded);
}

#[test]
fn a_worker_is_told_of_a_limit_that_is_not_the_default() {
    let limits = SagaLimits {
        payload: 400_000,
        ..SagaLimits::default()
    };
    let play = Play::limited(ON_AND_ON, json!(1), limits);
    assert_eq!(play.commands[0].most_output, Some(400_000));
    let play = Play::started(ON_AND_ON, json!(1));
    assert_eq!(play.commands[0].most_output, None);
}

#[test]
fn an_inline_map_has_no_more_items_than_the_limit() {
    let document = "{ StartAt: M, States: { M: { Type: Map, End: true, ItemProcessor: { \
        StartAt: P, States: { P: { Type: Pass, End: true } } } } } }";
    let limits = SagaLimits {
        inline_map_items: 3,
        ..SagaLimits::default()
    };
    let play = Play::limited(document, json!([1, 2, 3]), limits);
    assert_eq!(play.output(), &json!([1, 2, 3]));
    let play = Play::limited(document, json!([1, 2, 3, 4]), limits);
    assert_eq!(play.error(), error_name::TOO_MANY_ITEMS);
    assert!(cause(&play).contains("at most 3 items (the limit `inline-map-items`), not 4"));
}

#[test]
fn an_expression_has_no_more_time_than_the_limit() {
    let document = "{ QueryLanguage: JSONata, StartAt: P, States: { P: { Type: Pass, End: true, \
        Output: '{% $count([1..150000].($string($) & \"x\")) %}' } } }";
    let limits = SagaLimits {
        expression_time: 0,
        ..SagaLimits::default()
    };
    let play = Play::limited(document, json!(1), limits);
    assert_eq!(play.error(), error_name::QUERY_EVALUATION_ERROR);
    assert!(cause(&play).contains("D1012"), "{}", cause(&play));
}

#[test]
fn an_error_is_cut_to_what_an_error_may_be() {
    let mut play = Play::started(ON_AND_ON, json!(1));
    let a = play.command("a");
    let failure = Failure::new("é".repeat(1_000), "x".repeat(100_000));
    let retryable = false;
    play.reply(a, TaskResult::Failed { failure, retryable });
    assert_eq!((play.error().len(), cause(&play).len()), (256, 32_768));
}

#[test]
fn the_limits_of_a_saga_survive_its_snapshot() {
    let limits = SagaLimits {
        history: 12,
        ..SagaLimits::default()
    };
    let mut plays = [false, true].map(|is_stored| {
        let mut play = Play::new(ON_AND_ON);
        play.limits = limits;
        play.is_stored = is_stored;
        play.start(json!(1));
        play
    });
    for play in &mut plays {
        let a = play.command("a");
        play.succeed(a, json!(2));
        while play.status() == SagaStatus::Running {
            let b = play.command("b");
            play.succeed(b, json!(3));
        }
    }
    let [whole, stored] = plays;
    assert_eq!(whole.effects, stored.effects);
    assert_eq!(whole.records.len(), 13);
}
