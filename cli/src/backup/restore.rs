//! Putting a backup back into a broker that has no installation: whole or not at all.

use super::{
    Copied,
    archive::Archive,
    broker::{Broker, Told},
    bucket,
    manifest::{Form, Part, Reader},
    now,
};
use crate::{connection::Connection, trouble::Trouble};
use dirigent_contracts::{api::StatusRequest, time::Timestamp};
use serde::Serialize;
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// The shortest time for which a broker recognises message ids.
const SHORTEST_WINDOW: Duration = Duration::from_millis(100);

/// What a restore tells.
#[derive(Debug, Serialize)]
pub(crate) struct Restored {
    /// The archive.
    pub(crate) file: PathBuf,
    /// What was acknowledged before is there again.
    pub(crate) began: Timestamp,
    pub(crate) parts: Vec<Copied>,
    /// By how much messages live longer than their stream said, in seconds: as old as the backup is.
    pub(crate) longer_kept_s: u64,
}

/// Puts a backup back. `replicas`: how many servers are to keep each stream; as many as did before if
/// it is not said.
pub(crate) async fn restore(
    connection: &Connection,
    path: &Path,
    replicas: Option<u8>,
) -> Result<Restored, Trouble> {
    let archive = Archive::open(path)?;
    let broker = Broker::new(connection.client.clone());
    let there = broker.streams().await?;
    let in_the_way: Vec<String> = archive
        .manifest
        .parts
        .iter()
        .map(|part| part.stream.clone())
        .filter(|stream| there.contains(stream))
        .collect();
    if !in_the_way.is_empty() {
        return Err(Trouble::NotEmpty {
            url: connection.url.clone(),
            streams: in_the_way.join(", "),
        });
    }
    nobody_conducts(connection).await?;
    let age = now().since(archive.manifest.began);
    let change = Change { age, replicas };
    let mut made = Vec::new();
    let result = tokio::select! {
        result = put_back(&broker, &archive, change, &mut made) => match result {
            Ok(()) => nobody_conducts(connection).await,
            Err(trouble) => Err(trouble),
        },
        _ = tokio::signal::ctrl_c() => Err(Trouble::NotCopied {
            what: path.display().to_string(),
            reason: "interrupted".to_owned(),
        }),
    };
    if let Err(trouble) = result {
        let mut left = Vec::new();
        for Copied { stream, .. } in made {
            let removed: Result<Value, _> = broker
                .ask(&format!("STREAM.DELETE.{stream}"), &json!({}))
                .await;
            if removed.is_err() {
                left.push(stream);
            }
        }
        return Err(Trouble::NotRestored {
            reason: trouble.to_string(),
            left: left.join(", "),
        });
    }
    Ok(Restored {
        file: path.to_owned(),
        began: archive.manifest.began,
        parts: made,
        longer_kept_s: age.as_secs(),
    })
}

/// A coordinator that lived through the loss of its broker knows more than the backup does, and would
/// pass over what comes now.
async fn nobody_conducts(connection: &Connection) -> Result<(), Trouble> {
    match connection.ask(&StatusRequest {}).await {
        Err(Trouble::NoCoordinator { .. }) => Ok(()),
        Ok(_) | Err(_) => Err(Trouble::Conducted {
            url: connection.url.clone(),
        }),
    }
}

/// What is changed in the configuration of streams.
#[derive(Clone, Copy, Debug)]
struct Change {
    /// How old the backup is.
    age: Duration,
    replicas: Option<u8>,
}

impl Change {
    /// The configuration that a part gets.
    fn of(self, part: &Part) -> Value {
        let mut config = part.config.clone();
        if let Some(replicas) = self.replicas {
            config["num_replicas"] = json!(replicas);
        }
        // Messages keep their timestamps: without this the broker would drop them for the time that
        // they have spent in the archive. Keys of buckets are written anew.
        if part.form == Form::Stream
            && let Some(max_age) = config["max_age"].as_u64().filter(|max_age| *max_age > 0)
        {
            config["max_age"] = json!(max_age.saturating_add(nanos(self.age)));
        }
        config
    }
}

async fn put_back(
    broker: &Broker,
    archive: &Archive,
    change: Change,
    made: &mut Vec<Copied>,
) -> Result<(), Trouble> {
    for part in &archive.manifest.parts {
        let stream = &part.stream;
        let config = change.of(part);
        match part.form {
            Form::Stream => {
                let mut first = config.clone();
                if part.cut.is_some() {
                    // What is cut off is published again under its id, and must not be recognised.
                    first["duplicate_window"] = json!(nanos(SHORTEST_WINDOW));
                }
                let told = broker.copy_in(archive, part, &first).await?;
                made.push(Copied {
                    stream: stream.clone(),
                    messages: 0,
                    bytes: part.bytes,
                });
                is_whole(part, &told)?;
                if let Some(cut) = &part.cut {
                    let end = told.last_sequence();
                    broker.remove(stream, cut.beyond(end)).await?;
                    let subject = format!("STREAM.UPDATE.{stream}");
                    broker.ask::<Value>(&subject, &config).await?;
                }
            }
            Form::Bucket => {
                let subject = format!("STREAM.CREATE.{stream}");
                broker.ask::<Value>(&subject, &config).await?;
                made.push(Copied {
                    stream: stream.clone(),
                    messages: 0,
                    bytes: part.bytes,
                });
                bucket::copy_in(broker, archive, part).await?;
            }
        }
        for reader in &part.consumers {
            let config = reader_config(reader, &part.config);
            let name = config["durable_name"].as_str().unwrap_or_default();
            let subject = format!("CONSUMER.DURABLE.CREATE.{stream}.{name}");
            let request = json!({ "stream_name": stream, "config": config });
            broker.ask::<Value>(&subject, &request).await?;
        }
        let told = broker.stream(stream).await?;
        if let Some(last) = made.last_mut() {
            last.messages = told.state["messages"].as_u64().unwrap_or_default();
        }
    }
    Ok(())
}

/// A copy that lacks what was there when it began is none.
fn is_whole(part: &Part, told: &Told) -> Result<(), Trouble> {
    let expected = part.state["last_seq"].as_u64().unwrap_or_default();
    let expected = expected.max(part.cut.as_ref().map_or(0, |cut| cut.last));
    if told.last_sequence() >= expected {
        return Ok(());
    }
    Err(Trouble::NotCopied {
        what: part.stream.clone(),
        reason: format!(
            "it ends at {}, and had {expected} messages when it was copied",
            told.last_sequence()
        ),
    })
}

/// A consumer begins behind what was acknowledged. That of a work queue sees what is left.
fn reader_config(reader: &Reader, stream: &Value) -> Value {
    let mut config = reader.config.clone();
    if stream["retention"] != "workqueue" {
        config["deliver_policy"] = json!("by_start_sequence");
        config["opt_start_seq"] = json!(reader.floor + 1);
        if let Some(config) = config.as_object_mut() {
            config.remove("opt_start_time");
        }
    }
    config
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(form: Form, config: Value) -> Part {
        Part {
            stream: "S".to_owned(),
            data: "S~1".to_owned(),
            form,
            config,
            state: json!({ "last_seq": 10 }),
            consumers: Vec::new(),
            cut: None,
            bytes: 0,
            sha256: String::new(),
        }
    }

    #[test]
    fn messages_live_longer_by_the_age_of_the_backup() {
        let change = Change {
            age: Duration::from_nanos(5),
            replicas: None,
        };
        let config = json!({ "max_age": 100, "num_replicas": 3 });
        let changed = change.of(&part(Form::Stream, config.clone()));
        assert_eq!(changed, json!({ "max_age": 105, "num_replicas": 3 }));
        assert_eq!(change.of(&part(Form::Bucket, config.clone())), config);
        let forever = json!({ "max_age": 0, "num_replicas": 3 });
        assert_eq!(change.of(&part(Form::Stream, forever.clone())), forever);
        let single = Change {
            replicas: Some(1),
            ..change
        };
        assert_eq!(
            single.of(&part(Form::Bucket, config))["num_replicas"],
            json!(1)
        );
    }

    #[test]
    fn a_consumer_goes_on_behind_what_was_acknowledged() {
        let reader = Reader {
            config: json!({ "durable_name": "r", "deliver_policy": "new" }),
            floor: 41,
        };
        let config = reader_config(&reader, &json!({ "retention": "limits" }));
        assert_eq!(config["deliver_policy"], "by_start_sequence");
        assert_eq!(config["opt_start_seq"], 42);
        let config = reader_config(&reader, &json!({ "retention": "workqueue" }));
        assert_eq!(config, reader.config);
    }

    #[test]
    fn a_copy_that_ends_too_early_is_refused() {
        let told = |last: u64| Told {
            config: Value::Null,
            state: json!({ "last_seq": last }),
        };
        let part = part(Form::Stream, Value::Null);
        assert!(is_whole(&part, &told(10)).is_ok());
        assert!(is_whole(&part, &told(9)).is_err());
    }
}
