//! The command that asks a worker for one attempt of a step, and the reply that answers it.

use crate::{
    envelope::Body,
    id::{
        CommandId, DefinitionName, EffectId, IdError, PartitionId, RunId, SagaAddress, SagaKey,
        TaskName,
    },
    outcome::Failure,
    time::Timestamp,
    token,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{fmt, str::FromStr, sync::Arc};

/// Which way the step goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Do the step.
    #[default]
    Do,
    /// Undo a step that succeeded, or whose outcome is unknown. Undoing what never happened must
    /// succeed.
    Undo,
}

/// Asks for one attempt of a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "CommandFields")]
pub struct Command {
    /// Identity of this attempt.
    pub command: CommandId,
    /// Identity of the step's effect, the same in every attempt: the idempotency key.
    pub effect: EffectId,
    /// Which attempt this is; the first is 1.
    pub attempt: u32,
    /// The kind of work.
    pub task: TaskName,
    /// Definition and key of the saga that asks.
    #[serde(flatten)]
    pub saga: SagaAddress,
    /// The run of that saga.
    pub run: RunId,
    /// The partition that the saga lives in.
    pub partition: PartitionId,
    /// Name of the state that asks.
    pub state: String,
    /// Do or undo.
    pub direction: Direction,
    /// What is undone, if this is an undo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undoes: Option<EffectId>,
    /// The step's input: any JSON value.
    pub input: Arc<Value>,
    /// When the coordinator gives up on this attempt, in microseconds since the epoch.
    pub deadline: Timestamp,
    /// The longest pause between two heartbeats in milliseconds, if the step wants heartbeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat_ms: Option<u64>,
    /// Largest output that the saga takes, in bytes of JSON, if it is not the default of
    /// [`SagaLimits::payload`](crate::limits::SagaLimits::payload).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most_output: Option<u64>,
    /// The token with which somebody will complete the step later, if it waits for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The subject to which the reply is to be published.
    pub reply_to: String,
}

impl Body for Command {
    const WHAT: &'static str = "command";
}

/// A command as it is read: what serde flattens it has to keep aside first, and that took most of the
/// time.
#[derive(Deserialize)]
struct CommandFields {
    command: CommandId,
    effect: EffectId,
    attempt: u32,
    task: TaskName,
    definition: DefinitionName,
    key: SagaKey,
    run: RunId,
    partition: PartitionId,
    state: String,
    direction: Direction,
    #[serde(default)]
    undoes: Option<EffectId>,
    input: Arc<Value>,
    deadline: Timestamp,
    #[serde(default)]
    heartbeat_ms: Option<u64>,
    #[serde(default)]
    most_output: Option<u64>,
    #[serde(default)]
    token: Option<String>,
    reply_to: String,
}

impl From<CommandFields> for Command {
    fn from(fields: CommandFields) -> Self {
        Self {
            command: fields.command,
            effect: fields.effect,
            attempt: fields.attempt,
            task: fields.task,
            saga: SagaAddress {
                definition: fields.definition,
                key: fields.key,
            },
            run: fields.run,
            partition: fields.partition,
            state: fields.state,
            direction: fields.direction,
            undoes: fields.undoes,
            input: fields.input,
            deadline: fields.deadline,
            heartbeat_ms: fields.heartbeat_ms,
            most_output: fields.most_output,
            token: fields.token,
            reply_to: fields.reply_to,
        }
    }
}

/// Answers a command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "ReplyFields")]
pub struct Reply {
    /// The command that is answered.
    pub command: CommandId,
    /// What became of it.
    #[serde(flatten)]
    pub result: TaskResult,
    /// Whether this completes a step that waits for a token. A worker's own answer to such a command
    /// is not one: it says that the request was passed on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub callback: bool,
    /// Who answers, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub worker: String,
    /// How long what was asked for took, if the worker tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timing: Option<Timing>,
}

impl Reply {
    /// Whether a worker has answered its command with it: neither a sign of life, nor the answer of
    /// whoever holds a token, nor of a coordinator.
    #[must_use]
    pub fn is_of_worker(&self) -> bool {
        let is_signed = self.timing.is_some() || !self.worker.is_empty();
        is_signed && !self.callback && self.result != TaskResult::Heartbeat
    }
}

/// What a worker knows of the time that an attempt took.
///
/// With the time of the journal entry that asked for the command, and that of the reply's own, it
/// parts an attempt into its transition, its queueing and its run. All instants are the broker's and
/// the one duration is the worker's own, so no clocks of two machines are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// When the broker stored the command, in microseconds since the epoch.
    pub asked_at: Timestamp,
    /// How long the worker worked on it, in microseconds, by a clock of its own.
    pub ran_us: u64,
}

impl Body for Reply {
    const WHAT: &'static str = "reply";
}

/// A reply as it is read, for the reason of [`CommandFields`].
#[derive(Deserialize)]
struct ReplyFields {
    command: CommandId,
    status: ReplyStatus,
    #[serde(default)]
    output: Arc<Value>,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    cause: String,
    #[serde(default = "yes")]
    retryable: bool,
    #[serde(default)]
    callback: bool,
    #[serde(default)]
    worker: String,
    #[serde(default)]
    timing: Option<Timing>,
}

/// The tag of a [`TaskResult`].
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum ReplyStatus {
    Succeeded,
    Failed,
    Heartbeat,
}

impl TryFrom<ReplyFields> for Reply {
    type Error = &'static str;

    fn try_from(fields: ReplyFields) -> Result<Self, Self::Error> {
        let result = match fields.status {
            ReplyStatus::Succeeded => TaskResult::Succeeded {
                output: fields.output,
            },
            ReplyStatus::Failed => TaskResult::Failed {
                failure: Failure {
                    error: fields.error.ok_or("missing field `error`")?,
                    cause: fields.cause,
                },
                retryable: fields.retryable,
            },
            ReplyStatus::Heartbeat => TaskResult::Heartbeat,
        };
        Ok(Self {
            command: fields.command,
            result,
            callback: fields.callback,
            worker: fields.worker,
            timing: fields.timing,
        })
    }
}

/// What became of an attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub enum TaskResult {
    /// It was done.
    Succeeded {
        /// Its result: any JSON value.
        #[serde(default)]
        output: Arc<Value>,
    },
    /// It was not done, and will not be by this attempt.
    Failed {
        /// What happened.
        #[serde(flatten)]
        failure: Failure,
        /// Whether another attempt may succeed; if not, the step's Retry rules are passed over.
        #[serde(default = "yes")]
        retryable: bool,
    },
    /// It is still being worked on.
    Heartbeat,
}

fn yes() -> bool {
    true
}

/// The token with which somebody completes a step that waits for one.
///
/// Its text is `<partition>.<definition>.<key>.<task>.<command id>`, each part a subject token. It
/// names the step and proves nothing: who may publish replies is for the broker's permissions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallbackToken {
    /// The partition that the saga lives in.
    pub partition: PartitionId,
    /// The saga.
    pub saga: SagaAddress,
    /// The task that passed the request on.
    pub task: TaskName,
    /// The attempt that waits.
    pub command: CommandId,
}

impl fmt::Display for CallbackToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = token::encode(self.saga.key.as_str());
        let task = token::encode(self.task.as_str());
        let Self {
            partition,
            saga,
            command,
            ..
        } = self;
        write!(f, "{partition}.{}.{key}.{task}.{command}", saga.definition)
    }
}

impl FromStr for CallbackToken {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let parse = || {
            let parts: Vec<&str> = text.split('.').collect();
            let [partition, definition, key, task, command] = parts[..] else {
                return None;
            };
            let parsed = Self {
                partition: PartitionId(partition.parse().ok()?),
                saga: SagaAddress {
                    definition: definition.parse().ok()?,
                    key: token::decode(key).ok()?.parse().ok()?,
                },
                task: token::decode(task).ok()?.parse().ok()?,
                command: command.parse().ok()?,
            };
            // One token has one spelling.
            (parsed.to_string() == text).then_some(parsed)
        };
        parse().ok_or_else(|| IdError::Form {
            what: "callback token",
            text: text.to_owned(),
            expected: "<partition>.<definition>.<key>.<task>.<command id>",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        envelope::{DecodeError, decode, encode},
        id::{DefinitionName, JournalSeq, SagaKey},
    };
    use serde_json::json;

    fn command() -> Command {
        let saga = SagaAddress {
            definition: DefinitionName::new("order").unwrap(),
            key: SagaKey::new("o-1").unwrap(),
        };
        let run = RunId::derive(&saga, JournalSeq(1), Timestamp(1));
        let effect = run.effect(1);
        Command {
            command: effect.command(2),
            effect,
            attempt: 2,
            task: TaskName::new("charge-card").unwrap(),
            saga,
            run,
            partition: PartitionId(3),
            state: "ChargeCard".into(),
            direction: Direction::Undo,
            undoes: Some(run.effect(0)),
            input: Arc::new(json!({"amount": 12.5, "tags": ["a", null, true, -1]})),
            deadline: Timestamp(1_700_000_000_000_000),
            heartbeat_ms: Some(5_000),
            most_output: None,
            token: Some("t".into()),
            reply_to: "dirigent.journal.3.order.o-1.reply.charge-card".into(),
        }
    }

    #[test]
    fn a_command_survives_the_wire() {
        assert_eq!(decode::<Command>(&encode(&command())).unwrap(), command());
    }

    #[test]
    fn the_bytes_of_a_command_are_golden() {
        insta::assert_snapshot!(hex(&encode(&command())));
    }

    #[test]
    fn every_reply_survives_the_wire() {
        let results = [
            TaskResult::Succeeded {
                output: Arc::new(json!({"id": 7})),
            },
            TaskResult::Failed {
                failure: Failure::new("Declined", "no money"),
                retryable: false,
            },
            TaskResult::Heartbeat,
        ];
        for result in results {
            let reply = Reply {
                command: command().command,
                result,
                callback: true,
                worker: "w".into(),
                timing: None,
            };
            assert_eq!(decode::<Reply>(&encode(&reply)).unwrap(), reply);
        }
    }

    #[test]
    fn the_bytes_of_a_reply_are_golden() {
        let reply = Reply {
            command: command().command,
            result: TaskResult::Failed {
                failure: Failure::new("Declined", "no money"),
                retryable: false,
            },
            callback: false,
            worker: "w1".into(),
            timing: Some(Timing {
                asked_at: Timestamp(1_700_000_000_000_000),
                ran_us: 1_500,
            }),
        };
        insta::assert_snapshot!(hex(&encode(&reply)));
    }

    #[test]
    fn a_newer_version_is_refused_and_garbage_is_an_error() {
        let newer = rmp_serde::to_vec_named(&json!({"v": 2, "command": "x"})).unwrap();
        assert!(matches!(
            decode::<Reply>(&newer),
            Err(DecodeError::Version { found: 2, .. })
        ));
        for bytes in [&b""[..], b"\xc1", b"{}", b"\x81\xa1v\x01", &[0x91; 4000]] {
            assert!(matches!(
                decode::<Reply>(bytes),
                Err(DecodeError::Malformed { .. })
            ));
        }
    }

    #[test]
    fn a_token_survives_its_text_form_and_has_one_spelling() {
        let Command {
            partition,
            saga,
            task,
            command,
            ..
        } = command();
        let token = CallbackToken {
            partition,
            saga,
            task,
            command,
        };
        assert_eq!(token.to_string().parse(), Ok(token.clone()));
        for text in [
            String::new(),
            "a.b".into(),
            format!("0{token}"),
            format!("{token}.x"),
        ] {
            assert!(
                text.parse::<CallbackToken>().is_err(),
                "{text:?} was accepted"
            );
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes
            .chunks(32)
            .map(|row| {
                row.iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect::<String>()
            })
            .collect::<Vec<_>>()
            .join("\n")
    }
}
