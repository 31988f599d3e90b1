//! Effects that take more than a publish: what is asked of the object store, and children, whose start
//! may turn out to be somebody else's.

use super::{messages, owner::Refused, processor::Tools};
use crate::{broker::publisher::Published, engine::Effect};
use async_nats::jetstream::stream::DirectGetErrorKind;
use dirigent_contracts::{envelope, journal::Start, subject};
use std::{error::Error, sync::Arc, time::Duration};
use tracing::Instrument as _;

/// How long the broker rests before it is asked again.
const PAUSE: Duration = Duration::from_millis(100);

/// What became of a publish, for whom it was owed.
pub(super) fn stored(published: Published) -> Result<(), Refused> {
    match published {
        Published::Stored { .. } | Published::AlreadyExists => Ok(()),
        Published::Refused(reason) => Err(Refused::Never(reason)),
        Published::Full(reason) => Err(Refused::QueueFull(reason)),
    }
}

/// Asks the object store, and stores its answer in the journal.
pub(super) async fn ask_store(
    tools: &Tools,
    effect: Option<&Effect>,
    span: tracing::Span,
) -> Result<(), Refused> {
    let Some(Effect::Store {
        command,
        reply_to,
        request,
    }) = effect
    else {
        return Ok(());
    };
    let answer = tools.objects.answer(*command, request.clone());
    let answer = answer.instrument(span).await;
    let reply = messages::reply(*command, reply_to.clone(), answer);
    stored(tools.publisher.publish(reply).await)
}

/// Takes a command out of its queue. A worker that has it goes on with it, and one that gets it nevertheless does
/// what will be undone, or was: so nothing rests on this, and it is not insisted on.
pub(super) async fn withdraw(tools: &Tools, effect: Option<&Effect>) {
    let Some(Effect::Withdraw { task, command }) = effect else {
        return;
    };
    let subject = subject::command(task, *command);
    let withdrawn = async {
        let stream = subject::COMMANDS_STREAM;
        let commands = tools.context.get_stream_no_info(stream).await?;
        let stored = match commands.direct_get_last_for_subject(&subject).await {
            // A worker has done with it, say.
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => return Ok(false),
            stored => stored?,
        };
        // A purge by subject would do in one request, but makes the broker forget for a while what it was
        // about to deliver again to other workers of the task.
        let is_deleted = commands.delete_message(stored.sequence).await?;
        Ok::<_, Box<dyn Error + Send + Sync>>(is_deleted)
    };
    match withdrawn.await {
        Ok(true) => {
            let queue = tools.admission.queue(&subject::command_consumer(task));
            queue.answered();
        }
        Ok(false) => {}
        Err(error) => {
            tracing::debug!(subject, %error, "a command that nobody waits for stays where it is");
        }
    }
}

/// Starts a child, or finds that this very parent has started it before.
pub(super) async fn start_child(tools: &Tools, effect: Option<&Effect>) -> Result<(), Refused> {
    let Some(Effect::StartChild {
        child,
        input,
        parent,
        trace,
    }) = effect
    else {
        return Ok(());
    };
    let Some(digest) = tools.definitions.latest(&child.definition).await else {
        let reason = format!("there is no definition named '{}'", child.definition);
        return Err(Refused::Never(reason));
    };
    let body = Start {
        digest,
        input: Arc::clone(input),
        trigger: None,
        parent: Some(parent.clone()),
        part: None,
        limits: tools.installation.limits().saga,
    };
    let trace = tools.spans.sampling().attempt(parent.command, *trace);
    let message = messages::start_child(tools.partitions, child, parent.command, body, trace);
    let subject = message.subject().to_owned();
    loop {
        match tools.publisher.publish(message.clone()).await {
            Published::AlreadyExists => {}
            published => return stored(published),
        }
        match tools.snapshots.first_of_subject(&subject).await {
            Ok(Some(first)) => {
                let start = envelope::decode::<Start>(&first.body);
                let parent_of_first = start.ok().and_then(|start| start.parent);
                return match parent_of_first {
                    Some(of) if of.command == parent.command => Ok(()),
                    _ => Err(Refused::Never(format!(
                        "the saga {child} was started by somebody else: by an earlier attempt of \
                         this step, perhaps, as a key can be used once"
                    ))),
                };
            }
            // Its time is over meanwhile, or the server that answered does not know it yet.
            Ok(None) => {}
            Err(error) => tracing::warn!(subject, %error, "a start cannot be read; trying on"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}
