//! The question that one coordinator asks the owners of all partitions: which sagas are alive?

use crate::partition::snapshot::Outline;
use dirigent_contracts::{
    api::{ListRequest, SagaSummary},
    id::{DefinitionName, PartitionId, SagaAddress},
    limit,
    outcome::SagaStatus,
};
use std::cmp::Reverse;

/// Where the owner of a partition answers.
pub(crate) fn subject(partition: PartitionId) -> String {
    format!("dirigent.internal.live.{partition}")
}

/// Sagas of a list, if no number is asked for.
pub(crate) const DEFAULT_LIMIT: usize = 50;

/// Whether a saga is one of those that are asked for.
pub(crate) fn is_wanted(
    request: &ListRequest,
    definition: &DefinitionName,
    status: SagaStatus,
) -> bool {
    request
        .definition
        .as_ref()
        .is_none_or(|name| definition == name)
        && (request.status.is_empty() || request.status.contains(&status))
}

/// Those of an owner's sagas that are asked for, the latest first, one more than fit so that the asker
/// learns whether there are more.
pub(crate) fn latest<'a>(
    question: &[u8],
    sagas: impl Iterator<Item = (&'a SagaAddress, Outline)>,
) -> Vec<&'a SagaAddress> {
    let request: ListRequest = serde_json::from_slice(question).unwrap_or_default();
    let wanted = sagas.filter(|(address, outline)| {
        outline.status.is_some_and(|status| {
            !status.is_terminal() && is_wanted(&request, &address.definition, status)
        })
    });
    let mut wanted: Vec<_> = wanted
        .map(|(address, outline)| (Reverse(outline.updated_at), address))
        .collect();
    wanted.sort_unstable();
    wanted.truncate(limit(&request) + 1);
    wanted.into_iter().map(|(_, address)| address).collect()
}

pub(crate) fn limit(request: &ListRequest) -> usize {
    request
        .limit
        .unwrap_or(DEFAULT_LIMIT)
        .min(limit::LISTED_SAGAS)
}

/// The latest first.
pub(crate) fn sort(sagas: &mut [SagaSummary]) {
    sagas.sort_by(|a, b| {
        let order = b.updated_at.cmp(&a.updated_at);
        order.then_with(|| a.saga.key.as_str().cmp(b.saga.key.as_str()))
    });
}
