//! Steering sagas: each request becomes an entry of the saga's journal.

use super::{Api, Caller, Refusal, limits};
use crate::{engine::Run, partition::messages, router::event_entry};
use dirigent_contracts::{
    api::{Accepted, CallbackRequest, CancelRequest, ErrorCode, RetryRequest, SignalRequest},
    envelope,
    id::{PartitionId, SagaAddress},
    journal::{Control, Entry, EventEntry},
    limit,
    outcome::SagaStatus,
    subject::{self, EntryKind, JournalSubject},
    task::{CallbackToken, Reply, TaskResult},
    token,
};
use std::sync::Arc;
use uuid::Uuid;

impl Api {
    pub(super) async fn signal(
        &self,
        request: SignalRequest,
        caller: Caller,
    ) -> Result<Accepted, Refusal> {
        let SignalRequest {
            saga,
            event,
            id,
            data,
        } = request;
        let limits = self.broker.installation.limits();
        limits::check_payload(&limits, "the data", &data)?;
        limits::check_text("the event's name", &event, limit::EVENT_NAME_BYTES)?;
        let id_text = id.as_deref().unwrap_or_default();
        limits::check_text("the event's id", id_text, limit::EVENT_ID_BYTES)?;
        self.version(&saga.definition, None).await?;
        // One that has not started keeps the event until it has.
        if let Ok(state) = self.state(&saga).await
            && let Some(run) = state.run().filter(|run| run.status().is_terminal())
        {
            return Err(over(&saga, run.status()));
        }
        let partition = PartitionId::of(&saga.key, self.broker.partitions);
        let id = id.unwrap_or_else(|| Uuid::now_v7().to_string());
        let key = subject::snapshot_key(partition, &saga);
        let message_id = format!("{key}.{}.{}", token::encode(&event), token::encode(&id));
        let entry = Entry::Event(EventEntry {
            name: event,
            id,
            data: Arc::new(data),
        });
        let entry = event_entry(partition, saga.clone(), &entry, message_id);
        self.store(entry.with_trace(caller.trace)).await?;
        Ok(Accepted { saga })
    }

    pub(super) async fn callback(&self, request: CallbackRequest) -> Result<Accepted, Refusal> {
        if let TaskResult::Succeeded { output } = &request.result {
            limits::check_payload(&self.broker.installation.limits(), "the output", output)?;
        }
        let token: CallbackToken = request
            .token
            .parse()
            .map_err(|error| Refusal::new(ErrorCode::BadRequest, format!("token: {error}")))?;
        let CallbackToken {
            partition,
            saga,
            task,
            command,
        } = token;
        let state = self.state(&saga).await?;
        if !state.run().is_some_and(|run| run.awaits(command)) {
            let message = format!("nobody waits for this token any more: {saga} has gone on");
            return Err(Refusal::new(ErrorCode::Conflict, message));
        }
        let reply = Reply {
            command,
            result: request.result,
            callback: true,
            worker: String::new(),
            timing: None,
        };
        let kind = EntryKind::Reply(task);
        let subject = JournalSubject {
            partition,
            address: saga.clone(),
            kind,
        };
        let entry =
            crate::broker::publisher::Outgoing::new(subject.to_string(), envelope::encode(&reply));
        self.store(entry.with_message_id(Uuid::now_v7().to_string()))
            .await?;
        Ok(Accepted { saga })
    }

    pub(super) async fn cancel(
        &self,
        request: CancelRequest,
        caller: Caller,
    ) -> Result<Accepted, Refusal> {
        limits::check_reason(&request.reason)?;
        let state = self.state(&request.saga).await?;
        if let Some(run) = state.run().filter(|run| run.status().is_terminal()) {
            return Err(over(&request.saga, run.status()));
        }
        if let Some(why) = state.run().and_then(Run::refuses_to_cancel) {
            let message = format!("{} cannot be canceled: {why}", request.saga);
            return Err(Refusal::new(ErrorCode::Conflict, message));
        }
        let control = Control::Cancel {
            reason: request.reason,
        };
        self.control(request.saga, control, caller).await
    }

    pub(super) async fn retry(
        &self,
        request: RetryRequest,
        caller: Caller,
    ) -> Result<Accepted, Refusal> {
        limits::check_reason(&request.reason)?;
        let state = self.state(&request.saga).await?;
        let status = state.run().map_or(SagaStatus::Running, Run::status);
        if status != SagaStatus::Stuck {
            let message = format!("{} is not stuck: it is {status}", request.saga);
            return Err(Refusal::new(ErrorCode::Conflict, message));
        }
        let control = if request.skip {
            Control::Skip {
                reason: request.reason,
            }
        } else {
            Control::Retry {
                reason: request.reason,
            }
        };
        self.control(request.saga, control, caller).await
    }

    async fn control(
        &self,
        saga: SagaAddress,
        control: Control,
        caller: Caller,
    ) -> Result<Accepted, Refusal> {
        let partition = PartitionId::of(&saga.key, self.broker.partitions);
        let message_id = caller
            .message_id
            .unwrap_or_else(|| Uuid::now_v7().to_string());
        self.store(messages::control(partition, &saga, control, message_id))
            .await?;
        Ok(Accepted { saga })
    }
}

fn over(saga: &SagaAddress, status: SagaStatus) -> Refusal {
    let message = format!("{saga} is over: it has {status}");
    Refusal::new(ErrorCode::Conflict, message)
}
