//! Dead letters: showing them, and publishing one again.

use super::{Api, Refusal};
use crate::broker::{
    journal::timestamp,
    publisher::{Outgoing, Published},
};
use async_nats::jetstream::stream::Stream;
use dirigent_contracts::{
    api::{
        DeadLetter, DeadLettersAnswer, DeadLettersRequest, ErrorCode, ReplayAnswer, ReplayRequest,
    },
    header, letter, subject,
};

/// Letters of a list, if no number is asked for.
const DEFAULT_LIMIT: usize = 50;
/// Characters of a letter's body that a list shows.
const BODY_CHARS: usize = 2_000;

impl Api {
    async fn letters(&self) -> Result<Stream, Refusal> {
        let stream = self
            .broker
            .context
            .get_stream(subject::DEAD_LETTERS_STREAM)
            .await;
        stream.map_err(|error| Refusal::new(ErrorCode::Unavailable, error.to_string()))
    }

    pub(super) async fn count_letters(&self) -> Result<u64, Refusal> {
        Ok(self.letters().await?.cached_info().state.messages)
    }

    pub(super) async fn dead_letters(
        &self,
        request: DeadLettersRequest,
    ) -> Result<DeadLettersAnswer, Refusal> {
        let stream = self.letters().await?;
        let state = &stream.cached_info().state;
        let mut letters = Vec::new();
        let mut number = state.last_sequence;
        while number >= state.first_sequence.max(1)
            && letters.len() < request.limit.unwrap_or(DEFAULT_LIMIT)
        {
            // One that was replayed is gone.
            if let Ok(message) = stream.direct_get(number).await {
                let header = |name: &str| {
                    message
                        .headers
                        .get(name)
                        .map(ToString::to_string)
                        .unwrap_or_default()
                };
                letters.push(DeadLetter {
                    number,
                    at: timestamp(message.time),
                    subject: header(header::DEAD_SUBJECT),
                    reason: header(header::DEAD_REASON),
                    body: String::from_utf8_lossy(&message.payload)
                        .chars()
                        .take(BODY_CHARS)
                        .collect(),
                });
            }
            number -= 1;
        }
        Ok(DeadLettersAnswer {
            letters,
            total: state.messages,
        })
    }

    pub(super) async fn replay(&self, request: ReplayRequest) -> Result<ReplayAnswer, Refusal> {
        let stream = self.letters().await?;
        let message = stream.direct_get(request.number).await.map_err(|_| {
            Refusal::not_found(format!("there is no dead letter number {}", request.number))
        })?;
        let header = |name: &str| message.headers.get(name).map(ToString::to_string);
        if header(header::DEAD_WITHOUT_BODY).is_some() {
            let source = header(header::DEAD_SOURCE).unwrap_or_default();
            return Err(Refusal::new(
                ErrorCode::Conflict,
                format!(
                    "the letter was kept without its body, which was too large: publish what stands in \
                     {source} again"
                ),
            ));
        }
        let subject = header(header::DEAD_SUBJECT);
        let subject = subject.ok_or_else(|| {
            Refusal::new(
                ErrorCode::Conflict,
                "the letter does not say where it came from",
            )
        })?;
        let mut again = Outgoing::new(subject.clone(), message.payload.to_vec());
        for (name, values) in message.headers.iter() {
            let name: &str = name.as_ref();
            if let Some(value) = values.last().filter(|_| letter::is_of_message(name)) {
                again = again.with_header(name.to_string(), value.to_string());
            }
        }
        let again = again.with_message_id(format!("replay.{}", request.number));
        if let Published::Refused(reason) = self.broker.publisher.publish(again).await {
            return Err(Refusal::new(ErrorCode::TooLarge, reason));
        }
        stream
            .delete_message(request.number)
            .await
            .map_err(|error| Refusal::new(ErrorCode::Unavailable, error.to_string()))?;
        Ok(ReplayAnswer { subject })
    }
}
