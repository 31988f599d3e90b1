//! Replies: published to the journal and stored there before the command is acknowledged.

use crate::{backoff::insist, trace::Parentage};
use async_nats::{HeaderMap, jetstream};
use dirigent_contracts::{
    envelope, header,
    id::CommandId,
    task::{Command, Reply, TaskResult, Timing},
};
use dirigent_payloads::Payloads;
use tracing::debug;

/// Answers one command.
pub(crate) struct Replier<'a> {
    pub(crate) jetstream: &'a jetstream::Context,
    pub(crate) payloads: &'a Payloads,
    pub(crate) command: &'a Command,
    pub(crate) worker: &'a str,
    pub(crate) parentage: &'a Parentage,
}

impl Replier<'_> {
    /// Publishes the answer until the broker has stored it.
    pub(crate) async fn answer(&self, result: TaskResult, timing: Option<Timing>) {
        let body = bytes::Bytes::from(envelope::encode(&self.reply(result, timing)));
        let headers = self.headers(message_id(self.command.command));
        let packed = insist("storing the body of a reply", || async {
            let mut headers = headers.clone();
            let body = self.payloads.pack(&mut headers, body.clone()).await;
            body.map(|body| (headers, body))
        });
        let (headers, body) = packed.await;
        let subject = &self.command.reply_to;
        insist("publishing a reply", || async {
            let stored = self
                .jetstream
                .publish_with_headers(subject.clone(), headers.clone(), body.clone())
                .await?;
            stored.await
        })
        .await;
    }

    /// Publishes heartbeat number `count` once; the next makes up for one that is lost.
    pub(crate) async fn heartbeat(&self, count: u64) {
        let body = envelope::encode(&self.reply(TaskResult::Heartbeat, None));
        let headers = self.headers(format!("{}.h{count}", self.command.command));
        let subject = self.command.reply_to.clone();
        // The acknowledgement is not waited for: a slow broker must not delay the answer.
        if let Err(error) = self
            .jetstream
            .publish_with_headers(subject, headers, body.into())
            .await
        {
            debug!(%error, "a heartbeat was not sent");
        }
    }

    fn reply(&self, result: TaskResult, timing: Option<Timing>) -> Reply {
        Reply {
            command: self.command.command,
            result,
            callback: false,
            worker: self.worker.to_owned(),
            timing,
        }
    }

    fn headers(&self, message_id: String) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::MESSAGE_ID, message_id);
        self.parentage.write(&mut headers);
        headers
    }
}

/// Deduplication id of the answer to a command.
fn message_id(command: CommandId) -> String {
    format!("{command}.r")
}
