//! Where the journals end in a backup: entries of one are the causes of entries of another, so all
//! are cut off such that no effect stays without its cause.
//!
//! The ends of all journals are read twice. Whatever stood there at the first reading has its cause
//! before the second. What came in between, and may have come from another partition, is left out:
//! if its cause is in the copy, the owner of that partition publishes it again.

use super::{
    broker::{Broker, failed},
    manifest::Cut,
};
use crate::trouble::Trouble;
use dirigent_contracts::subject::{EntryKind, JournalSubject};
use futures::future::try_join_all;
use std::collections::BTreeMap;

/// Reads where to cut.
pub(super) async fn cut(
    broker: &Broker,
    journals: &[&String],
) -> Result<BTreeMap<String, Cut>, Trouble> {
    let ends = async || {
        try_join_all(journals.iter().map(async |journal| {
            let told = broker.stream(journal).await?;
            Ok::<_, Trouble>(told.last_sequence())
        }))
        .await
    };
    let (first, second) = (ends().await?, ends().await?);
    let mut cuts = BTreeMap::new();
    for ((journal, first), last) in journals.iter().zip(first).zip(second) {
        let mut left_out = Vec::new();
        for seq in first + 1..=last {
            if subject_of(broker, journal, seq)
                .await?
                .is_some_and(|subject| may_be_an_effect(&subject))
            {
                left_out.push(seq);
            }
        }
        cuts.insert((*journal).clone(), Cut { last, left_out });
    }
    Ok(cuts)
}

/// Whether another journal's entry may be the cause of an entry with this subject.
fn may_be_an_effect(subject: &str) -> bool {
    match JournalSubject::parse(subject).map(|subject| subject.kind) {
        Ok(EntryKind::Start | EntryKind::Control | EntryKind::Child) => true,
        Ok(EntryKind::Reply(_) | EntryKind::Event | EntryKind::Timer) | Err(_) => false,
    }
}

/// The subject of a message; `None` if it is gone.
async fn subject_of(broker: &Broker, stream: &str, seq: u64) -> Result<Option<String>, Trouble> {
    use async_nats::jetstream::{ErrorCode, stream::RawMessageErrorKind};
    let stream = broker.context.get_stream_no_info(stream).await;
    let stream = stream.map_err(|error| failed("a journal", &error))?;
    match stream.get_raw_message(seq).await {
        Ok(message) => Ok(Some(message.subject.to_string())),
        Err(error) => match error.kind() {
            RawMessageErrorKind::NoMessageFound => Ok(None),
            RawMessageErrorKind::JetStream(error)
                if error.error_code() == ErrorCode::SEQUENCE_NOT_FOUND =>
            {
                Ok(None)
            }
            _ => Err(failed("an entry of a journal", &error)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_partition_may_have_sent_is_left_out() {
        for (kind, expected) in [
            ("start", true),
            ("child", true),
            ("control", true),
            ("event", false),
            ("timer", false),
            ("reply.pay", false),
        ] {
            let subject = format!("dirigent.journal.3.order.k.{kind}");
            assert_eq!(may_be_an_effect(&subject), expected, "{subject}");
        }
        assert!(!may_be_an_effect("dirigent.journal.nonsense"));
    }

    #[test]
    fn all_behind_the_cut_and_what_is_left_out_is_removed() {
        let cut = Cut {
            last: 10,
            left_out: vec![7, 9],
        };
        assert_eq!(cut.beyond(12).collect::<Vec<_>>(), [7, 9, 11, 12]);
        assert_eq!(cut.beyond(10).collect::<Vec<_>>(), [7, 9]);
    }
}
