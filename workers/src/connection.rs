//! A connection to the broker that does not give up.

use async_nats::{Client, ConnectError, ConnectOptions};
use std::time::Duration;

/// The longest pause between two attempts to reconnect.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How often an idle connection is probed; two probes without an answer end it.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// Connects to the broker, and reconnects for ever. A broker that is not there yet is waited for in
/// the background.
///
/// For credentials and TLS make a client with [`ConnectOptions`] instead.
///
/// # Errors
/// If the address is none.
pub async fn connect(url: &str) -> Result<Client, ConnectError> {
    ConnectOptions::new()
        .retry_on_initial_connect()
        .ping_interval(PING_INTERVAL)
        .reconnect_delay_callback(|attempts| {
            let doubled = Duration::from_millis(50).saturating_mul(1 << attempts.min(10));
            doubled.min(LONGEST_PAUSE)
        })
        .connect(url)
        .await
}
