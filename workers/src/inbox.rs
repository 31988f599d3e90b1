//! The inbox: what became of an effect, remembered by its id, so that it is not done twice.
//!
//! A success is remembered for as long as the bucket says: as long as journals are kept, if nobody changed it,
//! which is longer than a worker that has done its work keeps a command unanswered. A failure is not, because the next
//! attempt has the same effect id. An undo leaves a mark that keeps its effect from being done late.
//! Two deliveries in one process wait for each other; two processes that run one effect at the same
//! moment are told apart only by the service's own store.

use async_nats::jetstream::{self, kv::Store};
use dirigent_contracts::{
    id::EffectId,
    subject,
    task::{Command, Direction, TaskResult},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

/// What is remembered.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Memory {
    /// It was done, with this output.
    Done(Arc<Value>),
    /// It was undone: it must not be done any more.
    Undone,
}

/// Remembers outcomes. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Inbox {
    jetstream: jetstream::Context,
    /// The effects that this process works on.
    running: Arc<Mutex<HashMap<EffectId, Weak<tokio::sync::Mutex<()>>>>>,
}

impl Inbox {
    pub(crate) fn new(jetstream: jetstream::Context) -> Self {
        Self {
            jetstream,
            running: Arc::default(),
        }
    }

    async fn bucket(&self) -> Result<Store, String> {
        let store = self.jetstream.get_key_value(subject::INBOX_BUCKET).await;
        store.map_err(|error| error.to_string())
    }

    /// One execution of an effect at a time: held by whoever works on it.
    pub(crate) fn turn(&self, effect: EffectId) -> Arc<tokio::sync::Mutex<()>> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = running.get(&effect).and_then(Weak::upgrade) {
            return turn;
        }
        running.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::new(tokio::sync::Mutex::new(()));
        running.insert(effect, Arc::downgrade(&turn));
        turn
    }

    /// What is known of the command's effect; `None` if it is to be done.
    pub(crate) async fn recall(&self, command: &Command) -> Result<Option<Recalled>, String> {
        let bucket = self.bucket().await?;
        if let Some(undone) = command.undoes {
            let mark = serde_json::to_vec(&Memory::Undone).map_err(|error| error.to_string())?;
            let marked = bucket.put(undone.to_string(), mark.into()).await;
            marked.map_err(|error| error.to_string())?;
        }
        let body = bucket
            .get(command.effect.to_string())
            .await
            .map_err(|error| error.to_string())?;
        let memory = body.and_then(|body| serde_json::from_slice(&body).ok());
        Ok(match memory {
            Some(Memory::Done(output)) => Some(Recalled::Done(output)),
            Some(Memory::Undone) if command.direction == Direction::Do => Some(Recalled::Undone),
            _ => None,
        })
    }

    /// Remembers a success.
    pub(crate) async fn remember(
        &self,
        command: &Command,
        result: &TaskResult,
    ) -> Result<(), String> {
        let TaskResult::Succeeded { output } = result else {
            return Ok(());
        };
        let bucket = self.bucket().await?;
        let memory = Memory::Done(Arc::clone(output));
        let body = serde_json::to_vec(&memory).map_err(|error| error.to_string())?;
        // Create: an undo that came meanwhile has left its mark, and that stays.
        match bucket.create(command.effect.to_string(), body.into()).await {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == jetstream::kv::CreateErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// What is known of an effect.
pub(crate) enum Recalled {
    /// It was done, with this output.
    Done(Arc<Value>),
    /// It was undone before it was done.
    Undone,
}
