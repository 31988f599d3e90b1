//! Cases in which we differ, and are right to.

/// Id and reason.
const DEVIATIONS: &[(&str, &str)] = &[];

/// Why a case may differ.
pub(crate) fn reason(id: &str) -> Option<&'static str> {
    DEVIATIONS
        .iter()
        .find(|(known, _)| *known == id)
        .map(|(_, reason)| *reason)
}
