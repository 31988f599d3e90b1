//! What holds for any saga, any order of its entries, and any duplication of them.

use super::*;
use dirigent_contracts::trace;
use proptest::prelude::*;
use serde_json::{Map, json};
use std::collections::{BTreeMap, BTreeSet};

/// What a model worker does with a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// Does it.
    Good,
    /// Does it at the second attempt.
    Flaky,
    /// Does it, and the answer is lost: the step times out.
    Mute,
    /// Refuses it.
    Refusing,
}

/// A part of a saga.
#[derive(Clone, Debug)]
enum Part {
    Task { has_undo: bool, manner: Manner },
    Parallel(Vec<Vec<Part>>),
}

fn parts() -> impl Strategy<Value = Vec<Part>> {
    let manner = prop_oneof![
        6 => Just(Manner::Good),
        2 => Just(Manner::Flaky),
        1 => Just(Manner::Mute),
        1 => Just(Manner::Refusing),
    ];
    let task = (any::<bool>(), manner)
        .prop_map(|(has_undo, manner)| Part::Task { has_undo, manner })
        .boxed();
    let sequence = |part: BoxedStrategy<Part>| prop::collection::vec(part, 1..4);
    let inner = prop_oneof![
        3 => task.clone(),
        1 => prop::collection::vec(sequence(task.clone()), 1..3).prop_map(Part::Parallel),
    ]
    .boxed();
    let outer = prop_oneof![
        3 => task,
        1 => prop::collection::vec(sequence(inner), 1..4).prop_map(Part::Parallel),
    ];
    prop::collection::vec(outer, 1..5)
}

/// A saga made of parts, and the manners of its tasks.
#[derive(Default)]
struct Composition {
    manners: BTreeMap<String, Manner>,
    undoable: BTreeSet<String>,
    count: usize,
}

impl Composition {
    fn machine(&mut self, parts: &[Part]) -> Value {
        let first = self.count;
        let names: Vec<String> = (0..parts.len()).map(|n| format!("s{first}-{n}")).collect();
        self.count += 1;
        let mut states = Map::new();
        for (n, part) in parts.iter().enumerate() {
            let mut state = match part {
                Part::Task { has_undo, manner } => {
                    let task = names[n].clone();
                    self.manners.insert(task.clone(), *manner);
                    let mut state = json!({
                        "Type": "Task",
                        "Resource": format!("task:{task}"),
                        "TimeoutSeconds": 60,
                        "Retry": [{"ErrorEquals": ["Flaky"], "IntervalSeconds": 1, "MaxAttempts": 3}],
                    });
                    if *has_undo {
                        state["Compensate"] = json!({"Resource": format!("task:undo-{task}")});
                        self.undoable.insert(task);
                    }
                    state
                }
                Part::Parallel(branches) => {
                    let branches: Vec<Value> =
                        branches.iter().map(|branch| self.machine(branch)).collect();
                    json!({"Type": "Parallel", "Branches": branches})
                }
            };
            match names.get(n + 1) {
                Some(next) => state["Next"] = json!(next),
                None => state["End"] = json!(true),
            }
            states.insert(names[n].clone(), state);
        }
        json!({"StartAt": names[0], "States": states})
    }

    fn document(&mut self, parts: &[Part]) -> String {
        let mut machine = self.machine(parts);
        machine["QueryLanguage"] = json!("JSONata");
        machine["Extensions"] = json!(["saga/1"]);
        machine.to_string()
    }
}

/// What the world remembers of an effect.
#[derive(Debug, Default)]
struct Deed {
    task: String,
    done: usize,
    undone: usize,
}

/// Plays a saga to its end. `choices` decide who goes next, and what comes twice.
fn perform(parts: &[Part], choices: &[u8], is_stored: bool) -> (Play, BTreeMap<String, Deed>) {
    let mut composition = Composition::default();
    let mut play = Play::new(&composition.document(parts));
    play.is_stored = is_stored;
    let mut deeds: BTreeMap<String, Deed> = BTreeMap::new();
    let mut choices = choices.iter().copied().chain(std::iter::repeat(0));
    let mut answers: Vec<Reply> = Vec::new();
    play.start(json!({}));
    for _ in 0..2_000 {
        let run = play.saga.as_ref().and_then(Saga::run).unwrap();
        if run.outcome().is_some() && play.commands.is_empty() {
            return (play, deeds);
        }
        let choice = choices.next().unwrap();
        // An old answer comes again.
        if choice % 5 == 4 && !answers.is_empty() {
            let again = answers[usize::from(choice) % answers.len()].clone();
            let before = play.effects.len();
            play.take(Entry::Reply(again));
            assert_eq!(play.effects.len(), before, "a duplicate asks for nothing");
            continue;
        }
        // A timer comes early, or again.
        if choice % 7 == 6 {
            let due = play.now;
            play.take(Entry::Timer(Timer { due }));
            continue;
        }
        if play.commands.is_empty() {
            play.wait();
            continue;
        }
        let index = usize::from(choice) % play.commands.len();
        let command = play.commands.remove(index).unwrap();
        if let Some(answer) = work(&composition, &mut deeds, &command) {
            let reply = Reply {
                command: command.command,
                result: answer,
                callback: false,
                worker: String::new(),
                timing: None,
            };
            answers.push(reply.clone());
            play.take(Entry::Reply(reply));
        }
    }
    panic!("the saga does not end: {:#?}", play.history);
}

/// A worker that keeps the rules: an effect once, an undo always, and nothing done after its undo.
fn work(
    composition: &Composition,
    deeds: &mut BTreeMap<String, Deed>,
    command: &Command,
) -> Option<TaskResult> {
    let success = TaskResult::Succeeded {
        output: Arc::new(json!({})),
    };
    if let Some(effect) = command.undoes {
        deeds.entry(effect.to_string()).or_default().undone += 1;
        return Some(success);
    }
    let failed = |error: &str| TaskResult::Failed {
        failure: Failure::new(error, ""),
        retryable: true,
    };
    let task = command.task.as_str();
    let manner = composition.manners[task];
    match manner {
        Manner::Refusing => return Some(failed("Refused")),
        Manner::Flaky if command.attempt == 1 => return Some(failed("Flaky")),
        _ => {}
    }
    let deed = deeds.entry(command.effect.to_string()).or_default();
    task.clone_into(&mut deed.task);
    if deed.undone == 0 {
        deed.done = 1;
    }
    (manner != Manner::Mute).then_some(success)
}

/// What must be true of a saga that has ended, whatever the order was.
fn judge(play: &Play, deeds: &BTreeMap<String, Deed>, composition: &Composition) {
    let succeeds = composition
        .manners
        .values()
        .all(|manner| matches!(manner, Manner::Good | Manner::Flaky));
    assert_eq!(play.status() == SagaStatus::Succeeded, succeeds);
    for (effect, deed) in deeds {
        assert!(
            deed.undone <= 1,
            "{effect} was undone {} times",
            deed.undone
        );
        let undoable = composition.undoable.contains(&deed.task);
        if succeeds {
            assert_eq!(deed.undone, 0);
        } else if deed.done == 1 {
            assert_eq!(
                deed.undone,
                usize::from(undoable),
                "{} must be undone",
                deed.task
            );
        }
    }
    let undone = play.undone();
    let status = if succeeds {
        SagaStatus::Succeeded
    } else if undone.is_empty() {
        SagaStatus::Failed
    } else {
        SagaStatus::Compensated
    };
    assert_eq!(play.status(), status);
    // Within one sequence, what was done later is undone earlier.
    let mut done: BTreeMap<&str, usize> = BTreeMap::new();
    for (n, event) in play.history.iter().enumerate() {
        if let Happening::TaskScheduled {
            state, direction, ..
        } = &event.what
            && *direction == dirigent_contracts::task::Direction::Do
        {
            done.entry(state).or_insert(n);
        }
    }
    let sequence = |state: &str| state.split('-').next().map(str::to_owned);
    for (n, earlier) in undone.iter().enumerate() {
        for later in &undone[n + 1..] {
            if sequence(earlier) == sequence(later) {
                assert!(done[earlier] > done[later], "{undone:?} in a wrong order");
            }
        }
    }
}

/// Every span that began has ended once, where and when it began, within the one around it.
fn judge_spans(play: &Play) {
    let run = play.saga.as_ref().and_then(Saga::run).unwrap();
    let run = trace::Run {
        id: run.id(),
        caller: run.trace(),
        started_at: run.started_at(),
    };
    let mut ended = BTreeMap::new();
    for span in play.history.iter().filter_map(|event| run.ended(event)) {
        assert!(span.start <= span.end.unwrap(), "{span:?}");
        let known = ended.insert(span.id, span);
        assert_eq!(known, None, "told twice");
    }
    for span in play.history.iter().flat_map(|event| run.begun(event)) {
        let of = ended.get(&span.id);
        // A pause that is cut short has no span: its state's says that it was broken off.
        if of.is_none() && matches!(span.what, trace::What::Pause { .. }) {
            continue;
        }
        let of = of.unwrap_or_else(|| panic!("{span:?} never ended in {:#?}", play.history));
        assert_eq!((of.start, of.parent), (span.start, span.parent), "{of:?}");
    }
    for span in ended.values() {
        match span.parent {
            None => assert_eq!(span.id, trace::identity::of_saga(run.id)),
            Some(parent) => {
                let around = &ended[&parent];
                assert!(
                    around.start <= span.start && span.end <= around.end,
                    "{span:?} is not within {around:?}"
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn any_order_and_any_duplication_ends_well(
        parts in parts(),
        choices in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut composition = Composition::default();
        composition.document(&parts);
        let (play, deeds) = perform(&parts, &choices, false);
        judge(&play, &deeds, &composition);
    }

    #[test]
    fn any_order_ends_in_the_same_state(
        parts in parts(),
        one in prop::collection::vec(any::<u8>(), 0..200),
        other in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let (one, _) = perform(&parts, &one, false);
        let (other, _) = perform(&parts, &other, false);
        prop_assert_eq!(&one.outcome().output, &other.outcome().output);
        prop_assert_eq!(one.status() == SagaStatus::Succeeded, other.status() == SagaStatus::Succeeded);
    }

    #[test]
    fn a_stored_state_folds_on_as_if_it_had_never_been_stored(
        parts in parts(),
        choices in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let (plain, _) = perform(&parts, &choices, false);
        let (stored, _) = perform(&parts, &choices, true);
        prop_assert_eq!(&plain.saga, &stored.saga);
        prop_assert_eq!(&plain.effects, &stored.effects);
    }

    #[test]
    fn every_span_ends_once_within_the_one_around_it(
        parts in parts(),
        choices in prop::collection::vec(any::<u8>(), 0..200),
        is_stored in any::<bool>(),
    ) {
        let (play, _) = perform(&parts, &choices, is_stored);
        judge_spans(&play);
    }

    #[test]
    fn a_replay_asks_for_the_same(
        parts in parts(),
        choices in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let (play, _) = perform(&parts, &choices, false);
        let mut saga = None;
        let mut effects = Vec::new();
        let mut history = Vec::new();
        for record in &play.records {
            let again = fold(&mut saga, Some(&play.program), record);
            effects.extend(again.effects);
            history.extend(again.history);
            // A record that is delivered again is passed over.
            let twice = fold(&mut saga, Some(&play.program), record);
            prop_assert_eq!(twice.ignored, Some(Ignored::Repeated));
            prop_assert!(twice.effects.is_empty());
        }
        prop_assert_eq!(&effects, &play.effects);
        prop_assert_eq!(&history, &play.history);
        prop_assert_eq!(&saga, &play.saga);
    }
}
