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

/// An inline Map in which every item passes several states.
const MANY: &str = "{ StartAt: M, States: { M: { Type: Map, ItemsPath: $.items, Next: Again, \
    ItemProcessor: { StartAt: P, States: { P: { Type: Pass, Next: Q }, Q: { Type: Pass, Next: R }, \
    R: { Type: Pass, End: true } } }, ResultPath: $.results }, \
    Again: { Type: Choice, Choices: [ { Variable: $.again, BooleanEquals: true, Next: M } ], \
    Default: Done }, Done: { Type: Succeed } } }";

#[test]
fn many_items_that_pass_several_states_are_no_loop() {
    let input = json!({"items": vec![1; 10_000], "again": false});
    let play = Play::started(MANY, input);
    assert_eq!(play.status(), SagaStatus::Succeeded);
}

#[test]
fn a_loop_ends_at_a_limit_also_around_and_within_a_map() {
    let looped = "{ StartAt: P, States: { P: { Type: Pass, Next: P } } }";
    let play = Play::started(looped, json!(1));
    assert_eq!(play.error(), error_name::RUNTIME);
    assert!(
        cause(&play).starts_with("25010 state transitions"),
        "{}",
        cause(&play)
    );
    let limits = SagaLimits {
        inline_map_items: 100,
        ..SagaLimits::default()
    };
    let input = json!({"items": vec![1; 100], "again": true});
    let around = Play::limited(MANY, input, limits);
    let within = format!(
        "{{ StartAt: M, States: {{ M: {{ Type: Map, End: true, ItemProcessor: {looped} }} }} }}"
    );
    let within = Play::limited(&within, json!([1, 2, 3]), limits);
    for (play, most) in [(around, 26_000), (within, 25_040)] {
        assert_eq!(play.error(), error_name::RUNTIME);
        let wanted = format!("{most} state transitions");
        assert!(cause(&play).starts_with(&wanted), "{}", cause(&play));
    }
}

#[test]
fn what_a_map_takes_from_the_context_costs_no_copy_of_the_input_for_each_item() {
    let document = "{ StartAt: M, States: { M: { Type: Map, End: true, \
        ItemSelector: { v.$: $$.Map.Item.Value }, \
        ItemProcessor: { StartAt: P, States: { P: { Type: Pass, End: true } } } } } }";
    let bytes = |items: usize| {
        let input = json!(vec!["some text"; items]);
        allocation_counter::measure(|| {
            let play = Play::started(document, input);
            assert_eq!(play.status(), SagaStatus::Succeeded);
        })
        .count_total
    };
    let (few, many) = (bytes(200), bytes(800));
    assert!(many < few * 6, "{few} allocations became {many}");
}

#[test]
fn variables_have_a_limit_each_and_together() {
    let document = "{ QueryLanguage: JSONata, StartAt: P, States: { \
        P: { Type: Pass, Assign: { big: '{% $pad(\"\", $states.input.length, \"x\") %}' }, End: true } } }";
    let play = Play::started(document, json!({"length": 200_000}));
    assert_eq!(play.status(), SagaStatus::Succeeded);
    let play = Play::started(document, json!({"length": 300_000}));
    assert_eq!(play.error(), error_name::DATA_LIMIT_EXCEEDED);
    assert!(
        cause(&play).contains("the variable 'big' would have 300002 bytes"),
        "{}",
        cause(&play)
    );
    // Each iteration has its own, and their end frees them; what is assigned anew replaces what was.
    let document = "{ QueryLanguage: JSONata, StartAt: M, States: { M: { Type: Map, Next: Again, \
        Items: '{% [1..$states.input.items] %}', ItemProcessor: { StartAt: P, States: { \
        P: { Type: Pass, Assign: { big: '{% $pad(\"\", 250000, \"x\") %}' }, Output: 1, Next: Q }, \
        Q: { Type: Pass, Assign: { big: '{% $pad(\"\", 250000, \"y\") %}' }, Output: 1, Next: W }, \
        W: { Type: Wait, Seconds: 1, End: true } } }, \
        Output: '{% $states.input %}' }, \
        Again: { Type: Choice, Choices: [ { Condition: '{% $exists($again) %}', Next: Done } ], \
        Assign: { again: true }, Default: M }, Done: { Type: Succeed } } }";
    for (items, is_within) in [(41, true), (42, false)] {
        let mut play = Play::new(document);
        play.is_stored = true;
        play.start(json!({"items": items}));
        while is_within && play.status() == SagaStatus::Running {
            play.wait();
        }
        if is_within {
            assert_eq!(play.status(), SagaStatus::Succeeded, "{}", cause(&play));
        } else {
            assert_eq!(play.error(), error_name::DATA_LIMIT_EXCEEDED);
            assert!(cause(&play).contains("together"), "{}", cause(&play));
        }
    }
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
