//! Starting sagas and showing them.

use super::{Api, Caller, Refusal, limits, live};
use crate::{
    broker::{listing, publisher::Published},
    engine::{self, Saga},
    partition::messages,
};
use dirigent_contracts::{
    api::{
        DescribeRequest, ErrorCode, ListAnswer, ListRequest, SagaDescription, SagaSummary,
        StartAnswer, StartRequest,
    },
    id::{DefinitionDigest, DefinitionName, PartitionId, SagaAddress, SagaKey},
    journal::Start,
    limit,
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
/// Characters of an error that a list shows: a cause may be long, and the answer must fit into a message.
const DETAIL_CHARS: usize = 300;

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
        let digest = self.version(&definition, digest.as_ref()).await?;
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

    /// The state of a saga that has started.
    pub(super) async fn state(&self, address: &SagaAddress) -> Result<Saga, Refusal> {
        let partition = PartitionId::of(&address.key, self.broker.partitions);
        let state = self.refold.state(partition, address).await?;
        let started = state.filter(|saga| saga.run().is_some());
        started.ok_or_else(|| unknown(address))
    }

    pub(super) async fn list(&self, request: ListRequest) -> Result<ListAnswer, Refusal> {
        if request
            .limit
            .is_some_and(|limit| limit > limit::LISTED_SAGAS)
        {
            let message = format!(
                "limit: a list holds at most {} sagas; a definition or a status makes it shorter",
                limit::LISTED_SAGAS
            );
            return Err(Refusal::new(ErrorCode::BadRequest, message));
        }
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
        let mut sagas = self.ended(&request).await?;
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

    /// The latest sagas that ended as is asked for, one more than fit so that the asker learns whether
    /// there are more. The broker filters them: definition and status stand in the subject.
    async fn ended(&self, request: &ListRequest) -> Result<Vec<SagaSummary>, Refusal> {
        let definition = request.definition.as_ref();
        let definition = definition.map_or("*", DefinitionName::as_str);
        let wanted = SagaStatus::ALL.into_iter().filter(|status| {
            status.is_terminal() && (request.status.is_empty() || request.status.contains(status))
        });
        let filters: Vec<String> = wanted
            .map(|status| subject::event_filter(definition, status.as_str()))
            .collect();
        if filters.is_empty() {
            return Ok(Vec::new());
        }
        let context = &self.broker.context;
        let most = live::limit(request) + 1;
        let messages = listing::read_latest(context, subject::EVENTS_STREAM, filters, most).await?;
        let sagas = messages.iter().filter_map(|message| {
            let (saga, what) = subject::parse_event(&message.subject).ok()?;
            let status = SagaStatus::from_word(what)?;
            let body: Value = serde_json::from_slice(&message.body).ok()?;
            let started_at = body["data"]["started_at"].as_str();
            let failure = &body["data"]["failure"];
            let detail = match (failure["error"].as_str(), failure["cause"].as_str()) {
                (Some(error), Some(cause)) => format!("{error}: {cause}"),
                (Some(error), None) => error.to_owned(),
                _ => String::new(),
            };
            let detail = detail.chars().take(DETAIL_CHARS).collect();
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
        Ok(sagas.collect())
    }
}

pub(super) fn unknown(address: &SagaAddress) -> Refusal {
    Refusal::not_found(format!("there is no saga {address}"))
}
