//! What one saga did, found by folding its entries again, in parts that fit into a message.

use super::{Api, Refusal, sagas::unknown, too_large};
use dirigent_contracts::{
    api::{HistoryAnswer, HistoryPlace, HistoryRequest},
    history::HistoryEvent,
    id::PartitionId,
};

/// What is left of a message for the headers, and for what stands around the events.
const FRAME_BYTES: usize = 1_024;

impl Api {
    pub(super) async fn history(&self, request: HistoryRequest) -> Result<HistoryAnswer, Refusal> {
        let address = &request.saga;
        let partition = PartitionId::of(&address.key, self.broker.partitions);
        let events = match self.refold.history(partition, address).await? {
            (Some(saga), events) if saga.run().is_some() => events,
            _ => return Err(unknown(address)),
        };
        match request.from {
            Some(from) => {
                let most = self.broker.client.max_payload();
                part(events, from, most.saturating_sub(FRAME_BYTES))
            }
            None => Ok(HistoryAnswer { events, next: None }),
        }
    }
}

/// The events from a place on, as many as have `most` bytes together.
fn part(
    events: Vec<HistoryEvent>,
    from: HistoryPlace,
    most: usize,
) -> Result<HistoryAnswer, Refusal> {
    let earlier = events.partition_point(|event| event.seq < from.seq);
    let up_to_same = events.partition_point(|event| event.seq <= from.seq);
    let skip = from.skip.min(up_to_same - earlier);
    let mut place = HistoryPlace { skip, ..from };
    let mut left = most;
    let mut shown = Vec::new();
    for event in events.into_iter().skip(earlier + skip) {
        if event.seq != place.seq {
            place = HistoryPlace {
                seq: event.seq,
                skip: 0,
            };
        }
        let size = serde_json::to_vec(&event).map_or(0, |event| event.len() + 1);
        if size > left {
            if shown.is_empty() {
                return Err(too_large(size, most));
            }
            return Ok(HistoryAnswer {
                events: shown,
                next: Some(place),
            });
        }
        left -= size;
        place.skip += 1;
        shown.push(event);
    }
    Ok(HistoryAnswer {
        events: shown,
        next: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use dirigent_contracts::api::ErrorCode;
    use serde_json::json;

    fn event(seq: u64, text: &str) -> HistoryEvent {
        let event = json!({"seq": seq, "at": 0, "scope": 0, "event": "state-entered",
            "state": "A", "kind": "Pass", "input": text});
        serde_json::from_value(event).unwrap()
    }

    fn gathered(events: &[HistoryEvent], most: usize) -> (Vec<HistoryEvent>, u32) {
        let (mut all, mut parts) = (Vec::new(), 0);
        let mut from = Some(HistoryPlace::default());
        while let Some(place) = from {
            let answer = part(events.to_vec(), place, most).unwrap();
            assert!(serde_json::to_vec(&answer.events).unwrap().len() <= most + 1);
            all.extend(answer.events);
            from = answer.next;
            parts += 1;
        }
        (all, parts)
    }

    #[test]
    fn the_parts_of_a_history_are_the_whole() {
        let text = "x".repeat(100);
        let events = [1, 1, 1, 4, 6, 6].map(|seq| event(seq, &text));
        let size = serde_json::to_vec(&events[0]).unwrap().len() + 1;
        for (most, parts) in [(size, 6), (2 * size, 3), (4 * size, 2), (6 * size, 1)] {
            assert_eq!(gathered(&events, most), (events.to_vec(), parts));
        }
        assert_eq!(gathered(&[], size), (Vec::new(), 1));
    }

    #[test]
    fn what_is_forgotten_between_two_parts_is_not_made_up_for() {
        let events = [event(3, "a"), event(4, "b")];
        let from = HistoryPlace {
            seq: serde_json::from_value(json!(2)).unwrap(),
            skip: 5,
        };
        let answer = part(events.to_vec(), from, 10_000).unwrap();
        assert_eq!(answer.events, events);
    }

    #[test]
    fn an_event_that_no_message_carries_is_refused() {
        let refusal = part(
            vec![event(1, &"x".repeat(500))],
            HistoryPlace::default(),
            400,
        );
        assert_eq!(refusal.unwrap_err().code, ErrorCode::AnswerTooLarge);
    }
}
