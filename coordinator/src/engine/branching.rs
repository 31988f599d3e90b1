//! Parallel and Map: scopes beside each other, and how their ends become the state's.

use super::{
    evaluation::{Subject, failure},
    program::{Items, Kind, Map, State},
    saga::{Activity, Branches, Item, Iterations, Scope, Slot},
    turn::{Turn, Turns, Work},
    undo::{Undo, branches},
};
use dirigent_contracts::{
    definition::model::QueryLanguage, error_name, history::Happening, outcome::Failure,
    time::Timestamp,
};
use serde_json::{Value, json};
use std::{borrow::Cow, collections::BTreeSet, sync::Arc};

const TOLERATED_COUNT: &str = "ToleratedFailureCount";
const TOLERATED_PERCENTAGE: &str = "ToleratedFailurePercentage";

impl<'a> Turn<'a> {
    pub(super) fn begin_branches(
        &mut self,
        number: u32,
        state: &'a State,
        machines: &[u32],
    ) -> Result<(), Failure> {
        let input = self.effective_input(number, state)?;
        let input = self.arguments(number, state, &input, Subject::default())?;
        let scopes: Vec<u32> = machines
            .iter()
            .zip(0..)
            .map(|(&machine, index)| {
                self.open(Scope::new(
                    machine,
                    Some(Slot {
                        scope: number,
                        index,
                    }),
                    None,
                    self.now,
                ))
            })
            .collect();
        self.set_activity(
            number,
            Activity::Branches(Branches {
                outputs: vec![None; scopes.len()],
                undo: vec![Vec::new(); scopes.len()],
                live: scopes.iter().copied().collect(),
            }),
        );
        let name = state.name.to_string();
        self.tell(
            number,
            Happening::ParallelStarted {
                state: name,
                scopes: scopes.clone(),
            },
        );
        for (&scope, &machine) in scopes.iter().zip(machines) {
            self.start(scope, machine, Arc::clone(&input));
        }
        Ok(())
    }

    fn open(&mut self, scope: Scope) -> u32 {
        let number = self.run.next_scope;
        self.run.next_scope += 1;
        self.run.scopes.insert(number, scope);
        number
    }

    pub(super) fn start(&mut self, scope: u32, machine: u32, input: Arc<Value>) {
        let start = self
            .program
            .machine(machine)
            .map_or(0, |machine| machine.start);
        self.work.push_back(Work::Enter {
            scope,
            state: start,
            input,
        });
    }

    pub(super) fn begin_iterations(
        &mut self,
        number: u32,
        state: &'a State,
        map: &'a Map,
    ) -> Result<(), Failure> {
        if map.is_distributed {
            return self.begin_distribution(number, state, map);
        }
        let input = self.effective_input(number, state)?;
        let items = self.items(number, state, map, &input)?;
        let most = self.run.limits.inline_map_items;
        if items.len() as u64 > most {
            let message = format!(
                "an inline Map has at most {most} items (the limit `inline-map-items`), not {}: let \
                 the Map run with `Mode: DISTRIBUTED`",
                items.len()
            );
            return Err(failure(state, error_name::TOO_MANY_ITEMS, &message));
        }
        let mut count = |quantity, field| match quantity {
            None => Ok(None),
            Some(quantity) => self.count(number, state, quantity, &input, field).map(Some),
        };
        let concurrency = count(map.max_concurrency.as_ref(), "MaxConcurrency")?.unwrap_or(0);
        let length = items.len();
        self.tell(
            number,
            Happening::MapStarted {
                state: state.name.to_string(),
                length: Some(length as u64),
                distributed: false,
            },
        );
        let tolerated = self.tolerated(number, state, map, length, &input)?;
        let bounded = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        self.set_activity(
            number,
            Activity::Iterations(Box::new(Iterations {
                outputs: vec![None; length],
                undo: vec![Vec::new(); length],
                items,
                live: BTreeSet::new(),
                next: 0,
                concurrency: if concurrency == 0 {
                    u32::MAX
                } else {
                    bounded(concurrency)
                },
                failed: 0,
                tolerated: bounded(tolerated),
                input,
            })),
        );
        self.advance_map(number, state, map)
            .inspect_err(|_| self.stop_members(number))
    }

    /// How many iterations may fail: a count, a share in percent, or both.
    pub(super) fn tolerance(
        &mut self,
        number: u32,
        state: &State,
        map: &Map,
        input: &Value,
    ) -> Result<(Option<u64>, Option<f64>), Failure> {
        let count = match &map.tolerated_count {
            None => None,
            Some(count) => Some(self.count(number, state, count, input, TOLERATED_COUNT)?),
        };
        let Some(percentage) = &map.tolerated_percentage else {
            return Ok((count, None));
        };
        let percentage = self.quantity(number, state, percentage, input, TOLERATED_PERCENTAGE)?;
        if !(0.0..=100.0).contains(&percentage) {
            let message =
                format!("{TOLERATED_PERCENTAGE} must be between 0 and 100, but is {percentage}");
            return Err(failure(state, error_name::RUNTIME, &message));
        }
        Ok((count, Some(percentage)))
    }

    fn tolerated(
        &mut self,
        number: u32,
        state: &State,
        map: &Map,
        length: usize,
        input: &Value,
    ) -> Result<u64, Failure> {
        let (count, percentage) = self.tolerance(number, state, map, input)?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a share of a length is a length"
        )]
        let share = percentage.map(|percentage| (length as f64 * percentage / 100.0) as u64);
        Ok(match (count, share) {
            (Some(count), Some(share)) => count.min(share),
            (count, share) => count.or(share).unwrap_or(0),
        })
    }

    pub(super) fn items(
        &mut self,
        number: u32,
        state: &State,
        map: &Map,
        input: &Arc<Value>,
    ) -> Result<Vec<Arc<Value>>, Failure> {
        let (value, field) = match &map.items {
            Items::Input => (Value::clone(input), None),
            Items::Path(path) => (
                self.select(number, state, path, input, "ItemsPath")?,
                Some("ItemsPath"),
            ),
            Items::Template(template) => {
                let subject = Subject::default();
                (
                    self.template(number, state, template, input, subject, "Items")?,
                    Some("Items"),
                )
            }
        };
        match value {
            Value::Array(items) => Ok(items.into_iter().map(Arc::new).collect()),
            // A distributed Map may run over an object: each field is an item.
            Value::Object(fields) if map.is_distributed => Ok(fields
                .into_iter()
                .map(|(key, value)| Arc::new(json!({ "Key": key, "Value": value })))
                .collect()),
            other => {
                let error = match state.language {
                    QueryLanguage::Jsonata => error_name::QUERY_EVALUATION_ERROR,
                    QueryLanguage::JsonPath => error_name::RUNTIME,
                };
                let message = match field {
                    None => format!("Map state input must be an array but was: {other}"),
                    Some(field) => format!("The field '{field}' must be an array but was: {other}"),
                };
                Err(failure(state, error, &message))
            }
        }
    }

    /// Begins as many iterations as may run at once; ends the Map after its last.
    fn advance_map(&mut self, number: u32, state: &'a State, map: &'a Map) -> Result<(), Failure> {
        loop {
            let Some(scope) = self.scope_mut(number) else {
                return Ok(());
            };
            let Activity::Iterations(iterations) = &mut scope.activity else {
                return Ok(());
            };
            let index = iterations.next;
            let Some(item) = iterations.items.get(index as usize).map(Arc::clone) else {
                break;
            };
            if iterations.live.len() >= iterations.concurrency as usize {
                return Ok(());
            }
            iterations.next += 1;
            let input = Arc::clone(&iterations.input);
            let input = match &map.selector {
                None => Arc::clone(&item),
                Some(template) => {
                    let subject = Subject {
                        item: Some((index, &item)),
                        ..Subject::default()
                    };
                    let field = "ItemSelector";
                    Arc::new(self.template(number, state, template, &input, subject, field)?)
                }
            };
            self.check_size(state, &input)?;
            let slot = Slot {
                scope: number,
                index,
            };
            let iteration = self.open(Scope::new(
                map.machine,
                Some(slot),
                Some(Item { index, value: item }),
                self.now,
            ));
            if let Some(Activity::Iterations(iterations)) =
                self.scope_mut(number).map(|scope| &mut scope.activity)
            {
                iterations.live.insert(iteration);
            }
            self.tell(
                number,
                Happening::IterationStarted {
                    state: state.name.to_string(),
                    index: u64::from(index),
                    iteration,
                },
            );
            self.start(iteration, map.machine, input);
        }
        let Some(scope) = self.scope_mut(number) else {
            return Ok(());
        };
        let Activity::Iterations(iterations) = &mut scope.activity else {
            return Ok(());
        };
        if iterations.live.is_empty() {
            let outputs = std::mem::take(&mut iterations.outputs);
            let undo = std::mem::take(&mut iterations.undo);
            scope.undo.extend(branches(undo));
            scope.activity = Activity::Moving;
            // An iteration whose failure was tolerated has no output.
            let outputs = outputs
                .into_iter()
                .flatten()
                .map(Arc::unwrap_or_clone)
                .collect();
            let name = state.name.to_string();
            self.tell(number, Happening::MapSucceeded { state: name });
            self.work.push_back(Work::Finish {
                scope: number,
                result: Arc::new(Value::Array(outputs)),
            });
        }
        Ok(())
    }

    /// A branch or an iteration has ended well.
    pub(super) fn end_member(&mut self, number: u32, slot: Slot, output: Arc<Value>) {
        let Some(member) = self.remove_scope(number) else {
            return;
        };
        let Some(state) = self.state_of(slot.scope) else {
            return;
        };
        let Some(around) = self.scope_mut(slot.scope) else {
            return;
        };
        let index = slot.index as usize;
        let since = member.opened_at;
        match &mut around.activity {
            Activity::Branches(branches_of) => {
                branches_of.live.remove(&number);
                branches_of.outputs[index] = Some(output);
                branches_of.undo[index] = member.undo;
                let done = if branches_of.live.is_empty() {
                    let outputs = std::mem::take(&mut branches_of.outputs);
                    let undo = std::mem::take(&mut branches_of.undo);
                    around.undo.extend(branches(undo));
                    around.activity = Activity::Moving;
                    Some(outputs)
                } else {
                    None
                };
                self.tell_member_ended(number, slot, since, None, false);
                if let Some(outputs) = done {
                    let outputs = outputs
                        .into_iter()
                        .flatten()
                        .map(Arc::unwrap_or_clone)
                        .collect();
                    let name = state.name.to_string();
                    self.tell(slot.scope, Happening::ParallelSucceeded { state: name });
                    self.work.push_back(Work::Finish {
                        scope: slot.scope,
                        result: Arc::new(Value::Array(outputs)),
                    });
                }
            }
            Activity::Iterations(iterations) => {
                iterations.live.remove(&number);
                iterations.outputs[index] = Some(output);
                iterations.undo[index] = member.undo;
                self.tell_member_ended(number, slot, since, None, false);
                let name = state.name.to_string();
                let index = u64::from(slot.index);
                self.tell(
                    slot.scope,
                    Happening::IterationSucceeded { state: name, index },
                );
                self.go_on_with_map(slot.scope, state);
            }
            _ => {}
        }
    }

    fn opened_at(&self, scope: u32) -> Timestamp {
        self.scope(scope).map_or(self.now, |scope| scope.opened_at)
    }

    fn tell_member_ended(
        &mut self,
        member: u32,
        slot: Slot,
        since: Timestamp,
        failure: Option<Failure>,
        is_aborted: bool,
    ) {
        let told = Happening::MemberEnded {
            state: self.state_name(slot.scope),
            index: u64::from(slot.index),
            member,
            is_iteration: matches!(
                self.state_of(slot.scope).map(|state| &state.kind),
                Some(Kind::Map(_))
            ),
            since,
            failure,
            is_aborted,
        };
        self.tell(slot.scope, told);
    }

    fn go_on_with_map(&mut self, number: u32, state: &'a State) {
        let Kind::Map(map) = &state.kind else { return };
        if let Err(failure) = self.advance_map(number, state, map) {
            self.stop_members(number);
            self.fail_members_later(number, failure);
        }
    }

    /// A branch or an iteration has failed.
    pub(super) fn fail_member(&mut self, number: u32, slot: Slot, failure: Failure) {
        let undo = self.abort(number);
        let since = self.opened_at(number);
        self.remove_scope(number);
        self.tell_member_ended(number, slot, since, Some(failure.clone()), false);
        let Some(state) = self.state_of(slot.scope) else {
            return;
        };
        let name = state.name.to_string();
        let is_counted = matches!(&state.kind, Kind::Map(map) if map.has_tolerance());
        let Some(around) = self.scope_mut(slot.scope) else {
            return;
        };
        match &mut around.activity {
            Activity::Branches(branches_of) => {
                branches_of.live.remove(&number);
                branches_of.undo[slot.index as usize] = undo;
                self.stop_members(slot.scope);
            }
            Activity::Iterations(iterations) => {
                iterations.live.remove(&number);
                iterations.undo[slot.index as usize] = undo;
                iterations.failed += 1;
                let is_tolerated = iterations.failed <= iterations.tolerated;
                let index = u64::from(slot.index);
                self.tell(
                    slot.scope,
                    Happening::IterationFailed {
                        state: name.clone(),
                        index,
                        failure: failure.clone(),
                    },
                );
                if is_tolerated {
                    self.go_on_with_map(slot.scope, state);
                    return;
                }
                self.stop_members(slot.scope);
                let failure = if is_counted {
                    Failure::new(
                        error_name::EXCEED_TOLERATED_FAILURE_THRESHOLD,
                        "more iterations failed than the Map tolerates",
                    )
                } else {
                    failure
                };
                self.fail_members_later(slot.scope, failure);
                return;
            }
            _ => return,
        }
        self.fail_members_later(slot.scope, failure);
    }

    /// Aborts the members of a Parallel or a Map that still run, and gathers what all of them did.
    pub(super) fn stop_members(&mut self, number: u32) {
        self.stop_members_before(number, None);
    }

    fn stop_members_before(&mut self, number: u32, turns: Option<&Turns>) {
        self.stop_distribution(number);
        let Some(scope) = self.scope_mut(number) else {
            return;
        };
        let activity = std::mem::replace(&mut scope.activity, Activity::Moving);
        let (mut stacks, live) = match activity {
            Activity::Branches(branches_of) => (branches_of.undo, branches_of.live),
            Activity::Iterations(iterations) => (iterations.undo, iterations.live),
            other => {
                scope.activity = other;
                return;
            }
        };
        let turns = turns.map_or_else(|| Cow::Owned(self.turns()), Cow::Borrowed);
        for member in live {
            let slot = self.scope(member).and_then(|scope| scope.parent);
            let is_iteration = self.scope(member).is_some_and(|scope| scope.item.is_some());
            let undo = self.abort_before(member, &turns);
            let since = self.opened_at(member);
            self.remove_scope(member);
            let Some(slot) = slot else { continue };
            self.tell_member_ended(member, slot, since, None, true);
            stacks[slot.index as usize] = undo;
            if is_iteration {
                let state = self.state_name(number);
                let index = u64::from(slot.index);
                self.tell(number, Happening::IterationAborted { state, index });
            }
        }
        if let Some(scope) = self.scope_mut(number) {
            scope.undo.extend(branches(stacks));
        }
    }

    /// Stops whatever a scope does, and gives what there is to undo in it.
    pub(super) fn abort(&mut self, number: u32) -> Vec<Undo> {
        let turns = self.turns();
        self.abort_before(number, &turns)
    }

    fn abort_before(&mut self, number: u32, turns: &Turns) -> Vec<Undo> {
        let is_under_way = |turn: &Self| {
            let activity = turn.scope(number).map(|scope| &scope.activity);
            !matches!(activity, None | Some(Activity::Moving | Activity::Held(_)))
        };
        let was_active = is_under_way(self);
        // What has its result, or its failure, is left only when that has had its turn.
        let turn = turns.get(&number);
        let was_under_way = was_active || turn.is_some();
        self.stop_members_before(number, Some(turns));
        let Some(state) = self.state_of(number) else {
            return Vec::new();
        };
        if was_under_way {
            let has_failed_members = turn == Some(&true);
            let has_members = has_failed_members || was_active && !is_under_way(self);
            let since = self.entered_at(number);
            self.tell(
                number,
                Happening::StateAborted {
                    state: state.name.to_string(),
                    kind: state.kind_name.to_owned(),
                    since,
                    has_members,
                },
            );
        }
        self.leave_step(number, state, None);
        let Some(scope) = self.scope_mut(number) else {
            return Vec::new();
        };
        let mut undo = std::mem::take(&mut scope.undo);
        // An explicit Compensate that was under way goes on with what it had left.
        if let Activity::Undoing(track) = std::mem::replace(&mut scope.activity, Activity::Moving) {
            undo.extend(self.unwind(number, *track));
        }
        undo
    }
}
