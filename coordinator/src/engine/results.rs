//! The results of a distributed Map: kept for the state's output, or written to objects as they come
//! (`ResultWriter`), in the files and forms of Step Functions.

use super::{
    distribution::{Distribution, Live},
    evaluation::{Subject, failure, json_bytes},
    program::{Map, State},
    saga::Activity,
    store::{StoreRequest, StoredObject},
    turn::Turn,
};
use dirigent_contracts::{
    definition::model::Transformation,
    error_name,
    id::SagaAddress,
    limit,
    outcome::{Failure, Outcome, SagaStatus},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};

/// What has come of the items, as far as it is not written yet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Results {
    /// What succeeded, by index.
    succeeded: BTreeMap<u32, Arc<Value>>,
    /// What failed, if it is to be written.
    failed: BTreeMap<u32, Arc<Value>>,
    bytes: usize,
    writing: Option<Box<Writing>>,
}

/// The writing of results to the object store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Writing {
    step: u32,
    bucket: String,
    /// What the names of all objects begin with, without a slash at its end.
    prefix: String,
    /// What is written, or being written: name, size in bytes, and whether of failed items.
    files: Vec<(String, u64, bool)>,
    /// How many times was asked.
    asked: u32,
    /// What is being written.
    objects: Vec<String>,
    /// Whether the last object, which names all others, is written.
    has_manifest: bool,
}

impl Results {
    /// Whether they go to objects.
    pub(super) fn is_written(&self) -> bool {
        self.writing.is_some()
    }

    /// The step of the writing.
    pub(super) fn step(&self) -> Option<u32> {
        self.writing.as_ref().map(|writing| writing.step)
    }

    /// How much is held.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether they are too many for an output of so many bytes.
    pub(super) fn is_larger_than(&self, most: u64) -> bool {
        self.writing.is_none() && self.bytes as u64 > most
    }

    /// Takes the outcome of an item.
    pub(super) fn add(
        &mut self,
        index: u32,
        outcome: &Outcome,
        (address, live, now): (Option<SagaAddress>, &Live, Timestamp),
    ) {
        let is_succeeded = outcome.status == SagaStatus::Succeeded;
        if !is_succeeded && self.writing.is_none() {
            return;
        }
        let output = outcome.output.clone().unwrap_or_default();
        // Failed items are always told with what is known of them.
        let result = match (&live.input, address) {
            (Some(_), Some(address)) => Arc::new(record(&address, live, now, outcome)),
            (None, Some(address)) if !is_succeeded => {
                Arc::new(record(&address, live, now, outcome))
            }
            _ => output,
        };
        self.bytes += json_bytes(&result) + 1;
        if is_succeeded {
            self.succeeded.insert(index, result);
        } else {
            self.failed.insert(index, result);
        }
    }

    /// The objects that this answer says are written; `None` if it is not an answer to a write.
    pub(super) fn wrote(&mut self, step: u32, attempt: u32) -> Option<Vec<String>> {
        let writing = self.writing.as_mut()?;
        let is_awaited =
            writing.step == step && writing.asked == attempt && !writing.objects.is_empty();
        is_awaited.then(|| std::mem::take(&mut writing.objects))
    }

    /// The output of the state, of what was kept.
    fn output(&mut self, transformation: Transformation) -> Value {
        let outputs = std::mem::take(&mut self.succeeded);
        let mut all = Vec::new();
        for output in outputs.into_values().map(Arc::unwrap_or_clone) {
            match output {
                Value::Array(outputs) if transformation == Transformation::Flatten => {
                    all.extend(outputs);
                }
                output => all.push(output),
            }
        }
        Value::Array(all)
    }

    /// The next objects to be written.
    fn files(&mut self, map: &Map) -> Vec<StoredObject> {
        let transformation = map.transformation();
        let is_lines = map.writer.as_ref().is_some_and(|writer| writer.is_lines);
        let groups = [
            (std::mem::take(&mut self.failed), true),
            (std::mem::take(&mut self.succeeded), false),
        ];
        self.bytes = 0;
        let Some(writing) = &mut self.writing else {
            return Vec::new();
        };
        let mut objects = Vec::new();
        for (results, is_failed) in groups {
            if results.is_empty() {
                continue;
            }
            let written = writing.files.iter().filter(|file| file.2 == is_failed);
            let kind = if is_failed { "FAILED" } else { "SUCCEEDED" };
            let extension = if is_lines { "jsonl" } else { "json" };
            let name = format!(
                "{}/{kind}_{}.{extension}",
                writing.prefix,
                written.clone().count()
            );
            let mut values: Vec<&Value> = Vec::new();
            for result in results.values() {
                match &**result {
                    Value::Array(inner) if transformation == Transformation::Flatten => {
                        values.extend(inner);
                    }
                    value => values.push(value),
                }
            }
            let texts = values.iter().map(ToString::to_string);
            let body = if is_lines {
                texts.map(|text| text + "\n").collect()
            } else {
                format!("[{}]", texts.collect::<Vec<_>>().join(","))
            };
            writing
                .files
                .push((name.clone(), body.len() as u64, is_failed));
            objects.push(StoredObject {
                bucket: writing.bucket.clone(),
                key: name,
                body,
            });
        }
        objects
    }
}

impl Writing {
    fn manifest_key(&self) -> String {
        format!("{}/manifest.json", self.prefix)
    }

    fn manifest(&self, run: &str) -> StoredObject {
        let of = |is_failed| -> Vec<Value> {
            let files = self.files.iter().filter(|file| file.2 == is_failed);
            files
                .map(|(key, size, _)| json!({ "Key": key, "Size": size }))
                .collect()
        };
        let manifest = json!({
            "DestinationBucket": self.bucket,
            "MapRunArn": run,
            "ResultFiles": { "FAILED": of(true), "PENDING": [], "SUCCEEDED": of(false) },
        });
        StoredObject {
            bucket: self.bucket.clone(),
            key: self.manifest_key(),
            body: manifest.to_string(),
        }
    }
}

/// An item's saga in the words of Step Functions.
fn record(address: &SagaAddress, live: &Live, now: Timestamp, outcome: &Outcome) -> Value {
    let mut record = json!({
        "ExecutionArn": address.to_string(),
        "Name": address.key.as_str(),
        "StateMachineArn": address.definition.as_str(),
        "StartDate": live.since.to_rfc3339(),
        "StopDate": now.to_rfc3339(),
    });
    if let Some(input) = &live.input {
        record["Input"] = json!(input.to_string());
        record["InputDetails"] = json!({ "Included": true });
    }
    if outcome.status == SagaStatus::Succeeded {
        let output = outcome.output.as_deref().unwrap_or(&Value::Null);
        record["Status"] = json!("SUCCEEDED");
        record["Output"] = json!(output.to_string());
        record["OutputDetails"] = json!({ "Included": true });
    } else {
        let failure = super::attempt::failure_of(outcome);
        record["Status"] = json!("FAILED");
        record["Error"] = json!(failure.error);
        record["Cause"] = json!(failure.cause);
    }
    record
}

impl<'a> Turn<'a> {
    /// Where the results of a Map go.
    pub(super) fn results(
        &mut self,
        number: u32,
        state: &'a State,
        map: &'a Map,
        input: &Arc<Value>,
    ) -> Result<Results, Failure> {
        let writer = map.writer.as_ref().filter(|writer| writer.is_object);
        let Some(writer) = writer else {
            return Ok(Results::default());
        };
        let arguments = match &writer.arguments {
            None => Value::Null,
            Some(template) => {
                let field = "ResultWriter/Arguments";
                self.template(number, state, template, input, Subject::default(), field)?
            }
        };
        let Some(bucket) = arguments["Bucket"].as_str() else {
            let message = "ResultWriter does not say which Bucket";
            return Err(failure(state, error_name::RESULT_WRITER_FAILED, message));
        };
        let step = self.next_step();
        self.run.pending.insert(step, number);
        let own = self.effect_id(step).to_string();
        let prefix = match arguments["Prefix"].as_str().map(|p| p.trim_matches('/')) {
            Some(prefix) if !prefix.is_empty() => format!("{prefix}/{own}"),
            _ => own,
        };
        Ok(Results {
            writing: Some(Box::new(Writing {
                step,
                bucket: bucket.to_owned(),
                prefix,
                files: Vec::new(),
                asked: 0,
                objects: Vec::new(),
                has_manifest: false,
            })),
            ..Results::default()
        })
    }

    /// Writes what has gathered. Gives the state's result once all items are done and everything is
    /// written.
    pub(super) fn write_on(
        &mut self,
        number: u32,
        state: &State,
        map: &Map,
        is_done: bool,
    ) -> Option<Value> {
        let run = format!("{}/{}", self.address, state.name);
        let scope = self.scope_mut(number)?;
        let Activity::Distribution(distribution) = &mut scope.activity else {
            return None;
        };
        let Distribution { results, .. } = &mut **distribution;
        let Some(writing) = &results.writing else {
            return is_done.then(|| results.output(map.transformation()));
        };
        if !writing.objects.is_empty() {
            return None;
        }
        if writing.has_manifest {
            let details = json!({ "Bucket": writing.bucket, "Key": writing.manifest_key() });
            return Some(json!({ "MapRunArn": run, "ResultWriterDetails": details }));
        }
        let objects = if results.bytes >= limit::MAP_WRITE_BYTES || (is_done && results.bytes > 0) {
            results.files(map)
        } else if is_done {
            vec![writing.manifest(&run)]
        } else {
            return None;
        };
        let writing = results.writing.as_mut()?;
        writing.has_manifest = objects
            .iter()
            .any(|object| object.key == writing.manifest_key());
        writing.objects = objects.iter().map(|object| object.key.clone()).collect();
        writing.asked += 1;
        let (step, asked) = (writing.step, writing.asked);
        self.ask_store(step, asked, StoreRequest::Write(objects));
        None
    }
}
