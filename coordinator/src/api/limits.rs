//! The limits of the installation: showing and changing them, and keeping them at the door.

use super::{Api, Refusal};
use crate::broker::installation::ChangeError;
use dirigent_contracts::{
    api::{ErrorCode, LimitDescription, LimitsAnswer, LimitsRequest},
    definition::model::Definition,
    limit,
    limits::{Exceeded, Limit, Limits},
};
use serde_json::Value;

impl From<Exceeded> for Refusal {
    fn from(error: Exceeded) -> Self {
        Self::new(ErrorCode::TooLarge, error.to_string())
    }
}

impl From<ChangeError> for Refusal {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Limit(error) => Self::new(ErrorCode::BadRequest, error.to_string()),
            ChangeError::Broker(error) => error.into(),
        }
    }
}

impl Api {
    pub(super) async fn limits(&self, request: LimitsRequest) -> Result<LimitsAnswer, Refusal> {
        let mut changes = Vec::new();
        for (name, value) in &request.set {
            let limit: Limit = name.parse().map_err(ChangeError::Limit)?;
            changes.push((limit, value.unwrap_or(limit.default())));
        }
        let installation = &self.broker.installation;
        let limits = if changes.is_empty() {
            installation.limits()
        } else {
            let changed = installation.change(&changes).await?;
            for (limit, value) in changes {
                tracing::info!(%limit, value, "a limit was changed");
            }
            changed
        };
        Ok(LimitsAnswer {
            limits: Limit::ALL.map(|limit| describe(&limits, limit)).to_vec(),
        })
    }
}

fn describe(limits: &Limits, limit: Limit) -> LimitDescription {
    let (least, most) = limit.range();
    LimitDescription {
        name: limit.as_str().to_owned(),
        value: limits.get(limit),
        unit: limit.unit().as_str().to_owned(),
        default: limit.default(),
        least,
        most,
        what: limit.what().to_owned(),
    }
}

/// Whether somebody may hand this in.
pub(super) fn check_payload(limits: &Limits, what: &str, value: &Value) -> Result<(), Refusal> {
    let size = value.to_string().len() as u64;
    Ok(limits.check(Limit::Payload, what, size)?)
}

/// Whether a definition may be deployed.
pub(super) fn check_definition(
    limits: &Limits,
    document: &str,
    definition: &Definition,
) -> Result<(), Refusal> {
    let extent = definition.machine.extent();
    limits.check(Limit::Definition, "the document", document.len() as u64)?;
    limits.check(Limit::States, "the definition", extent.states)?;
    limits.check(Limit::Branches, "its widest Parallel", extent.branches)?;
    limits.check(
        Limit::Nesting,
        "the nesting of its Parallel and Map states",
        extent.nesting,
    )?;
    Ok(())
}

/// Whether a text is not longer than it may be.
pub(super) fn check_text(what: &str, text: &str, most: usize) -> Result<(), Refusal> {
    if text.len() <= most {
        return Ok(());
    }
    let found = text.len();
    let message = format!("{what} has {found} bytes, at most {most} fit");
    Err(Refusal::new(ErrorCode::TooLarge, message))
}

/// Whether an operator's reason is not longer than it may be.
pub(super) fn check_reason(reason: &str) -> Result<(), Refusal> {
    check_text("the reason", reason, limit::CAUSE_BYTES)
}
