//! Which stream keeps the events of a subject, and the consumer that reads them there.
//!
//! A subject that no stream keeps is added to ours. One of which another's stream keeps a part cannot be, as
//! streams may not overlap: a definition that wishes it is refused when it is deployed. Filters of the
//! shared consumer only ever grow: an event that passes by while two coordinators disagree would be lost,
//! one too many is only a dead letter.

use super::rule::{Feed, matches, without_subsumed};
use crate::{
    broker::{BrokerError, assets},
    settings::Settings,
};
use async_nats::jetstream::{
    Context,
    consumer::{self, AckPolicy, DeliverPolicy, pull},
    context::ConsumerInfoErrorKind,
    stream::{Config, ConsumerCreateStrictErrorKind, DiscardPolicy, StorageType},
};
use dirigent_contracts::subject;
use futures::TryStreamExt;
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

/// How long an event may be worked on before another coordinator gets it.
pub(super) const ACK_WAIT: Duration = Duration::from_secs(30);
/// Events that may be worked on at a time, by all coordinators.
const MOST_PENDING: i64 = 10_000;
/// How often another coordinator may be faster before that is an error.
const TRIES: usize = 10;

/// A subject that some stream must keep, and for what it is read, if it is.
type Wish = (String, Option<Feed>);

/// A stream that keeps a subject, or a part of it.
struct Keeper {
    stream: String,
    /// Those of its subjects that overlap with it.
    subjects: Vec<String>,
    is_whole: bool,
}

/// The subjects that are kept, and where.
#[derive(Clone, Debug)]
pub(super) struct Captures {
    context: Context,
    settings: Arc<Settings>,
    /// Subjects that are known to be kept, and for what they are known to be read.
    known: Arc<Mutex<BTreeSet<Wish>>>,
    /// Streams with a consumer of ours.
    listened: Arc<Mutex<BTreeSet<(String, Feed)>>>,
    /// One change of a stream at a time.
    changing: Arc<tokio::sync::Mutex<()>>,
}

impl Captures {
    pub(super) fn new(context: Context, settings: Arc<Settings>) -> Self {
        Self {
            context,
            settings,
            known: Arc::default(),
            listened: Arc::default(),
            changing: Arc::default(),
        }
    }

    /// How many servers keep a stream that is created.
    pub(super) fn replicas(&self) -> usize {
        self.settings.replicas
    }

    /// The streams that are listened to, and for what.
    pub(super) fn listened(&self) -> Vec<(String, Feed)> {
        self.listened
            .lock()
            .map(|streams| streams.iter().cloned().collect())
            .unwrap_or_default()
    }

    /// Forgets what is known of a stream whose consumers are gone: what is kept where is looked for anew.
    pub(super) fn forget(&self, stream: &str) {
        if let Ok(mut listened) = self.listened.lock() {
            listened.retain(|(known, _)| known != stream);
        }
        if let Ok(mut known) = self.known.lock() {
            known.clear();
        }
    }

    /// Refuses a subject of which another's stream keeps only a part: the rest would be kept nowhere.
    pub(super) async fn check(&self, subject: &str, feed: Option<Feed>) -> Result<(), BrokerError> {
        if self.is_known(&(subject.to_owned(), feed)) {
            return Ok(());
        }
        let keepers = self.keeping(subject).await?;
        if keepers.iter().any(|keeper| keeper.is_whole) {
            return Ok(());
        }
        let other = keepers.into_iter().find(|keeper| !keeper.is_ours());
        let Some(Keeper {
            stream, subjects, ..
        }) = other
        else {
            return Ok(());
        };
        let subjects = subjects.join(", ");
        Err(BrokerError::Unfit {
            stream,
            problem: format!(
                "of {subject:?} it keeps only {subjects}, and nobody may keep the rest"
            ),
            remedy: format!("add {subject:?} to it in place of these, or listen to {subjects}"),
        })
    }

    /// Makes sure that a stream keeps the subject, and if it is listened to, that it is read.
    pub(super) async fn ensure(
        &self,
        subject: &str,
        feed: Option<Feed>,
    ) -> Result<(), BrokerError> {
        let _one_at_a_time = self.changing.lock().await;
        let wish = (subject.to_owned(), feed);
        if self.is_known(&wish) {
            return Ok(());
        }
        let streams = self.streams(subject).await?;
        if let Some(feed) = feed {
            for stream in streams {
                self.listen(&stream, subject, feed.consumer()).await?;
                // Former versions read everything with that one; what it has left must be heard.
                let has_former =
                    feed == Feed::Triggers || self.has_consumer(&stream, Feed::Triggers).await?;
                if let Ok(mut listened) = self.listened.lock() {
                    listened.extend(has_former.then(|| (stream.clone(), Feed::Triggers)));
                    listened.insert((stream, feed));
                }
            }
        }
        if let Ok(mut known) = self.known.lock() {
            known.insert(wish);
        }
        Ok(())
    }

    fn is_known(&self, wish: &Wish) -> bool {
        self.known.lock().is_ok_and(|known| known.contains(wish))
    }

    async fn has_consumer(&self, stream: &str, feed: Feed) -> Result<bool, BrokerError> {
        let failed = |error: &dyn std::error::Error| {
            BrokerError::request(format!("the consumers of {stream}"), error)
        };
        let handle = self.context.get_stream_no_info(stream).await;
        let handle = handle.map_err(|error| failed(&error))?;
        match handle.consumer_info(feed.consumer()).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ConsumerInfoErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed(&error)),
        }
    }

    /// The streams that keep the subject; ours, if there was none. Where another's stream keeps a part of it by
    /// now, that part is all that can be had.
    async fn streams(&self, subject: &str) -> Result<Vec<String>, BrokerError> {
        for _ in 0..TRIES {
            let found = self.keeping(subject).await?;
            let is_whole = found.iter().any(|keeper| keeper.is_whole);
            let other = found.iter().find(|keeper| !keeper.is_ours());
            if let Some(Keeper { stream, .. }) = other.filter(|_| !is_whole) {
                tracing::warn!(stream, subject, "only a part of the events is kept");
            }
            if is_whole || other.is_some() {
                return Ok(found.into_iter().map(|keeper| keeper.stream).collect());
            }
            self.keep(subject).await?;
        }
        Err(BrokerError::Unfit {
            stream: subject::INBOX_STREAM.to_owned(),
            problem: format!("it does not keep {subject:?}, though it was told to"),
            remedy: "look whether something else changes its subjects".to_owned(),
        })
    }

    async fn keeping(&self, subject: &str) -> Result<Vec<Keeper>, BrokerError> {
        let failed = |error: &dyn std::error::Error| {
            BrokerError::request(format!("the streams that keep {subject:?}"), error)
        };
        let mut found = Vec::new();
        let mut names = self.context.stream_names();
        while let Some(name) = names.try_next().await.map_err(|error| failed(&error))? {
            let stream = self
                .context
                .get_stream(&name)
                .await
                .map_err(|error| failed(&error))?;
            let mut subjects = stream.cached_info().config.subjects.clone();
            subjects.retain(|kept| matches(kept, subject) || matches(subject, kept));
            if !subjects.is_empty() {
                found.push(Keeper {
                    stream: name,
                    is_whole: subjects.iter().any(|kept| matches(kept, subject)),
                    subjects,
                });
            }
        }
        Ok(found)
    }

    /// Adds the subject to our own stream.
    async fn keep(&self, subject: &str) -> Result<(), BrokerError> {
        let failed = |error: &dyn std::error::Error| {
            BrokerError::request(
                format!("keeping events of {subject:?} in {}", subject::INBOX_STREAM),
                error,
            )
        };
        if let Ok(stream) = self.context.get_stream(subject::INBOX_STREAM).await {
            let mut config = stream.cached_info().config.clone();
            config.subjects.push(subject.to_owned());
            config.subjects = without_subsumed(config.subjects);
            self.context
                .update_stream(config)
                .await
                .map_err(|error| failed(&error))?;
        } else {
            let config = Config {
                name: subject::INBOX_STREAM.to_owned(),
                subjects: vec![subject.to_owned()],
                description: Some("Events that no other stream keeps".to_owned()),
                storage: StorageType::File,
                num_replicas: self.settings.replicas,
                max_age: self.settings.retention_of_new(),
                discard: DiscardPolicy::New,
                allow_direct: true,
                ..Config::default()
            };
            assets::ensure_stream_exists(&self.context, config).await?;
        }
        Ok(())
    }

    /// Makes sure that a consumer of ours on a stream delivers the subject.
    pub(super) async fn listen(
        &self,
        stream: &str,
        subject: &str,
        consumer: &str,
    ) -> Result<(), BrokerError> {
        let failed = |error: &dyn std::error::Error| {
            BrokerError::request(format!("listening to {subject:?} on {stream}"), error)
        };
        let handle = self
            .context
            .get_stream_no_info(stream)
            .await
            .map_err(|error| failed(&error))?;
        let new = pull::Config {
            durable_name: Some(consumer.to_owned()),
            description: Some("Starts and continues sagas".to_owned()),
            filter_subjects: vec![subject.to_owned()],
            // Events from now on; of those from before nobody knew what to do.
            deliver_policy: DeliverPolicy::New,
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            max_ack_pending: MOST_PENDING,
            ..pull::Config::default()
        };
        let mut tries = 0;
        loop {
            match handle.consumer_info(consumer).await {
                Ok(info) => {
                    if let Some(config) = with_filter(info.config, subject) {
                        let widened = handle.create_consumer(config).await;
                        widened.map_err(|error| failed(&error))?;
                    }
                    return Ok(());
                }
                Err(error) if error.kind() == ConsumerInfoErrorKind::NotFound => {}
                // What it listens to already is not known, and must not be forgotten.
                Err(error) => return Err(failed(&error)),
            }
            match handle.create_consumer_strict(new.clone()).await {
                Ok(_) => return Ok(()),
                // Another coordinator was faster, perhaps with another subject.
                Err(error)
                    if error.kind() == ConsumerCreateStrictErrorKind::AlreadyExists
                        && tries < TRIES =>
                {
                    tries += 1;
                }
                Err(error) => return Err(failed(&error)),
            }
        }
    }
}

impl Keeper {
    /// Whether it is the stream that is there for what no other one keeps.
    fn is_ours(&self) -> bool {
        self.stream == subject::INBOX_STREAM
    }
}

/// The configuration of a consumer that also delivers the subject, everything else as it is: where it
/// began cannot be changed, and is another place after a restore. `None` if it delivers it already.
fn with_filter(mut config: consumer::Config, subject: &str) -> Option<consumer::Config> {
    let mut filters = std::mem::take(&mut config.filter_subjects);
    let single = std::mem::take(&mut config.filter_subject);
    filters.extend(Some(single).filter(|filter| !filter.is_empty()));
    if filters.iter().any(|filter| matches(filter, subject)) {
        return None;
    }
    filters.push(subject.to_owned());
    config.filter_subjects = without_subsumed(filters);
    Some(config)
}
