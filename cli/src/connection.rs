//! The connection to the broker, and requests to whichever coordinator answers.

use crate::{arguments::BrokerArguments, trouble::Trouble};
use async_nats::{
    Client, ConnectError, ConnectErrorKind, ConnectOptions, Event, RequestErrorKind, ServerAddr,
    ServerError,
};
use dirigent_contracts::{
    api::{ErrorCode, HistoryAnswer, HistoryPlace, HistoryRequest, Operation},
    header,
    id::SagaAddress,
    subject,
};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

/// How long a coordinator has for an answer. A list asks the owners of all partitions.
const ANSWER_TIME: Duration = Duration::from_secs(15);
/// How long the broker has to accept the connection.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// How often an idle connection is probed. The third probe without an answer to the first two ends
/// it: a server that stands still, or is cut off, must not hold a coordinator up for longer than the
/// others take to notice its silence.
const PING_INTERVAL: Duration = Duration::from_secs(2);

/// A broker, and what to call it in messages.
#[derive(Clone)]
pub(crate) struct Connection {
    pub(crate) client: Client,
    pub(crate) url: String,
    /// What the broker said last that this user may not do. It tells that beside the request, which it leaves
    /// unanswered.
    denied: watch::Receiver<Option<String>>,
}

impl Connection {
    /// One that is open already.
    pub(crate) fn new(client: Client, url: String) -> Self {
        let (_, denied) = watch::channel(None);
        Self {
            client,
            url,
            denied,
        }
    }

    /// Connects. `name` is what the broker shows for this client.
    pub(crate) async fn open(broker: &BrokerArguments, name: &str) -> Result<Self, Trouble> {
        let addresses = parse_addresses(&broker.nats_url)?;
        let url = without_secrets(&addresses);
        let mut options = ConnectOptions::new()
            .name(format!("dirigent {name}"))
            .connection_timeout(CONNECT_TIME)
            .ping_interval(PING_INTERVAL)
            .request_timeout(Some(ANSWER_TIME));
        let is_told = broker.creds.is_some() || broker.user.is_some() || broker.token.is_some();
        if !is_told {
            options = dirigent_worker::authenticated(options, &addresses);
        }
        if let Some(path) = &broker.creds {
            options = options
                .credentials_file(path)
                .await
                .map_err(|source| Trouble::File {
                    path: path.clone(),
                    source,
                })?;
        }
        if let Some(user) = &broker.user {
            let password = broker.password.clone().unwrap_or_default();
            options = options.user_and_password(user.clone(), password);
        }
        if let Some(token) = &broker.token {
            options = options.token(token.clone());
        }
        let (sender, denied) = watch::channel(None);
        let sender = Arc::new(sender);
        options = options.event_callback(move |event| {
            let sender = Arc::clone(&sender);
            async move {
                if let Some(reason) = denial(&event) {
                    sender.send_replace(Some(reason));
                }
            }
        });
        match options.connect(addresses).await {
            Ok(client) => Ok(Self {
                client,
                url,
                denied,
            }),
            Err(error) => Err(refusal(url, &error)),
        }
    }

    /// Asks the coordinators.
    pub(crate) async fn ask<O: Operation>(&self, request: &O) -> Result<O::Answer, Trouble> {
        let strange = |reason: String| Trouble::StrangeAnswer {
            operation: O::NAME,
            reason,
        };
        let body = serde_json::to_vec(request).map_err(|error| strange(error.to_string()))?;
        let answer = self.client.request(subject::api(O::NAME), body.into());
        let answer = self
            .unless_denied(answer)
            .await?
            .map_err(|error| match error.kind() {
                RequestErrorKind::NoResponders => Trouble::NoCoordinator {
                    url: self.url.clone(),
                },
                RequestErrorKind::TimedOut => Trouble::NoAnswer {
                    url: self.url.clone(),
                    operation: O::NAME,
                    seconds: ANSWER_TIME.as_secs(),
                },
                RequestErrorKind::MaxPayloadExceeded => Trouble::Refused {
                    code: ErrorCode::TooLarge,
                    message: "the request is larger than the broker's max_payload".into(),
                },
                RequestErrorKind::InvalidSubject | RequestErrorKind::Other => Trouble::NoBroker {
                    url: self.url.clone(),
                    reason: error.to_string(),
                },
            })?;
        if let Some(refused) = answer.headers.as_ref().and_then(service_error) {
            return Err(refused);
        }
        serde_json::from_slice(&answer.payload).map_err(|error| strange(error.to_string()))
    }

    /// Waits for an answer, unless the broker says that this user may not ask.
    pub(crate) async fn unless_denied<T>(
        &self,
        answer: impl Future<Output = T>,
    ) -> Result<T, Trouble> {
        let mut denied = self.denied.clone();
        let denial = async {
            let told = denied.wait_for(Option::is_some).await;
            match told.map(|reason| reason.clone().unwrap_or_default()) {
                Ok(reason) => reason,
                // Nobody listens to what the broker says.
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            answer = answer => Ok(answer),
            reason = denial => Err(Trouble::Denied { url: self.url.clone(), reason }),
        }
    }

    /// What the broker said last that this user may not do.
    pub(crate) fn denial(&self) -> Option<String> {
        self.denied.borrow().clone()
    }

    /// What happened to a saga, gathered from as many answers as it takes.
    pub(crate) async fn history(&self, saga: &SagaAddress) -> Result<HistoryAnswer, Trouble> {
        let mut events = Vec::new();
        let mut from = HistoryPlace::default();
        loop {
            let request = HistoryRequest {
                saga: saga.clone(),
                from: Some(from),
            };
            let answer = self.ask(&request).await?;
            events.extend(answer.events);
            match answer.next {
                Some(next) => from = next,
                None => return Ok(HistoryAnswer { events, next: None }),
            }
        }
    }
}

/// What the broker says this user may not do, if that is what it says.
fn denial(event: &Event) -> Option<String> {
    match event {
        Event::ServerError(ServerError::Other(reason))
            if reason.to_lowercase().starts_with("permissions violation") =>
        {
            Some(reason.clone())
        }
        _ => None,
    }
}

/// The error that the NATS services protocol (ADR-32) puts into headers.
fn service_error(headers: &async_nats::HeaderMap) -> Option<Trouble> {
    let number = headers.get(header::SERVICE_ERROR_CODE)?.as_str();
    let code = number.parse().ok().and_then(ErrorCode::from_number);
    let message = headers
        .get(header::SERVICE_ERROR)
        .map_or("no reason was given", |it| it.as_str());
    if code == Some(ErrorCode::Overloaded) {
        let seconds = headers.get(header::RETRY_AFTER);
        let seconds = seconds.and_then(|seconds| seconds.as_str().parse().ok());
        return Some(Trouble::Overloaded {
            message: message.to_owned(),
            retry_after: Duration::from_secs(seconds.unwrap_or(1)),
        });
    }
    Some(Trouble::Refused {
        // A number that this build does not know: the fault is on the other side.
        code: code.unwrap_or(ErrorCode::Unavailable),
        message: message.to_owned(),
    })
}

fn parse_addresses(urls: &str) -> Result<Vec<ServerAddr>, Trouble> {
    let parse = |url: &str| {
        url.trim()
            .parse::<ServerAddr>()
            .map_err(|error| Trouble::NoBroker {
                // Without what stands before the host: it may be a password.
                url: url.trim().rsplit('@').next().unwrap_or_default().to_owned(),
                reason: format!(
                    "that is not an address ({error}); one looks like nats://host:4222"
                ),
            })
    };
    urls.split(',').map(parse).collect()
}

/// Addresses as they may be shown: without user and password.
fn without_secrets(addresses: &[ServerAddr]) -> String {
    let show = |address: &ServerAddr| {
        format!(
            "{}://{}:{}",
            address.scheme(),
            address.host(),
            address.port()
        )
    };
    addresses.iter().map(show).collect::<Vec<_>>().join(",")
}

fn refusal(url: String, error: &ConnectError) -> Trouble {
    match error.kind() {
        ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
            Trouble::Unauthorized { url }
        }
        ConnectErrorKind::ServerParse
        | ConnectErrorKind::Dns
        | ConnectErrorKind::TimedOut
        | ConnectErrorKind::Tls
        | ConnectErrorKind::Io
        | ConnectErrorKind::MaxReconnects => Trouble::NoBroker {
            url,
            reason: error.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_in_an_address_are_not_shown() {
        let addresses = parse_addresses("nats://me:secret@one:4222, tls://two").unwrap();
        assert_eq!(
            without_secrets(&addresses),
            "nats://one:4222,tls://two:4222"
        );
    }

    #[test]
    fn what_is_no_address_is_said_so() {
        let error = parse_addresses("nats://me:secret@one:port").unwrap_err();
        assert!(error.to_string().contains("nats://host:4222"), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }

    #[test]
    fn a_refusal_in_the_headers_is_understood() {
        let mut headers = async_nats::HeaderMap::new();
        assert!(service_error(&headers).is_none());
        headers.insert(header::SERVICE_ERROR_CODE, "409");
        headers.insert(header::SERVICE_ERROR, "order/o-1 has ended");
        let Some(Trouble::Refused { code, message }) = service_error(&headers) else {
            panic!("not a refusal")
        };
        assert_eq!(
            (code, message.as_str()),
            (ErrorCode::Conflict, "order/o-1 has ended")
        );
    }
}
