//! A connection to the broker that does not give up.

use async_nats::{Client, ConnectError, ConnectOptions, ServerAddr};
use percent_encoding::percent_decode_str;
use std::{io, time::Duration};

/// The longest pause between two attempts to reconnect.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How often an idle connection is probed. The third probe without an answer to the first two ends
/// it: so long may a server that stands still, or is cut off, hold up its clients.
const PING_INTERVAL: Duration = Duration::from_secs(2);

/// Connects to the broker, and reconnects for ever. A broker that is not there yet is waited for in
/// the background.
///
/// `urls` is one address, or those of several servers of a cluster with commas between. An address may hold
/// a user and a password, or a token: `nats://user:password@host`, `nats://token@host`.
///
/// For other credentials and for TLS make a client with [`ConnectOptions`] instead.
///
/// # Errors
/// If an address is none.
pub async fn connect(urls: &str) -> Result<Client, ConnectError> {
    let addresses = urls.split(',').map(|url| url.trim().parse());
    let addresses: Vec<ServerAddr> = addresses.collect::<Result<_, io::Error>>()?;
    let options = ConnectOptions::new()
        .retry_on_initial_connect()
        .ping_interval(PING_INTERVAL)
        .reconnect_delay_callback(|attempts| {
            let doubled = Duration::from_millis(50).saturating_mul(1 << attempts.min(10));
            doubled.min(LONGEST_PAUSE)
        });
    authenticated(options, &addresses).connect(addresses).await
}

/// Takes the credentials of the first address that has some: async-nats itself passes over them. A user
/// without a password is a token.
#[must_use]
pub fn authenticated(options: ConnectOptions, addresses: &[ServerAddr]) -> ConnectOptions {
    match addresses.iter().find_map(credentials) {
        Some((user, Some(password))) => options.user_and_password(user, password),
        Some((token, None)) => options.token(token),
        None => options,
    }
}

/// What stands before the `@`, which may be percent-encoded (RFC 3986, 3.2.1).
fn credentials(address: &ServerAddr) -> Option<(String, Option<String>)> {
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    Some((
        decoded(address.username()?),
        address.password().map(decoded),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_stand_before_the_host() {
        let of = |url: &str| credentials(&url.parse().unwrap());
        assert_eq!(of("nats://host:4222"), None);
        assert_eq!(of("nats://t0k%2Fen@host"), Some(("t0k/en".into(), None)));
        assert_eq!(
            of("tls://me:p%40ss%3A@host"),
            Some(("me".into(), Some("p@ss:".into())))
        );
    }
}
