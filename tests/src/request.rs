//! Requests to whichever coordinator answers.

use anyhow::{Context as _, bail};
use async_nats::Client;
use dirigent_contracts::{
    api::{ErrorCode, Operation},
    header, subject,
};

/// A request that was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code:?}: {message}")]
pub struct Refused {
    /// What kind of refusal it is.
    pub code: ErrorCode,
    /// Why, for people.
    pub message: String,
}

/// Makes a request, once.
///
/// # Errors
/// If it is refused, as [`Refused`]; if nobody answers.
pub async fn request<O: Operation>(client: &Client, request: &O) -> anyhow::Result<O::Answer> {
    let answer = request_raw(client, O::NAME, serde_json::to_vec(request)?).await?;
    serde_json::from_slice(&answer).with_context(|| {
        let answer = String::from_utf8_lossy(&answer);
        format!("the answer to {} is {answer}", O::NAME)
    })
}

/// Makes a request with these bytes, once.
///
/// # Errors
/// As [`request`].
pub async fn request_raw(
    client: &Client,
    operation: &str,
    body: Vec<u8>,
) -> anyhow::Result<Vec<u8>> {
    let answer = client.request(subject::api(operation), body.into()).await?;
    let header = |name: &str| {
        let headers = answer.headers.as_ref();
        headers
            .and_then(|all| all.get(name))
            .map(ToString::to_string)
    };
    let Some(number) = header(header::SERVICE_ERROR_CODE) else {
        return Ok(answer.payload.to_vec());
    };
    let Some(code) = number.parse().ok().and_then(ErrorCode::from_number) else {
        bail!("{number} is no error code");
    };
    let message = header(header::SERVICE_ERROR).unwrap_or_default();
    Err(Refused { code, message }.into())
}
