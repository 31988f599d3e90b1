//! Keeping what cannot be understood, whatever its size.

use super::publisher::{IfFull, Outgoing, Published, Publisher};
use dirigent_contracts::{letter::Letter, subject};
use tokio::sync::oneshot;

/// A message that is to be kept for a person.
#[derive(Debug)]
pub(crate) struct DeadLetter<'a> {
    /// What it was, such as `event`.
    pub(crate) kind: &'static str,
    /// The same for whoever keeps it a second time.
    pub(crate) id: String,
    pub(crate) letter: Letter<'a>,
    /// The message's own.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl DeadLetter<'_> {
    /// Keeps it, and says whether that was possible; without body and headers if the broker refuses the
    /// whole. It is kept even if nobody waits for the answer.
    pub(crate) fn keep(
        self,
        publisher: &Publisher,
    ) -> impl Future<Output = bool> + Send + 'static + use<> {
        let outgoing = |body, headers: Vec<(&'static str, String)>| {
            let letter = Outgoing::new(subject::dead_letter(self.kind), body);
            let letter = letter.with_message_id(self.id.clone());
            let headers = headers.into_iter();
            headers.fold(letter, |letter, (name, value)| {
                letter.with_header(name, value)
            })
        };
        let bare = outgoing(Vec::new(), self.letter.headers_without_body());
        let whole = outgoing(self.body, self.letter.headers());
        let whole = self
            .headers
            .into_iter()
            .fold(whole, |letter, (name, value)| {
                letter.with_header(name, value)
            });
        let (done, answer) = oneshot::channel();
        let tell = move |published| {
            // Nobody need be waiting.
            let _ = done.send(matches!(published, Published::Stored { .. }));
        };
        let again = publisher.clone();
        publisher.publish_then(whole, IfFull::Repeat, move |published| match published {
            Published::Refused(_) => again.publish_then(bare, IfFull::Repeat, tell),
            published => tell(published),
        });
        async move { answer.await.unwrap_or(false) }
    }
}
