//! `backup` and `restore`: an installation in one file, taken while it runs.
//!
//! What must hold: a backup is the installation as it stood at one moment (the cut), so that a restored
//! one goes on from there; a restore is whole or nothing.

mod archive;
mod broker;
mod bucket;
mod cut;
mod manifest;
mod order;
mod restore;

pub(crate) use restore::{Restored, restore};

use crate::{connection::Connection, trouble::Trouble};
use archive::Writer;
use broker::Broker;
use dirigent_contracts::{subject, time::Timestamp};
use manifest::{FORMAT, Form, Manifest, Part};
use order::Role;
use serde::Serialize;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// How often the copy of a stream is begun: the broker breaks off when a block of messages goes that
/// it was about to copy, as those of done commands do.
const TRIES: u32 = 5;

/// What a backup tells.
#[derive(Debug, Serialize)]
pub(crate) struct BackedUp {
    /// The archive.
    pub(crate) file: PathBuf,
    /// What was acknowledged before is in it.
    pub(crate) began: Timestamp,
    /// When it was whole.
    pub(crate) ended: Timestamp,
    pub(crate) parts: Vec<Copied>,
    /// Streams whose events trigger sagas, but that are not Dirigent's to copy.
    pub(crate) left_to_you: Vec<String>,
}

/// One stream or bucket in a backup, or put back from one.
#[derive(Debug, Serialize)]
pub(crate) struct Copied {
    pub(crate) stream: String,
    /// Messages that the broker had when the copy began, or has after a restore.
    pub(crate) messages: u64,
    /// Size of the data in the archive.
    pub(crate) bytes: u64,
}

/// Copies the installation into a file.
pub(crate) async fn backup(connection: &Connection, path: &Path) -> Result<BackedUp, Trouble> {
    let broker = Broker::new(connection.client.clone());
    let mut writer = Writer::create(path)?;
    let began = now();
    let streams = broker.streams().await?;
    let ours = order::ours(&streams);
    if !streams.contains(&format!("KV_{}", subject::PARTITIONS_BUCKET)) {
        return Err(Trouble::NoInstallation {
            url: connection.url.clone(),
        });
    }
    // How far events were routed, before anything that follows from them is copied.
    let mut readers = BTreeMap::new();
    for (_, stream) in &ours {
        readers.insert((*stream).clone(), broker.readers(stream).await?);
    }
    let left_to_you = left_to_you(&broker, &streams).await?;
    let mut cuts = None;
    let mut parts = Vec::new();
    for (role, stream) in &ours {
        let cut = if *role == Role::Journal {
            if cuts.is_none() {
                let journals = ours.iter().filter(|(role, _)| *role == Role::Journal);
                let journals: Vec<&String> = journals.map(|(_, stream)| *stream).collect();
                cuts = Some(cut::cut(&broker, &journals).await?);
            }
            cuts.as_mut().and_then(|cuts| cuts.remove(*stream))
        } else {
            None
        };
        let part = Part {
            consumers: readers.remove(*stream).unwrap_or_default(),
            cut,
            ..copy(&broker, &mut writer, stream).await?
        };
        parts.push(part);
    }
    let manifest = Manifest {
        format: FORMAT,
        dirigent: env!("CARGO_PKG_VERSION").to_owned(),
        server: connection.client.server_info().version,
        began,
        ended: now(),
        parts,
    };
    writer.finish(&manifest)?;
    Ok(BackedUp {
        file: path.to_owned(),
        began,
        ended: manifest.ended,
        parts: manifest.parts.iter().map(copied).collect(),
        left_to_you,
    })
}

/// Copies one stream or bucket.
async fn copy(broker: &Broker, writer: &mut Writer, stream: &str) -> Result<Part, Trouble> {
    let form = order::form(stream);
    let mut tries = 1;
    loop {
        let data = format!("{stream}~{tries}");
        let mut part = writer.part(&data);
        let copied = match form {
            Form::Stream => broker.copy_out(stream, &mut part).await,
            Form::Bucket => match broker.stream(stream).await {
                Ok(told) => bucket::copy_out(broker, stream, &mut part)
                    .await
                    .map(|()| told),
                Err(trouble) => Err(trouble),
            },
        };
        let (bytes, sha256) = part.finish()?;
        match copied {
            Ok(told) => {
                return Ok(Part {
                    stream: stream.to_owned(),
                    data,
                    form,
                    config: told.config,
                    state: told.state,
                    consumers: Vec::new(),
                    cut: None,
                    bytes,
                    sha256,
                });
            }
            Err(Trouble::NotCopied { what, reason }) if tries < TRIES => {
                tracing::warn!(what, reason, "copied again");
                tries += 1;
            }
            Err(trouble) => return Err(trouble),
        }
    }
}

/// The streams of others that the router reads.
async fn left_to_you(broker: &Broker, streams: &[String]) -> Result<Vec<String>, Trouble> {
    let mut found = Vec::new();
    for stream in streams {
        if Role::of(stream).is_none() && stream != subject::ADVISORIES_STREAM {
            let readers = broker.readers(stream).await?;
            let is_router = |reader: &manifest::Reader| {
                let ours = [subject::ROUTER_CONSUMER, subject::AWAITED_CONSUMER];
                ours.iter()
                    .any(|name| reader.config["durable_name"] == *name)
            };
            if readers.iter().any(is_router) {
                found.push(stream.clone());
            }
        }
    }
    Ok(found)
}

fn copied(part: &Part) -> Copied {
    Copied {
        stream: part.stream.clone(),
        messages: part.state["messages"].as_u64().unwrap_or_default(),
        bytes: part.bytes,
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Timestamp(since.map_or(0, |since| {
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    }))
}
