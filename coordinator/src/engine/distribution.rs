//! A distributed Map: each item, or batch of items, is a saga of its own, anywhere in the installation.
//!
//! The Map's saga holds what is in flight and no more: items are read as they are needed, results go
//! to an object as they come, or count against the limit of an output. An item that has done what may
//! have to be undone stays until this saga tells it how it ends (`held`).

use super::{
    attempt::failure_of,
    effect::{Effect, Ignored},
    evaluation::{Subject, failure, json_bytes},
    program::{Batch, Map, Reader, State},
    results::Results,
    saga::Activity,
    store::{self, ItemSource, Items, StoreRequest},
    turn::Turn,
    undo::{Undo, UndoItems, items_in},
};
use dirigent_contracts::{
    definition::model::Transformation,
    error_name,
    history::Happening,
    id::{CommandId, SagaAddress, SagaKey, TaskName},
    journal::{Child, Parent, Part},
    limit,
    outcome::{Failure, SagaStatus},
    task::TaskResult,
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

/// How many items undo themselves at once.
const UNDOING_AT_ONCE: usize = 100;

/// The items of a distributed Map.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Distribution {
    /// The step that the items are attempts of.
    pub(super) step: u32,
    /// The state's effective input.
    input: Arc<Value>,
    /// Items that are known and have not begun, the next first.
    waiting: VecDeque<Arc<Value>>,
    /// Where more come from; `None` once all are known.
    reading: Option<Reading>,
    batching: Option<Batching>,
    /// How many items have begun: the index of the first that waits.
    taken: u32,
    /// How many sagas have begun: the index of the next.
    next: u32,
    /// Those that run.
    live: BTreeMap<u32, Live>,
    /// How large those of their inputs are that are kept.
    live_bytes: usize,
    /// Indices of those that have ended and wait for how this saga ends.
    held: BTreeSet<u32>,
    concurrency: u32,
    /// How many items have failed, and why the first did.
    failed: u32,
    first_failure: Option<Failure>,
    tolerance: Tolerance,
    pub(super) results: Results,
}

/// The reading of items from the object store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Reading {
    step: u32,
    source: ItemSource,
    /// How many items were read.
    read: u64,
    /// The version of the object that they are of.
    version: Option<String>,
    /// How many times was asked.
    asked: u32,
    /// Whether an answer is awaited.
    is_asked: bool,
}

/// How items are grouped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Batching {
    most_items: u64,
    most_bytes: u64,
    shared: Option<Value>,
}

/// A saga that runs an item, or a batch of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Live {
    /// How many items it has.
    items: u32,
    pub(super) since: Timestamp,
    /// Its input, if the result is to tell it.
    pub(super) input: Option<Arc<Value>>,
}

impl Live {
    fn bytes(&self) -> usize {
        self.input.as_deref().map_or(0, json_bytes)
    }
}

/// How many items may fail.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Tolerance {
    count: Option<u64>,
    /// From 0 to 100.
    percentage: Option<f64>,
}

impl Distribution {
    /// What it waits for, in words.
    pub(super) fn describe(&self) -> String {
        let more = if self.reading.is_some() {
            "; more are being read"
        } else {
            ""
        };
        format!(
            "{} items that run; {} have ended, {} wait{more}",
            self.live.len(),
            self.next as usize - self.live.len(),
            self.waiting.len()
        )
    }

    /// Takes the items that wait for how this saga ends.
    pub(super) fn take_held(&mut self) -> Option<Undo> {
        let held = std::mem::take(&mut self.held);
        (!held.is_empty()).then(|| Undo::Items(Box::new(self.undo_items(held, BTreeSet::new()))))
    }

    fn undo_items(&self, held: BTreeSet<u32>, closing: BTreeSet<u32>) -> UndoItems {
        UndoItems {
            machine: 0,
            state: 0,
            step: self.step,
            held,
            closing,
        }
    }

    /// Whether more have failed than may. The share is known once all items are.
    fn is_intolerable(&self) -> bool {
        let Tolerance { count, percentage } = self.tolerance;
        let failed = f64::from(self.failed);
        let known = self.waiting.len() as u64 + u64::from(self.taken);
        #[expect(
            clippy::cast_precision_loss,
            reason = "there are at most a million items"
        )]
        let share = percentage.map(|percentage| known as f64 * percentage / 100.0);
        let share = share.filter(|_| self.reading.is_none());
        match (count, percentage) {
            (None, None) => self.failed > 0,
            _ => {
                count.is_some_and(|count| u64::from(self.failed) > count)
                    || share.is_some_and(|share| failed > share)
            }
        }
    }

    /// Whether what is held in memory is enough for now.
    fn is_full(&self) -> bool {
        if !self.results.is_written() {
            return false;
        }
        self.live_bytes + self.results.bytes() > limit::MAP_HELD_BYTES
    }
}

impl<'a> Turn<'a> {
    pub(super) fn begin_distribution(
        &mut self,
        number: u32,
        state: &'a State,
        map: &'a Map,
    ) -> Result<(), Failure> {
        let input = self.effective_input(number, state)?;
        let (waiting, source) = match &map.reader {
            None => (self.items(number, state, map, &input)?.into(), None),
            Some(reader) => {
                let source = self.item_source(number, state, reader, &input)?;
                (VecDeque::new(), Some(source))
            }
        };
        let concurrency = match &map.max_concurrency {
            None => 0,
            Some(count) => self.count(number, state, count, &input, "MaxConcurrency")?,
        };
        let batching = match &map.batch {
            None => None,
            Some(batch) => Some(self.batching(number, state, batch, &input)?),
        };
        self.tell(
            number,
            Happening::MapStarted {
                state: state.name.to_string(),
                length: source.is_none().then_some(waiting.len() as u64),
                distributed: true,
            },
        );
        let (count, percentage) = self.tolerance(number, state, map, &input)?;
        let tolerance = Tolerance { count, percentage };
        let results = self.results(number, state, map, &input)?;
        let step = self.next_step();
        self.run.pending.insert(step, number);
        let reading = source.map(|source| {
            let step = self.next_step();
            self.run.pending.insert(step, number);
            Reading {
                step,
                source,
                read: 0,
                version: None,
                asked: 0,
                is_asked: false,
            }
        });
        let most = u64::from(limit::MAP_CONCURRENCY);
        let concurrency = if concurrency == 0 {
            most
        } else {
            concurrency.min(most)
        };
        self.set_activity(
            number,
            Activity::Distribution(Box::new(Distribution {
                step,
                input,
                waiting,
                reading,
                batching,
                taken: 0,
                next: 0,
                live: BTreeMap::new(),
                live_bytes: 0,
                held: BTreeSet::new(),
                concurrency: u32::try_from(concurrency).unwrap_or(limit::MAP_CONCURRENCY),
                failed: 0,
                first_failure: None,
                tolerance,
                results,
            })),
        );
        self.advance_distribution(number, state, map)
            .inspect_err(|_| self.stop_members(number))
    }

    fn item_source(
        &mut self,
        number: u32,
        state: &'a State,
        reader: &'a Reader,
        input: &Arc<Value>,
    ) -> Result<ItemSource, Failure> {
        let mut evaluated = |template: &Option<_>, field| match template {
            None => Ok(Value::Null),
            Some(template) => {
                self.template(number, state, template, input, Subject::default(), field)
            }
        };
        let arguments = evaluated(&reader.arguments, "ItemReader/Arguments")?;
        let config = evaluated(&reader.config, "ItemReader/ReaderConfig")?;
        let most = match &reader.most {
            None => None,
            Some(most) => Some(self.count(number, state, most, input, "MaxItems")?),
        };
        ItemSource::of(reader.is_listing, &arguments, &config, most)
            .map_err(|message| failure(state, error_name::ITEM_READER_FAILED, &message))
    }

    fn batching(
        &mut self,
        number: u32,
        state: &'a State,
        batch: &'a Batch,
        input: &Arc<Value>,
    ) -> Result<Batching, Failure> {
        let mut most = |quantity: &Option<_>, field| match quantity {
            None => Ok(u64::MAX),
            Some(quantity) => self
                .count(number, state, quantity, input, field)
                .map(|count| count.max(1)),
        };
        let most_items = most(&batch.max_items, "MaxItemsPerBatch")?;
        let most_bytes = most(&batch.max_input_bytes, "MaxInputBytesPerBatch")?;
        let shared = match &batch.input {
            None => None,
            Some(template) => {
                let subject = Subject::default();
                Some(self.template(number, state, template, input, subject, "BatchInput")?)
            }
        };
        // A batch has to fit into an input, with what is around the items.
        let around = 64 + shared.as_ref().map_or(0, json_bytes);
        let room = self.run.limits.payload.saturating_sub(around as u64);
        Ok(Batching {
            most_items,
            most_bytes: most_bytes.min(room),
            shared,
        })
    }

    fn distribution(&mut self, number: u32) -> Option<&mut Distribution> {
        match &mut self.scope_mut(number)?.activity {
            Activity::Distribution(distribution) => Some(distribution),
            _ => None,
        }
    }

    /// Begins as many items as may run at once, asks for more, and ends the Map after its last.
    fn advance_distribution(
        &mut self,
        number: u32,
        state: &'a State,
        map: &'a Map,
    ) -> Result<(), Failure> {
        let mut is_starved = false;
        loop {
            let Some(distribution) = self.distribution(number) else {
                return Ok(());
            };
            if distribution.live.len() >= distribution.concurrency as usize
                || distribution.is_full()
            {
                break;
            }
            let Some((input, items)) = self.next_item(number, state, map)? else {
                is_starved = true;
                break;
            };
            self.check_size(state, &input)?;
            self.begin_item(number, state, map, input, items);
        }
        self.read_on(number, is_starved);
        let Some(distribution) = self.distribution(number) else {
            return Ok(());
        };
        let is_done = distribution.live.is_empty()
            && distribution.waiting.is_empty()
            && distribution.reading.is_none();
        if is_done && distribution.is_intolerable() {
            return Err(self.intolerable(number));
        }
        if let Some(result) = self.write_on(number, state, map, is_done) {
            self.end_distribution(number, state, Arc::new(result));
        }
        Ok(())
    }

    fn go_on_with_distribution(&mut self, number: u32) {
        let Some(state) = self.state_of(number) else {
            return;
        };
        let super::program::Kind::Map(map) = &state.kind else {
            return;
        };
        if let Err(failure) = self.advance_distribution(number, state, map) {
            self.fail_distribution(number, failure);
        }
    }

    pub(super) fn fail_distribution(&mut self, number: u32, failure: Failure) {
        self.stop_members(number);
        self.fail_members_later(number, failure);
    }

    /// The input of the next saga, and how many items it has; `None` if that is not known yet.
    fn next_item(
        &mut self,
        number: u32,
        state: &'a State,
        map: &'a Map,
    ) -> Result<Option<(Arc<Value>, u32)>, Failure> {
        let Some(distribution) = self.distribution(number) else {
            return Ok(None);
        };
        let Some(batching) = distribution.batching.clone() else {
            let Some(item) = distribution.waiting.pop_front() else {
                return Ok(None);
            };
            let index = distribution.taken;
            distribution.taken += 1;
            let input = self.selected(number, state, map, index, item)?;
            return Ok(Some((input, 1)));
        };
        let (first, mut items, mut bytes) = (distribution.taken, Vec::new(), 0);
        let mut is_complete = distribution.reading.is_none();
        for at in 0.. {
            let next = self
                .distribution(number)
                .and_then(|distribution| distribution.waiting.get(at).map(Arc::clone));
            let Some(item) = next else { break };
            let index = first.saturating_add(u32::try_from(at).unwrap_or(u32::MAX));
            let item = self.selected(number, state, map, index, item)?;
            bytes += json_bytes(&item) as u64;
            let is_over = items.len() as u64 >= batching.most_items || bytes > batching.most_bytes;
            if is_over && !items.is_empty() {
                is_complete = true;
                break;
            }
            items.push(Value::clone(&item));
        }
        is_complete |= items.len() as u64 >= batching.most_items;
        if items.is_empty() || !is_complete {
            return Ok(None);
        }
        let count = u32::try_from(items.len()).unwrap_or(u32::MAX);
        if let Some(distribution) = self.distribution(number) {
            distribution.waiting.drain(..items.len());
            distribution.taken += count;
        }
        let input = match batching.shared {
            None => json!({ "Items": items }),
            Some(shared) => json!({ "BatchInput": shared, "Items": items }),
        };
        Ok(Some((Arc::new(input), count)))
    }

    /// `ItemSelector`: what is made of an item.
    fn selected(
        &mut self,
        number: u32,
        state: &'a State,
        map: &'a Map,
        index: u32,
        item: Arc<Value>,
    ) -> Result<Arc<Value>, Failure> {
        let Some(template) = &map.selector else {
            return Ok(item);
        };
        let Some(input) = self.distribution(number).map(|d| Arc::clone(&d.input)) else {
            return Ok(item);
        };
        let subject = Subject {
            item: Some((index, &item)),
            ..Subject::default()
        };
        self.template(number, state, template, &input, subject, "ItemSelector")
            .map(Arc::new)
    }

    fn begin_item(&mut self, number: u32, state: &State, map: &Map, input: Arc<Value>, items: u32) {
        let (now, digest) = (self.now, self.run.digest.clone());
        let visit = self.scope(number).map_or(0, |scope| scope.visits);
        let Some(distribution) = self.distribution(number) else {
            return;
        };
        let (step, index) = (distribution.step, distribution.next);
        distribution.next += 1;
        let tells_input = map.transformation() == Transformation::None;
        let live = Live {
            items,
            since: now,
            input: tells_input.then(|| Arc::clone(&input)),
        };
        distribution.live_bytes += live.bytes();
        distribution.live.insert(index, live);
        let Some(child) = self.item_address(step, index) else {
            return;
        };
        self.tell(
            number,
            Happening::ItemStarted {
                state: state.name.to_string(),
                index: u64::from(index),
                child: child.clone(),
            },
        );
        self.ask(Effect::StartItem {
            child,
            digest,
            input,
            parent: Parent {
                partition: self.partition,
                saga: self.address.clone(),
                command: self.item_command(step, index),
            },
            part: Part {
                machine: map.machine,
                index,
            },
            limits: self.run.limits,
            place: (number, visit),
            trace: self.run.trace,
        });
    }

    /// The attempt that an item is: attempts are counted from 1, items from 0.
    fn item_command(&self, step: u32, index: u32) -> CommandId {
        self.effect_id(step).command(index.saturating_add(1))
    }

    /// The address of an item's saga: the same definition, and the attempt as its key.
    pub(super) fn item_address(&self, step: u32, index: u32) -> Option<SagaAddress> {
        // The text of a command id is always a valid key.
        let key = SagaKey::new(self.item_command(step, index).to_string()).ok()?;
        Some(SagaAddress {
            definition: self.address.definition.clone(),
            key,
        })
    }

    /// Asks for items before those that wait run out.
    fn read_on(&mut self, number: u32, is_starved: bool) {
        let Some(distribution) = self.distribution(number) else {
            return;
        };
        let is_low = distribution.batching.is_none()
            && distribution.waiting.len() < limit::MAP_READ_ITEMS / 2;
        let Some(reading) = &mut distribution.reading else {
            return;
        };
        if reading.is_asked || !(is_starved || is_low) {
            return;
        }
        reading.is_asked = true;
        reading.asked += 1;
        let (step, asked) = (reading.step, reading.asked);
        let request = StoreRequest::Read {
            source: reading.source.clone(),
            skip: reading.read,
            version: reading.version.clone(),
        };
        self.ask_store(step, asked, request);
    }

    pub(super) fn ask_store(&mut self, step: u32, attempt: u32, request: StoreRequest) {
        // A constant, and a valid one.
        let Ok(task) = TaskName::new(store::TASK) else {
            return;
        };
        self.ask(Effect::Store {
            command: self.effect_id(step).command(attempt),
            reply_to: self.reply_subject(&task),
            request,
        });
    }

    /// The object store has answered.
    pub(super) fn hear_store(&mut self, number: u32, command: CommandId, result: TaskResult) {
        let (step, attempt) = (command.effect.step, command.attempt);
        let state = self.state_name(number);
        let Some(distribution) = self.distribution(number) else {
            return;
        };
        let is_read = distribution.reading.as_ref().is_some_and(|reading| {
            reading.step == step && reading.asked == attempt && reading.is_asked
        });
        let written = distribution.results.wrote(step, attempt);
        let failed = match (result, written) {
            (TaskResult::Heartbeat, _) => None,
            (TaskResult::Failed { failure, .. }, written) if is_read || written.is_some() => {
                Some(failure)
            }
            (TaskResult::Succeeded { .. }, Some(objects)) => {
                self.tell(number, Happening::ResultsWritten { state, objects });
                self.go_on_with_distribution(number);
                return;
            }
            (TaskResult::Succeeded { output }, None) if is_read => {
                match Items::deserialize(&*output) {
                    Ok(items) => return self.take_items(number, items),
                    Err(error) => Some(Failure::new(
                        error_name::ITEM_READER_FAILED,
                        format!("the answer of the object store is not understood: {error}"),
                    )),
                }
            }
            _ => None,
        };
        match failed {
            Some(failure) => self.fail_distribution(number, failure),
            None => self.effects.ignored = Some(Ignored::NotPending),
        }
    }

    fn take_items(&mut self, number: u32, items: Items) {
        let state = self.state_name(number);
        let Some(distribution) = self.distribution(number) else {
            return;
        };
        let Some(reading) = &mut distribution.reading else {
            return;
        };
        let count = items.items.len() as u64;
        reading.read += count;
        reading.is_asked = false;
        reading.version = items.version;
        let read = reading.read;
        let step = reading.step;
        distribution.waiting.extend(items.items);
        if items.last || count == 0 {
            distribution.reading = None;
            self.run.pending.remove(&step);
        }
        self.tell(
            number,
            Happening::ItemsRead {
                state,
                items: count,
                last: items.last || count == 0,
            },
        );
        let most = self.run.limits.map_items;
        if read > most {
            let message = format!("a Map has at most {most} items: the limit `map-items`");
            let failure = Failure::new(error_name::ITEM_READER_FAILED, message);
            return self.fail_distribution(number, failure);
        }
        self.go_on_with_distribution(number);
    }

    /// An item's saga tells how it ended, or that it is done and waits. Whether it was one.
    pub(super) fn hear_item(&mut self, child: &Child) -> bool {
        let CommandId { effect, attempt } = child.command;
        if effect.run != self.run.id {
            return false;
        }
        self.run.has_pivoted_items |= child.past_pivot;
        let index = attempt.wrapping_sub(1);
        let scope = self.run.pending.get(&effect.step).copied();
        let is_live = scope.and_then(|number| {
            let distribution = self.distribution(number)?;
            (distribution.step == effect.step).then_some(number)
        });
        match is_live {
            Some(number) => self.end_item(number, index, child),
            None => return self.settle_item(effect.step, index, child),
        }
        true
    }

    fn end_item(&mut self, number: u32, index: u32, child: &Child) {
        let (state, now) = (self.state_name(number), self.now);
        let address = self
            .distribution(number)
            .map(|distribution| distribution.step)
            .and_then(|step| self.item_address(step, index));
        let most = self.run.limits.payload;
        let Some(distribution) = self.distribution(number) else {
            return;
        };
        let Some(live) = distribution.live.remove(&index) else {
            self.effects.ignored = Some(Ignored::NotPending);
            return;
        };
        distribution.live_bytes -= live.bytes();
        let outcome = &child.outcome;
        if child.holds {
            distribution.held.insert(index);
        }
        let record = (address, &live, now);
        let is_succeeded = outcome.status == SagaStatus::Succeeded;
        let failure = (!is_succeeded).then(|| failure_of(outcome));
        if let Some(failure) = &failure {
            distribution.failed += live.items;
            distribution
                .first_failure
                .get_or_insert_with(|| failure.clone());
        }
        distribution.results.add(index, outcome, record);
        let is_intolerable = !is_succeeded && distribution.is_intolerable();
        let is_too_large = distribution.results.is_larger_than(most);
        self.run.has_undone |= outcome.status == SagaStatus::Compensated;
        let name = state.clone();
        let index = u64::from(index);
        self.tell(
            number,
            match failure {
                None => Happening::IterationSucceeded { state, index },
                Some(failure) => Happening::IterationFailed {
                    state,
                    index,
                    failure,
                },
            },
        );
        if is_intolerable {
            let failure = self.intolerable(number);
            return self.fail_distribution(number, failure);
        }
        if is_too_large {
            let message = format!(
                "The outputs of the Map '{name}' have more than {most} bytes together: let a \
                 ResultWriter write them to an object"
            );
            let failure = Failure::new(error_name::DATA_LIMIT_EXCEEDED, message);
            return self.fail_distribution(number, failure);
        }
        self.go_on_with_distribution(number);
    }

    fn intolerable(&mut self, number: u32) -> Failure {
        let (failed, first) = match self.distribution(number) {
            Some(distribution) => (distribution.failed, distribution.first_failure.clone()),
            None => (0, None),
        };
        let first = first.map(|first| first.to_string()).unwrap_or_default();
        Failure::new(
            error_name::EXCEED_TOLERATED_FAILURE_THRESHOLD,
            format!(
                "The specified tolerated failure threshold was exceeded: {failed} items have \
                 failed, the first with {first}"
            ),
        )
    }

    fn end_distribution(&mut self, number: u32, state: &State, result: Arc<Value>) {
        self.leave_distribution(number, BTreeSet::new());
        let name = state.name.to_string();
        self.tell(number, Happening::MapSucceeded { state: name });
        self.work.push_back(super::turn::Work::Finish {
            scope: number,
            result,
        });
    }

    /// Breaks off what still runs. What it did is undone with what the others did.
    pub(super) fn stop_distribution(&mut self, number: u32) {
        let Some(distribution) = self.distribution(number) else {
            return;
        };
        let step = distribution.step;
        let closing: BTreeSet<u32> = distribution.live.keys().copied().collect();
        let state = self.state_name(number);
        for &index in &closing {
            let reason = format!("the Map '{state}' has ended");
            if let Some(child) = self.item_address(step, index) {
                self.ask(Effect::UndoItem { child, reason });
            }
            let state = state.clone();
            let index = u64::from(index);
            self.tell(number, Happening::IterationAborted { state, index });
        }
        self.leave_distribution(number, closing);
    }

    fn leave_distribution(&mut self, number: u32, closing: BTreeSet<u32>) {
        let Some(scope) = self.scope_mut(number) else {
            return;
        };
        let activity = std::mem::replace(&mut scope.activity, Activity::Moving);
        let Activity::Distribution(mut distribution) = activity else {
            scope.activity = activity;
            return;
        };
        let held = std::mem::take(&mut distribution.held);
        if !held.is_empty() || !closing.is_empty() {
            let undo = UndoItems {
                machine: scope.machine,
                state: scope.state,
                ..distribution.undo_items(held, closing)
            };
            scope.undo.push(Undo::Items(Box::new(undo)));
        }
        self.run.pending.remove(&distribution.step);
        if let Some(reading) = distribution.reading {
            self.run.pending.remove(&reading.step);
        }
        if let Some(step) = distribution.results.step() {
            self.run.pending.remove(&step);
        }
    }

    /// Tells items to undo what they did, some at a time.
    pub(super) fn undo_items(&mut self, items: &mut UndoItems) {
        while items.closing.len() < UNDOING_AT_ONCE {
            // The last done is the first undone.
            let Some(index) = items.held.pop_last() else {
                break;
            };
            self.run.has_undone = true;
            items.closing.insert(index);
            let reason = "the saga that it is part of turns back".to_owned();
            if let Some(child) = self.item_address(items.step, index) {
                self.ask(Effect::UndoItem { child, reason });
            }
        }
    }

    /// Tells items that they will not be undone.
    pub(super) fn release(&mut self, stack: &[Undo]) {
        for undo in stack {
            match undo {
                Undo::Step(_) => {}
                Undo::Branches(stacks) => {
                    for stack in stacks {
                        self.release(stack);
                    }
                }
                Undo::Items(items) => {
                    for &index in &items.held {
                        if let Some(child) = self.item_address(items.step, index) {
                            self.ask(Effect::ReleaseItem { child });
                        }
                    }
                }
            }
        }
    }

    /// An item of a Map that has been left has ended. Whether it was one.
    fn settle_item(&mut self, step: u32, index: u32, child: &Child) -> bool {
        let found = self.run.scopes.iter_mut().find_map(|(number, scope)| {
            let in_stack = items_in(&mut scope.undo, step);
            let found = match (&mut scope.activity, in_stack) {
                (_, Some(found)) => Some(found),
                (Activity::Undoing(track), None) => track.items_mut(step),
                (Activity::Branches(branches), None) => branches
                    .undo
                    .iter_mut()
                    .find_map(|stack| items_in(stack, step)),
                (Activity::Iterations(iterations), None) => iterations
                    .undo
                    .iter_mut()
                    .find_map(|stack| items_in(stack, step)),
                _ => None,
            };
            found.map(|found| (*number, found))
        });
        let Some((scope, items)) = found else {
            return false;
        };
        // It succeeded before it heard that it is to turn back, and will.
        let goes_on = child.holds;
        let is_known = !goes_on && (items.closing.remove(&index) || items.held.remove(&index));
        let (machine, state) = (items.machine, items.state);
        if !is_known {
            self.effects.ignored = Some(Ignored::NotPending);
            return true;
        }
        let state = self.program.state(machine, state);
        let state = state.map_or_else(String::new, |state| state.name.to_string());
        let index = u64::from(index);
        self.tell(scope, Happening::ItemUndone { state, index });
        self.drive(scope, |_, _| {});
        true
    }
}
