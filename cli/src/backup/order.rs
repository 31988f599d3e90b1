//! What is copied, how, and in which order: why that makes a live copy consistent stands in
//! `docs/decisions/0015-a-backup-is-a-cut.md`.

use super::manifest::Form;
use dirigent_contracts::subject;

/// What a stream is to the copy. The order is that of copying: positions, then effects, then causes,
/// then what others refer to by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// Snapshots and checkpoints: up to where the journals' effects are known to be stored.
    Position,
    /// What owners publish: commands, outcomes, dead letters.
    Effect,
    /// Journals. Each is the cause and the effect of others, so all are cut off together.
    Journal,
    /// Events from outside, from which entries of journals follow.
    Inbox,
    /// Definitions, settings, what workers remember, objects.
    Reference,
}

impl Role {
    /// The role of a stream; `None` if it is not ours, or is made anew by itself.
    pub(super) fn of(stream: &str) -> Option<Self> {
        if let Some(bucket) = stream.strip_prefix("KV_") {
            return match bucket {
                subject::SAGAS_BUCKET => Some(Self::Position),
                _ if bucket.starts_with("dirigent-") => Some(Self::Reference),
                _ => None,
            };
        }
        match stream {
            subject::COMMANDS_STREAM | subject::EVENTS_STREAM | subject::DEAD_LETTERS_STREAM => {
                Some(Self::Effect)
            }
            subject::INBOX_STREAM => Some(Self::Inbox),
            // Deliveries are counted anew, so commands that were delivered in vain are told of again.
            subject::ADVISORIES_STREAM => None,
            _ if stream.starts_with("DIRIGENT_JOURNAL_") => Some(Self::Journal),
            _ if stream.starts_with("DIRIGENT_") || stream.starts_with("OBJ_dirigent") => {
                Some(Self::Reference)
            }
            _ => None,
        }
    }
}

/// How a stream is copied: the keys of a bucket change while it is, and the broker's copy is not of
/// one moment; a log only grows.
pub(super) fn form(stream: &str) -> Form {
    if stream.starts_with("KV_") {
        Form::Bucket
    } else {
        Form::Stream
    }
}

/// Whether a key of a bucket belongs into a backup: leases and beats are of processes that are gone
/// when it is put back.
pub(super) fn is_kept(stream: &str, key: &str) -> bool {
    let is_of_partitions = stream.strip_prefix("KV_") == Some(subject::PARTITIONS_BUCKET);
    !(is_of_partitions && (key.starts_with("lease.") || key.starts_with("member.")))
}

/// Our streams in the order of copying.
pub(super) fn ours(streams: &[String]) -> Vec<(Role, &String)> {
    let mut ours: Vec<(Role, &String)> = streams
        .iter()
        .filter_map(|stream| Some((Role::of(stream)?, stream)))
        .collect();
    ours.sort();
    ours
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_come_before_effects_and_effects_before_causes() {
        let streams = [
            "DIRIGENT_ADVISORIES",
            "DIRIGENT_COMMANDS",
            "DIRIGENT_DEAD_LETTERS",
            "DIRIGENT_EVENTS",
            "DIRIGENT_INBOX",
            "DIRIGENT_JOURNAL_0",
            "DIRIGENT_JOURNAL_1",
            "KV_dirigent-definitions",
            "KV_dirigent-inbox",
            "KV_dirigent-partitions",
            "KV_dirigent-sagas",
            "KV_mine",
            "OBJ_dirigent-payloads",
            "OBJ_mine",
            "ORDERS",
        ]
        .map(str::to_owned);
        let order: Vec<&str> = ours(&streams)
            .into_iter()
            .map(|(_, stream)| stream.as_str())
            .collect();
        assert_eq!(
            order,
            [
                "KV_dirigent-sagas",
                "DIRIGENT_COMMANDS",
                "DIRIGENT_DEAD_LETTERS",
                "DIRIGENT_EVENTS",
                "DIRIGENT_JOURNAL_0",
                "DIRIGENT_JOURNAL_1",
                "DIRIGENT_INBOX",
                "KV_dirigent-definitions",
                "KV_dirigent-inbox",
                "KV_dirigent-partitions",
                "OBJ_dirigent-payloads",
            ]
        );
    }

    #[test]
    fn leases_and_beats_stay_behind() {
        assert!(is_kept("KV_dirigent-partitions", "installation"));
        assert!(!is_kept("KV_dirigent-partitions", "lease.0"));
        assert!(!is_kept("KV_dirigent-partitions", "member.a"));
        assert!(is_kept("KV_dirigent-definitions", "member.a"));
    }
}
