//! What one saga of a workload sends, as recorded from a real one.

use super::body;
use crate::{
    bench::{
        load::{self, Keys, Pace},
        target::Target,
        workload::{Order, Workload},
    },
    connection::Connection,
    trouble::Trouble,
};
use async_nats::{HeaderMap, Message};
use bytes::Bytes;
use dirigent_contracts::{
    header,
    id::{PartitionId, SagaAddress, SagaKey, TaskName},
    subject::{self, EntryKind, JournalSubject},
};
use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::Duration,
};

/// Message ids begin with the run: 32 digits.
pub(super) const RUN_DIGITS: usize = 32;
/// How long the last message of a recorded saga may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A message on its way to a stream.
pub(in crate::bench) struct Outgoing {
    pub(in crate::bench) subject: String,
    pub(in crate::bench) headers: HeaderMap,
    pub(in crate::bench) body: Bytes,
}

/// A message as it was recorded: all but what differs from saga to saga.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Letter {
    /// What follows the run in the message id.
    id: String,
    /// The other headers.
    headers: Vec<(String, String)>,
    bytes: usize,
}

impl Letter {
    fn of(message: &Message) -> Result<Self, Trouble> {
        let all = message.headers.iter().flat_map(HeaderMap::iter);
        let mut headers = Vec::new();
        let mut id = None;
        for (name, values) in all {
            for value in values {
                if name.to_string() == header::MESSAGE_ID {
                    id = value.as_str().get(RUN_DIGITS..).map(str::to_owned);
                } else {
                    headers.push((name.to_string(), value.to_string()));
                }
            }
        }
        Ok(Self {
            id: id.ok_or_else(|| strange(message))?,
            headers,
            bytes: message.payload.len(),
        })
    }

    /// The headers that this message has in another run.
    pub(super) fn headers(&self, run: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::MESSAGE_ID, self.message_id(run));
        for (name, value) in &self.headers {
            headers.insert(name.as_str(), value.as_str());
        }
        headers
    }

    pub(super) fn message_id(&self, run: &str) -> String {
        format!("{run}{}", self.id)
    }

    pub(super) fn body(&self, step: u16, subject: &str) -> Bytes {
        body(self.bytes, step, subject)
    }
}

/// A command and its reply.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Step {
    pub(super) task: TaskName,
    pub(super) command: Letter,
    pub(super) reply: Letter,
}

/// A saga.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Recording {
    pub(super) order: Order,
    start: Letter,
    pub(super) steps: Vec<Step>,
    pub(super) outcome: Letter,
    pub(super) status: String,
}

/// A saga of each workload that has a floor, by the name of its definition.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::bench) struct Recordings {
    pub(in crate::bench) partitions: u16,
    sagas: BTreeMap<String, Recording>,
}

impl Recordings {
    pub(super) fn read(path: &Path) -> Result<Self, Trouble> {
        let text = fs::read(path).map_err(|source| Trouble::File {
            path: path.to_owned(),
            source,
        })?;
        serde_json::from_slice(&text).map_err(Trouble::bench)
    }

    pub(in crate::bench) fn write(&self, path: &Path) -> Result<(), Trouble> {
        let text = serde_json::to_vec(self).map_err(Trouble::bench)?;
        fs::write(path, text).map_err(Trouble::Write)
    }

    pub(super) fn of(&self, definition: &str) -> Result<&Recording, Trouble> {
        let unknown = || Trouble::bench(format!("{definition} was not recorded"));
        self.sagas.get(definition).ok_or_else(unknown)
    }

    pub(super) fn tasks(&self) -> BTreeSet<&TaskName> {
        let steps = self.sagas.values().flat_map(|saga| &saga.steps);
        steps.map(|step| &step.task).collect()
    }

    /// What starts a saga.
    pub(in crate::bench) fn start(
        &self,
        workload: Workload,
        key: &SagaKey,
    ) -> Result<Outgoing, Trouble> {
        let letter = &self.of(workload.name())?.start;
        let subject = JournalSubject {
            partition: PartitionId::of(key, self.partitions),
            address: SagaAddress {
                definition: workload.deployment()?.name,
                key: key.clone(),
            },
            kind: EntryKind::Start,
        };
        Ok(Outgoing {
            subject: subject.to_string(),
            headers: letter.headers(&run_of(key.as_str())),
            body: letter.body(0, ""),
        })
    }
}

/// The run of a saga of the floor: its key without the dash, with as many digits as a real one.
pub(super) fn run_of(key: &str) -> String {
    format!("{:0>RUN_DIGITS$}", key.replace('-', ""))
}

/// Runs a saga of each workload on a real coordinator, and records what is sent.
pub(in crate::bench) async fn record(
    connection: &Connection,
    workloads: &[Workload],
    partitions: u16,
) -> Result<Recordings, Trouble> {
    let mut sagas = BTreeMap::new();
    let mut keys = Keys::new();
    for workload in workloads {
        let Some(order) = workload.floor() else {
            continue;
        };
        connection.ask(&workload.deployment()?).await?;
        let recording = record_one(connection, *workload, order, &mut keys).await?;
        sagas.insert(workload.name().to_owned(), recording);
    }
    Ok(Recordings { partitions, sagas })
}

async fn record_one(
    connection: &Connection,
    workload: Workload,
    order: Order,
    keys: &mut Keys,
) -> Result<Recording, Trouble> {
    let client = &connection.client;
    // One subscription keeps their order.
    let all = client.subscribe("dirigent.>").await;
    let mut messages = all.map_err(Trouble::bench)?;
    let target = Target::Dirigent(connection.clone());
    let pace = Pace::Closed {
        in_flight: 1,
        sagas: 1,
    };
    load::run(&target, workload, pace, keys).await?;
    let mut start = None;
    let mut commands = Vec::new();
    let mut replies = BTreeMap::new();
    let outcome = loop {
        let message = tokio::time::timeout(PATIENCE, messages.next()).await;
        let Ok(Some(message)) = message else {
            return Err(Trouble::bench("a recorded saga did not end"));
        };
        if subject::parse_event(&message.subject).is_ok() {
            break Letter::of(&message)?;
        }
        if let Ok((task, _)) = subject::parse_command(&message.subject) {
            commands.push((task, Letter::of(&message)?));
            continue;
        }
        // Requests and answers pass by as well.
        let Ok(subject) = JournalSubject::parse(&message.subject) else {
            continue;
        };
        let letter = Letter::of(&message)?;
        match subject.kind {
            EntryKind::Start => start = Some(letter),
            EntryKind::Reply(_) => {
                let command = letter.id.trim_end_matches(".r").to_owned();
                replies.insert(command, letter);
            }
            _ => return Err(strange(&message)),
        }
    };
    let mut steps = Vec::new();
    for (task, command) in commands {
        let reply = replies.remove(&command.id);
        let reply = reply.ok_or_else(|| Trouble::bench("a recorded command has no reply"))?;
        steps.push(Step {
            task,
            command,
            reply,
        });
    }
    Ok(Recording {
        order,
        start: start.ok_or_else(|| Trouble::bench("a recorded saga has no start"))?,
        steps,
        outcome,
        status: workload.outcome().to_string(),
    })
}

fn strange(message: &Message) -> Trouble {
    Trouble::bench(format!(
        "{} was not expected in a recording",
        message.subject
    ))
}
