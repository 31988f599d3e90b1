//! The question that one coordinator asks the owners of all partitions: which sagas are alive?

use dirigent_contracts::{
    api::{ListRequest, SagaSummary},
    id::PartitionId,
};

/// Where the owner of a partition answers.
pub(crate) fn subject(partition: PartitionId) -> String {
    format!("dirigent.internal.live.{partition}")
}

/// Sagas of a list, if no number is asked for.
pub(crate) const DEFAULT_LIMIT: usize = 50;
/// Most sagas of a list.
pub(crate) const MOST: usize = 1_000;

/// Whether a saga is one of those that are asked for.
pub(crate) fn is_wanted(request: &ListRequest, saga: &SagaSummary) -> bool {
    request
        .definition
        .as_ref()
        .is_none_or(|name| saga.saga.definition == *name)
        && (request.status.is_empty() || request.status.contains(&saga.status))
}

/// The owner's answer: those that are asked for, the latest first, one more than fit so that the
/// asker learns whether there are more.
pub(crate) fn answer(question: &[u8], mut sagas: Vec<SagaSummary>) -> Vec<u8> {
    let request: ListRequest = serde_json::from_slice(question).unwrap_or_default();
    sagas.retain(|saga| is_wanted(&request, saga));
    sort(&mut sagas);
    sagas.truncate(limit(&request) + 1);
    serde_json::to_vec(&sagas).unwrap_or_default()
}

pub(crate) fn limit(request: &ListRequest) -> usize {
    request.limit.unwrap_or(DEFAULT_LIMIT).min(MOST)
}

/// The latest first.
pub(crate) fn sort(sagas: &mut [SagaSummary]) {
    sagas.sort_by(|a, b| {
        let order = b.updated_at.cmp(&a.updated_at);
        order.then_with(|| a.saga.key.as_str().cmp(b.saga.key.as_str()))
    });
}
