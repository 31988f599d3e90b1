//! Starting sagas and showing them. What one saga did is found by folding its entries again.

use super::{Api, Caller, Refusal, limits, live};
use crate::{
    broker::{listing, publisher::Published},
    engine::{self, Saga},
    partition::messages,
};
use async_nats::jetstream::consumer::DeliverPolicy;
use dirigent_contracts::{
    api::{
        DescribeRequest, ErrorCode, HistoryAnswer, HistoryRequest, ListAnswer, ListRequest,
        SagaDescription, SagaSummary, StartAnswer, StartRequest,
    },
    id::{DefinitionDigest, DefinitionName, PartitionId, SagaAddress, SagaKey},
    journal::Start,
    outcome::SagaStatus,
    subject,
    time::Timestamp,
};
use futures::future::join_all;
use serde_json::Value;
use std::{collections::HashSet, sync::Arc, time::Duration};
use uuid::Uuid;

/// How long the owner of a partition may take to say which sagas are alive.
const OWNERS_TIME: Duration = Duration::from_secs(1);
/// How often the broker is asked for an entry that it must have, and after which pause.
const LOOKS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(100);
/// How many of the latest outcomes a list looks through.
const OUTCOMES_LOOKED_AT: u64 = 2_000;

impl Api {
    pub(super) async fn start(
        &self,
        request: StartRequest,
        caller: Caller,
    ) -> Result<StartAnswer, Refusal> {
        let StartRequest {
            definition,
            key,
            input,
            digest,
        } = request;
        let limits = self.broker.installation.limits();
        limits::check_payload(&limits, "the input", &input)?;
        let digest = match digest {
            Some(digest) => {
                let document = self
                    .definitions
                    .store()
                    .document(&definition, &digest)
                    .await?;
                document.map(|_| digest)
            }
            None => self.definitions.latest(&definition).await,
        };
        let digest = digest.ok_or_else(|| {
            Refusal::not_found(format!(
                "there is no such definition as '{definition}': deploy it first"
            ))
        })?;
        let key = match key {
            Some(key) => key,
            None => SagaKey::new(Uuid::now_v7().to_string())
                .map_err(|error| Refusal::new(ErrorCode::BadRequest, error.to_string()))?,
        };
        let partition = PartitionId::of(&key, self.broker.partitions);
        let saga = SagaAddress { definition, key };
        self.admit(partition, &saga.definition, &digest).await?;
        let entry = Start {
            digest,
            input: Arc::new(input),
            trigger: None,
            parent: None,
            part: None,
            limits: limits.saga,
        };
        let message_id = caller
            .message_id
            .unwrap_or_else(|| Uuid::now_v7().to_string());
        let entry = messages::start(partition, &saga, entry, message_id.clone(), caller.trace);
        let subject = entry.subject().to_owned();
        let started = match self.broker.publisher.publish(entry).await {
            Published::Stored { .. } => true,
            Published::AlreadyExists => self.is_first(&subject, &message_id).await?,
            Published::Refused(reason) | Published::Full(reason) => {
                return Err(Refusal::new(ErrorCode::TooLarge, reason));
            }
        };
        Ok(StartAnswer {
            saga,
            partition,
            started,
        })
    }

    /// Refuses a saga that may not begin now. Nothing has happened then.
    async fn admit(
        &self,
        partition: PartitionId,
        definition: &DefinitionName,
        digest: &DefinitionDigest,
    ) -> Result<(), Refusal> {
        let program = self.definitions.program(definition, digest).await;
        let consumers = program.as_ref().map_or(&[][..], |it| it.consumers());
        Ok(self.admission.admit(partition, consumers)?)
    }

    /// Whether the start that stands where another was to stand is that very one: the acknowledgement
    /// of a publish may be lost, and its repetition finds what the first had stored.
    async fn is_first(&self, subject: &str, message_id: &str) -> Result<bool, Refusal> {
        for _ in 0..LOOKS {
            if let Some(first) = self.broker.snapshots.first_of_subject(subject).await? {
                return Ok(first.message_id.as_deref() == Some(message_id));
            }
            // There is one: a server that does not know it yet is asked again.
            tokio::time::sleep(PAUSE).await;
        }
        Ok(false)
    }

    pub(super) async fn describe(
        &self,
        request: DescribeRequest,
    ) -> Result<SagaDescription, Refusal> {
        let saga = self.state(&request.saga).await?;
        let digest = saga.run().map(engine::Run::digest);
        let program = match digest {
            Some(digest) => {
                self.definitions
                    .program(&request.saga.definition, digest)
                    .await
            }
            None => None,
        };
        engine::description::describe(&saga, program.as_deref())
            .ok_or_else(|| unknown(&request.saga))
    }

    pub(super) async fn history(&self, request: HistoryRequest) -> Result<HistoryAnswer, Refusal> {
        let address = &request.saga;
        let partition = PartitionId::of(&address.key, self.broker.partitions);
        match self.refold.history(partition, address).await? {
            (Some(saga), events) if saga.run().is_some() => Ok(HistoryAnswer { events }),
            _ => Err(unknown(address)),
        }
    }

    /// The state of a saga that has started.
    pub(super) async fn state(&self, address: &SagaAddress) -> Result<Saga, Refusal> {
        let partition = PartitionId::of(&address.key, self.broker.partitions);
        let state = self.refold.state(partition, address).await?;
        let started = state.filter(|saga| saga.run().is_some());
        started.ok_or_else(|| unknown(address))
    }

    pub(super) async fn list(&self, request: ListRequest) -> Result<ListAnswer, Refusal> {
        let question = serde_json::to_vec(&request)
            .map_err(|error| Refusal::new(ErrorCode::BadRequest, error.to_string()))?;
        let owners = (0..self.broker.partitions)
            .map(PartitionId)
            .map(|partition| {
                let asked = self
                    .broker
                    .client
                    .request(live::subject(partition), question.clone().into());
                async move {
                    let answer = tokio::time::timeout(OWNERS_TIME, asked).await.ok()?.ok()?;
                    serde_json::from_slice::<Vec<SagaSummary>>(&answer.payload).ok()
                }
            });
        let mut silent = Vec::new();
        let mut alive = Vec::new();
        for (answer, partition) in join_all(owners).await.into_iter().zip(0..) {
            match answer {
                Some(sagas) => alive.extend(sagas),
                None => silent.push(PartitionId(partition)),
            }
        }
        let wants_ended =
            request.status.is_empty() || request.status.iter().any(|s| s.is_terminal());
        let mut sagas = if wants_ended {
            self.ended(&request).await?
        } else {
            Vec::new()
        };
        // Who has ended since the owner answered stands in both: the outcome counts.
        let known: HashSet<SagaAddress> = sagas.iter().map(|saga| saga.saga.clone()).collect();
        sagas.extend(alive.into_iter().filter(|saga| !known.contains(&saga.saga)));
        live::sort(&mut sagas);
        let most = live::limit(&request);
        let more = sagas.len() > most;
        sagas.truncate(most);
        Ok(ListAnswer {
            sagas,
            more,
            silent,
        })
    }

    /// The sagas that ended lately.
    async fn ended(&self, request: &ListRequest) -> Result<Vec<SagaSummary>, Refusal> {
        let context = &self.broker.context;
        let stream = context.get_stream(subject::EVENTS_STREAM).await;
        let stream =
            stream.map_err(|error| Refusal::new(ErrorCode::Unavailable, error.to_string()))?;
        let last = stream.cached_info().state.last_sequence;
        let start_sequence = last.saturating_sub(OUTCOMES_LOOKED_AT) + 1;
        let filter = match &request.definition {
            Some(definition) => format!("dirigent.event.{definition}.>"),
            None => "dirigent.event.>".to_owned(),
        };
        let from = DeliverPolicy::ByStartSequence { start_sequence };
        let messages = listing::read(context, subject::EVENTS_STREAM, &filter, from).await?;
        let sagas = messages.iter().filter_map(|message| {
            let (saga, what) = subject::parse_event(&message.subject).ok()?;
            let status = SagaStatus::from_word(what).filter(|status| status.is_terminal())?;
            let body: Value = serde_json::from_slice(&message.body).ok()?;
            let started_at = body["data"]["started_at"].as_str();
            let failure = &body["data"]["failure"];
            let detail = match (failure["error"].as_str(), failure["cause"].as_str()) {
                (Some(error), Some(cause)) => format!("{error}: {cause}"),
                (Some(error), None) => error.to_owned(),
                _ => String::new(),
            };
            let updated_at = crate::broker::journal::timestamp(message.at);
            let started_at = started_at.and_then(Timestamp::parse_rfc3339);
            Some(SagaSummary {
                saga,
                status,
                started_at,
                updated_at,
                detail,
            })
        });
        Ok(sagas
            .filter(|saga| live::is_wanted(request, &saga.saga.definition, saga.status))
            .collect())
    }
}

pub(super) fn unknown(address: &SagaAddress) -> Refusal {
    Refusal::not_found(format!("there is no saga {address}"))
}
