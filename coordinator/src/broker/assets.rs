//! The streams, buckets and consumers that Dirigent stands on: created where they are missing,
//! checked where they are there.

use super::{BrokerError, installation::Installation, snapshots::REMOVAL_MARKER};
use crate::settings::Settings;
use async_nats::{
    Client,
    jetstream::{
        Context, ErrorCode,
        consumer::{AckPolicy, pull},
        context::{AccountErrorKind, CreateStreamErrorKind, GetStreamErrorKind, KeyValueErrorKind},
        kv::{self, Store},
        object_store,
        stream::{self, Config, DiscardPolicy, RetentionPolicy, StorageType},
    },
};
use dirigent_contracts::{
    consumer::CommandConsumer,
    id::{PartitionId, TaskName},
    subject,
};
use std::time::Duration;

/// The oldest server that will do: message TTLs (2.11), and what 2.12 mends in replicated streams.
const OLDEST_SERVER: &str = "2.12";
/// How long the broker recognises a message id.
const DUPLICATE_WINDOW: Duration = Duration::from_mins(2);
/// Most dead letters; the oldest go first.
const MOST_DEAD_LETTERS: i64 = 1_000_000;

/// What was found or created.
pub(super) struct Assets {
    pub(super) sagas: Store,
    pub(super) definitions: Store,
    pub(super) partitions_bucket: Store,
    pub(super) installation: Installation,
    pub(super) durability: String,
}

/// Checks the server, and makes sure of every stream and bucket.
pub(super) async fn prepare(
    client: &Client,
    context: &Context,
    settings: &Settings,
) -> Result<Assets, BrokerError> {
    if !is_new_enough(client) {
        let found = client.server_info().version;
        return Err(BrokerError::TooOld {
            found,
            needed: OLDEST_SERVER,
        });
    }
    match context.query_account().await {
        Ok(_) => {}
        Err(error) if lacks_jetstream(&error.kind()) => {
            return Err(BrokerError::NoJetStream {
                reason: error.to_string(),
            });
        }
        // It is there, and between two leaders, say.
        Err(error) => return Err(BrokerError::request("JetStream".to_owned(), &error)),
    }
    let buckets = tokio::try_join!(
        bucket(
            context,
            settings,
            subject::PARTITIONS_BUCKET,
            "Leases and members",
            Duration::ZERO,
        ),
        bucket(
            context,
            settings,
            subject::DEFINITIONS_BUCKET,
            "Definitions by name and version",
            Duration::ZERO,
        ),
        bucket(
            context,
            settings,
            subject::SAGAS_BUCKET,
            "Snapshots of live sagas",
            Duration::ZERO,
        ),
        bucket(
            context,
            settings,
            subject::INBOX_BUCKET,
            "What workers remember of effects",
            settings.retention_of_new(),
        ),
    );
    let (partitions_bucket, definitions, sagas, _) = buckets?;
    let installation = Installation::open(partitions_bucket.clone(), settings.partitions).await?;
    let streams = streams(installation.partitions(), settings);
    let ensured = streams
        .into_iter()
        .map(|config| ensure_stream(context, config));
    let found = futures::future::try_join_all(ensured).await?;
    check_retention(&found, settings.retention)?;
    payloads(context, settings, &found).await?;
    let replicas = found
        .iter()
        .map(|config| config.num_replicas)
        .min()
        .unwrap_or(1);
    Ok(Assets {
        sagas,
        definitions,
        partitions_bucket,
        installation,
        durability: durability(replicas),
    })
}

/// Whether the server is one that will do.
#[must_use]
pub fn is_new_enough(client: &Client) -> bool {
    client.is_server_compatible(2, 12, 0)
}

fn lacks_jetstream(error: &AccountErrorKind) -> bool {
    match error {
        AccountErrorKind::JetStreamUnavailable => true,
        AccountErrorKind::JetStream(error) => [
            ErrorCode::JETSTREAM_NOT_ENABLED,
            ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT,
        ]
        .contains(&error.error_code()),
        AccountErrorKind::TimedOut | AccountErrorKind::Other => false,
    }
}

/// The streams of an installation.
#[must_use]
pub fn streams(partitions: u16, settings: &Settings) -> Vec<Config> {
    let retention = settings.retention_of_new();
    let base = |name: String, filter: String, description: &str| Config {
        name,
        subjects: vec![filter],
        description: Some(description.to_owned()),
        num_replicas: settings.replicas,
        storage: StorageType::File,
        max_age: retention,
        duplicate_window: DUPLICATE_WINDOW.min(retention),
        allow_direct: true,
        // An operator's size limit must push back, never eat what nobody has read.
        discard: DiscardPolicy::New,
        ..Config::default()
    };
    let journals = (0..partitions).map(PartitionId).map(|partition| {
        base(
            subject::journal_stream(partition),
            subject::journal_filter(partition),
            "Journal of a partition: the only source of truth",
        )
    });
    let commands = Config {
        retention: RetentionPolicy::WorkQueue,
        // A saga waits for its command, however long no worker comes.
        max_age: Duration::ZERO,
        ..base(
            subject::COMMANDS_STREAM.to_owned(),
            "dirigent.command.>".to_owned(),
            "Commands to workers",
        )
    };
    let events = base(
        subject::EVENTS_STREAM.to_owned(),
        "dirigent.event.>".to_owned(),
        "Outcomes and incidents of sagas",
    );
    let dead_letters = Config {
        max_age: Duration::ZERO,
        max_messages: MOST_DEAD_LETTERS,
        discard: DiscardPolicy::Old,
        ..base(
            subject::DEAD_LETTERS_STREAM.to_owned(),
            "dirigent.dead.>".to_owned(),
            "What could not be understood",
        )
    };
    journals.chain([commands, events, dead_letters]).collect()
}

/// Creates a stream, or checks the one that is there. Gives its configuration.
async fn ensure_stream(context: &Context, wanted: Config) -> Result<Config, BrokerError> {
    let what = || format!("the stream {}", wanted.name);
    match context.get_stream(&wanted.name).await {
        Ok(stream) => {
            let found = stream.cached_info().config.clone();
            check(&found, &wanted)?;
            return Ok(found);
        }
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(error)
                if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {}
            _ => return Err(BrokerError::request(what(), &error)),
        },
    }
    match context.create_stream(wanted.clone()).await {
        Ok(stream) => Ok(stream.cached_info().config.clone()),
        // Another coordinator was faster, with other settings.
        Err(error) => match error.kind() {
            CreateStreamErrorKind::JetStream(code)
                if code.error_code() == ErrorCode::STREAM_NAME_EXIST =>
            {
                let stream = context.get_stream(&wanted.name).await;
                let stream = stream.map_err(|error| BrokerError::request(what(), &error))?;
                check(&stream.cached_info().config, &wanted)?;
                Ok(stream.cached_info().config.clone())
            }
            _ => Err(BrokerError::request(what(), &error)),
        },
    }
}

/// Creates a stream if there is none of that name; one that is there is left as it is.
pub(crate) async fn ensure_stream_exists(
    context: &Context,
    wanted: Config,
) -> Result<(), BrokerError> {
    let what = format!("the stream {}", wanted.name);
    let ensured = context.get_or_create_stream(wanted).await;
    ensured
        .map(drop)
        .map_err(|error| BrokerError::request(what, &error))
}

/// Whether a stream that is there will do.
///
/// # Errors
/// What is wrong with it, and what to do, as [`BrokerError::Unfit`].
pub fn check(found: &Config, wanted: &Config) -> Result<(), BrokerError> {
    let unfit = |problem: String, remedy: &str| {
        Err(BrokerError::Unfit {
            stream: found.name.clone(),
            problem,
            remedy: remedy.to_owned(),
        })
    };
    if found.storage != StorageType::File {
        return unfit(
            "it is kept in memory and would not survive a restart".to_owned(),
            "delete it, and it is created anew with file storage",
        );
    }
    if found.no_ack {
        return unfit(
            "it does not acknowledge".to_owned(),
            "edit it so that it does",
        );
    }
    if found.retention != wanted.retention {
        return unfit(
            format!(
                "its retention is {:?}, not {:?}",
                found.retention, wanted.retention
            ),
            "delete it when it is empty, and it is created anew",
        );
    }
    let missing = wanted
        .subjects
        .iter()
        .find(|subject| !found.subjects.contains(subject));
    if let Some(missing) = missing {
        return unfit(
            format!("it lacks the subject {missing}"),
            "add the subject to it",
        );
    }
    if found.num_replicas < wanted.num_replicas {
        return unfit(
            format!(
                "{} server(s) keep it, not {}",
                found.num_replicas, wanted.num_replicas
            ),
            "raise its replicas with `nats stream edit`, or ask for fewer",
        );
    }
    Ok(())
}

/// Whether journals and outcomes are kept as long as somebody asked for.
fn check_retention(found: &[Config], asked: Option<Duration>) -> Result<(), BrokerError> {
    let Some(asked) = asked else { return Ok(()) };
    let other = found
        .iter()
        .filter(|stream| is_journal(stream) || stream.name == subject::EVENTS_STREAM)
        .find(|stream| stream.max_age != asked);
    match other {
        None => Ok(()),
        Some(stream) => Err(BrokerError::Unfit {
            stream: stream.name.clone(),
            problem: format!("it keeps messages for {:?}, not {asked:?}", stream.max_age),
            remedy:
                "leave the setting out, or change this stream, and all others that it is for, with \
                     `nats stream edit --max-age`"
                    .to_owned(),
        }),
    }
}

/// How long a stream keeps its messages: [`Duration::MAX`] is for ever, which the broker calls zero.
fn kept_for(stream: &Config) -> Duration {
    match stream.max_age {
        Duration::ZERO => Duration::MAX,
        age => age,
    }
}

fn is_journal(stream: &Config) -> bool {
    let filter = "dirigent.journal.";
    stream.subjects.iter().any(|it| it.starts_with(filter))
}

/// A bucket, and how long its keys are kept if it is created; for ever if that is zero.
async fn bucket(
    context: &Context,
    settings: &Settings,
    name: &str,
    description: &str,
    max_age: Duration,
) -> Result<Store, BrokerError> {
    match context.get_key_value(name).await {
        Ok(store) => {
            let found = &store.stream.cached_info().config;
            let wanted = Config {
                num_replicas: settings.replicas,
                subjects: found.subjects.clone(),
                ..Config::default()
            };
            check(found, &wanted)?;
            return Ok(store);
        }
        Err(error) if error.kind() == KeyValueErrorKind::GetBucket => {}
        Err(error) => return Err(BrokerError::request(format!("the bucket {name}"), &error)),
    }
    let config = kv::Config {
        bucket: name.to_owned(),
        description: description.to_owned(),
        history: 1,
        max_age,
        storage: StorageType::File,
        num_replicas: settings.replicas,
        limit_markers: Some(REMOVAL_MARKER),
        ..kv::Config::default()
    };
    // Two coordinators that start together create the same, and both succeed.
    let created = context.create_key_value(config).await;
    created.map_err(|error| BrokerError::request(format!("the bucket {name}"), &error))
}

/// The bucket of bodies that are too large for a message. It keeps them for twice as long as journals keep the
/// entries that name them, so that one which is named anew shortly before its time lives on.
async fn payloads(
    context: &Context,
    settings: &Settings,
    streams: &[Config],
) -> Result<(), BrokerError> {
    let journals = streams.iter().filter(|stream| is_journal(stream));
    let needed = journals.map(kept_for).max().unwrap_or_default();
    let name = subject::PAYLOADS_BUCKET;
    let found = context.get_stream(format!("OBJ_{name}")).await;
    if let Ok(found) = found {
        let found = &found.cached_info().config;
        let wanted = Config {
            num_replicas: settings.replicas,
            subjects: found.subjects.clone(),
            ..Config::default()
        };
        if kept_for(found) < needed {
            let journals = match needed {
                Duration::MAX => "for ever".to_owned(),
                needed => format!("for {needed:?}"),
            };
            return Err(BrokerError::Unfit {
                stream: found.name.clone(),
                problem: format!(
                    "it forgets after {:?} what journals name {journals}",
                    found.max_age
                ),
                remedy: "raise it with `nats stream edit --max-age`, best to twice as long"
                    .to_owned(),
            });
        }
        return check(found, &wanted);
    }
    let config = object_store::Config {
        bucket: name.to_owned(),
        description: Some("Bodies that are too large for a message".to_owned()),
        max_age: needed.checked_mul(2).unwrap_or(Duration::ZERO),
        storage: StorageType::File,
        num_replicas: settings.replicas,
        ..object_store::Config::default()
    };
    // Two coordinators that start together create the same, and both succeed.
    let created = context.create_object_store(config).await;
    created
        .map(drop)
        .map_err(|error| BrokerError::request(format!("the bucket {name}"), &error))
}

/// What an acknowledged write survives. The server does not tell its `sync_interval`.
fn durability(replicas: usize) -> String {
    match replicas {
        0 | 1 => "one server keeps each message: an acknowledged write survives a crash of the \
                  process; the loss of power only with `sync_interval: always`; the loss of the disk \
                  not at all"
            .to_owned(),
        replicas => format!(
            "{replicas} servers keep each message: an acknowledged write survives the loss of {}; a \
             loss of power on all of them only with `sync_interval: always`",
            (replicas - 1) / 2
        ),
    }
}

/// Makes sure of the consumer that the workers of a task share. One that is there is left alone: an
/// operator may have changed it. Only the defaults, with which a worker creates it that comes first,
/// give way to what the settings say.
pub(crate) async fn ensure_command_consumer(
    context: &Context,
    task: &TaskName,
    settings: &Settings,
) -> Result<(), BrokerError> {
    let CommandConsumer {
        name,
        filter_subject,
        ack_wait,
        max_deliver,
        max_ack_pending,
        max_waiting,
    } = CommandConsumer::of(task);
    let failed = |error: &dyn std::error::Error| {
        BrokerError::request(format!("the consumer of task {task}"), error)
    };
    let stream = context.get_stream_no_info(subject::COMMANDS_STREAM).await;
    let stream: stream::Stream<()> = stream.map_err(|error| failed(&error))?;
    let config = pull::Config {
        durable_name: Some(name.clone()),
        filter_subject,
        ack_policy: AckPolicy::Explicit,
        ack_wait: settings.ack_wait,
        max_deliver: settings.max_deliveries,
        max_ack_pending,
        max_waiting,
        ..pull::Config::default()
    };
    let ensured = stream.get_or_create_consumer(&name, config).await;
    let ensured = ensured.map_err(|error| failed(&error))?;
    let found = &ensured.cached_info().config;
    let is_untouched = (found.ack_wait, found.max_deliver) == (ack_wait, max_deliver);
    let wanted = (settings.ack_wait, settings.max_deliveries);
    if is_untouched && wanted != (ack_wait, max_deliver) {
        let mut config = found.clone();
        (config.ack_wait, config.max_deliver) = wanted;
        let updated = stream.create_consumer(config).await;
        updated.map_err(|error| failed(&error))?;
    }
    Ok(())
}
