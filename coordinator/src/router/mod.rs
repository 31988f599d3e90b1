//! The router: trigger events become starts, awaited events become entries of the sagas they are for.
//!
//! Every subject that a definition listens to is kept by a stream, an existing one or ours, and read
//! through durable consumers that all coordinators share: one for the events that start sagas, and one for
//! those that sagas await. An event is acknowledged only when all that follows from it is stored; what
//! cannot be understood is kept as a dead letter. While new sagas have to wait, the events that start
//! them are held, and when enough are held no more are read: they wait in their stream.

mod capture;
mod listener;
mod poison;
mod routing;
pub(crate) mod rule;

pub(crate) use routing::{Place, event_entry, follow};

use crate::{
    admission::Admission,
    broker::{Broker, BrokerError, letters::DeadLetter, publisher::Published},
    containment::contain,
    definitions::Definitions,
    logs::Payload,
    settings::Settings,
};
use async_nats::jetstream::{self, AckKind};
use capture::Captures;
use dirigent_contracts::{
    event::Event,
    id::PartitionId,
    letter::{self, Letter},
    limits::{Limit, Limits},
};
use futures::future::join_all;
use routing::Following;
use rule::{Feed, Owned, Wishes};
use std::{
    sync::{Arc, RwLock},
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// How often an event that nobody seems to listen to is given back before it is a dead letter: its
/// definition may have been deployed through another coordinator a moment ago.
const UNHEARD_DELIVERIES: i64 = 10;

/// How often an event that is held looks whether its sagas may begin.
const HOLD_INTERVAL: Duration = Duration::from_millis(100);

/// Routes events. Clones share one set of rules.
#[derive(Clone, Debug)]
pub(crate) struct Router {
    broker: Arc<Broker>,
    definitions: Definitions,
    captures: Captures,
    admission: Admission,
    rules: Arc<RwLock<Arc<Rules>>>,
    /// One reading of the rules at a time: an earlier one must not replace a later one.
    refreshing: Arc<tokio::sync::Mutex<()>>,
}

/// The rules of all definitions.
#[derive(Debug, Default)]
struct Rules {
    /// Of which generation of the definitions they are.
    generation: u64,
    owned: Vec<Owned>,
}

impl Router {
    pub(crate) fn new(
        broker: Arc<Broker>,
        definitions: Definitions,
        admission: Admission,
        settings: Arc<Settings>,
    ) -> Self {
        let captures = Captures::new(broker.context.clone(), settings);
        Self {
            broker,
            definitions,
            captures,
            admission,
            rules: Arc::default(),
            refreshing: Arc::default(),
        }
    }

    /// Refuses a definition some of whose events nobody would keep.
    pub(crate) async fn check(&self, wishes: &Wishes) -> Result<(), BrokerError> {
        for (subject, feed) in wishes.subjects() {
            self.captures.check(subject, feed).await?;
        }
        Ok(())
    }

    /// Makes sure that the events of a definition are kept and listened to.
    pub(crate) async fn prepare(&self, wishes: &Wishes) -> Result<(), BrokerError> {
        for (subject, feed) in wishes.subjects() {
            self.captures.ensure(subject, feed).await?;
        }
        Ok(())
    }

    /// Routes until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut changes = self.definitions.store().changes();
        let poisoned = tokio::spawn(poison::listen(
            self.broker.clone(),
            self.captures.clone(),
            stop.clone(),
        ));
        let mut listeners = listener::Listeners::default();
        loop {
            changes.mark_unchanged();
            for stream in listeners.gone() {
                self.captures.forget(&stream);
            }
            let refreshed = self.refresh().await;
            if let Err(error) = &refreshed {
                tracing::warn!(%error, "the routing rules cannot be read anew; trying on");
                changes.mark_changed();
                tokio::time::sleep(listener::REST).await;
            }
            // Whoever does not know all the rules takes no events away from those who do.
            let listened = refreshed.map_or_else(|_| Vec::new(), |()| self.captures.listened());
            for (stream, feed) in listened {
                let (router, stopped) = (self.clone(), stop.clone());
                let route = move |message| {
                    let (router, stopped) = (router.clone(), stopped.clone());
                    async move { router.route(message, feed, &stopped).await }
                };
                listeners.ensure(&self.broker.context, (stream, feed), &stop, route);
            }
            tokio::select! {
                () = stop.cancelled() => break,
                changed = changes.changed() => if changed.is_err() { break },
                // A definition that was being prepared elsewhere, or a consumer that was deleted.
                () = tokio::time::sleep(listener::LOOK_INTERVAL) => {}
            }
        }
        listeners.ended().await;
        if let Err(error) = poisoned.await {
            tracing::error!(%error, "listening for poison commands broke off");
        }
    }

    /// Reads the rules of all definitions, and makes sure that their events are listened to.
    pub(crate) async fn refresh(&self) -> Result<(), BrokerError> {
        let _one_at_a_time = self.refreshing.lock().await;
        let known = self.rules();
        let generation = self.definitions.store().generation();
        let mut rules = Vec::new();
        for deployed in self.definitions.store().list() {
            let old = known
                .owned
                .iter()
                .find(|owned| owned.digest == deployed.digest);
            let wishes = match old {
                Some(owned) => Some(Arc::clone(&owned.wishes)),
                None => {
                    self.definitions
                        .wishes(&deployed.name, &deployed.digest)
                        .await
                }
            };
            let Some(wishes) = wishes else { continue };
            self.prepare(&wishes).await?;
            let (definition, digest) = (deployed.name, deployed.digest);
            rules.push(Owned {
                definition,
                digest,
                wishes,
            });
        }
        if let Ok(mut current) = self.rules.write() {
            *current = Arc::new(Rules {
                generation,
                owned: rules,
            });
        }
        Ok(())
    }

    fn rules(&self) -> Arc<Rules> {
        let rules = self.rules.read();
        rules.map(|rules| Arc::clone(&rules)).unwrap_or_default()
    }

    /// Does what follows from one event; true when all of it is stored.
    async fn route(
        &self,
        message: jetstream::Message,
        feed: Feed,
        stop: &CancellationToken,
    ) -> bool {
        let Ok(info) = message.info() else {
            return true;
        };
        let rules = self.rules();
        // A definition whose rules are not read yet may listen to it too.
        if rules.generation != self.definitions.store().generation() {
            return false;
        }
        let rules = &rules.owned;
        let source = format!("{}/{}", info.stream, info.stream_sequence);
        let headers = headers(&message);
        let limits = self.broker.installation.limits();
        let event = match read(&message, &headers, &limits) {
            Ok(event) => event,
            Err(reason) => return self.keep_dead(&message, &source, &reason).await,
        };
        if !routing::is_listened_to(rules, &event) && info.delivered < UNHEARD_DELIVERIES {
            return false;
        }
        let at = info.published.unix_timestamp_nanos() / 1_000;
        let at = i64::try_from(at).unwrap_or(i64::MAX);
        let place = Place {
            source: &source,
            at,
            sequence: info.stream_sequence,
        };
        let partitions = self.broker.partitions;
        let followed = contain(|| follow(rules, feed, &event, place, partitions, limits.saga));
        let (entries, mut reasons) = followed.unwrap_or_else(|why| {
            let reason = format!("this build cannot evaluate its rules: {why}");
            (Vec::new(), vec![reason])
        });
        let (starts, others): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(|it| it.start.is_some());
        reasons.extend(self.store(others).await);
        if !starts.is_empty() {
            if !self.hold(&message, &starts, stop).await {
                return false;
            }
            reasons.extend(self.store(starts).await);
        }
        if reasons.is_empty() {
            return true;
        }
        self.keep_dead(&message, &source, &reasons.join("; ")).await
    }

    /// Publishes what follows from an event. Gives why some of it will never be stored.
    async fn store(&self, entries: Vec<Following>) -> Vec<String> {
        let publisher = &self.broker.publisher;
        let published = entries.into_iter().map(|it| publisher.publish(it.entry));
        let published = join_all(published).await.into_iter();
        let reasons = published.filter_map(|published| match published {
            Published::Stored { .. } | Published::AlreadyExists => None,
            Published::Refused(reason) | Published::Full(reason) => Some(reason),
        });
        reasons.collect()
    }

    /// Holds an event until the sagas may begin that it starts. False if it is to be given back instead.
    async fn hold(
        &self,
        message: &jetstream::Message,
        starts: &[Following],
        stop: &CancellationToken,
    ) -> bool {
        let mut said = Instant::now();
        loop {
            let mut places = starts.iter().filter_map(|it| it.start.as_ref());
            let may_begin = |(partition, wishes): &(PartitionId, Arc<Wishes>)| {
                self.admission.admit(*partition, &wishes.consumers).is_ok()
            };
            if places.all(may_begin) {
                return true;
            }
            tokio::select! {
                () = stop.cancelled() => return false,
                () = tokio::time::sleep(HOLD_INTERVAL) => {}
            }
            if said.elapsed() > capture::ACK_WAIT / 3 {
                said = Instant::now();
                if let Err(error) = message.ack_with(AckKind::Progress).await {
                    tracing::debug!(%error, "the broker did not hear that an event is held");
                }
            }
        }
    }

    /// Keeps what cannot be understood, with its body and headers, so that it can be replayed.
    async fn keep_dead(&self, message: &jetstream::Message, source: &str, reason: &str) -> bool {
        tracing::warn!(
            subject = %message.subject,
            source,
            reason = %Payload(self.broker.log_payloads, reason),
            "an event is a dead letter"
        );
        let mut headers = headers(message);
        headers.retain(|(name, _)| letter::is_of_message(name));
        let letter = DeadLetter {
            kind: "event",
            id: format!("dead.{source}"),
            letter: Letter {
                subject: &message.subject,
                source,
                reason,
            },
            headers,
            body: message.payload.to_vec(),
        };
        let is_kept = letter.keep(&self.broker.publisher).await;
        if is_kept {
            self.broker.metrics.dead_letter("event");
        }
        is_kept
    }
}

/// Reads an event that is within the limits.
fn read(
    message: &jetstream::Message,
    headers: &[(String, String)],
    limits: &Limits,
) -> Result<Event, String> {
    let size = message.payload.len() as u64;
    let checked = limits.check(Limit::Payload, "the event", size);
    checked.map_err(|error| error.to_string())?;
    let event = Event::parse(&message.subject, headers, &message.payload);
    event.map_err(|error| error.to_string())
}

/// All headers of a message. Those of dead letters are left behind when one is replayed.
fn headers(message: &jetstream::Message) -> Vec<(String, String)> {
    let Some(headers) = &message.headers else {
        return Vec::new();
    };
    headers
        .iter()
        .filter(|(name, _)| !letter::is_of_letter(name.as_ref()))
        .filter_map(|(name, values)| {
            let value = values.last()?;
            Some((name.to_string(), value.as_str().to_owned()))
        })
        .collect()
}
