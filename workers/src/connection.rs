//! A connection to the broker that does not give up.

use async_nats::{Client, ConnectError, ConnectOptions};
use std::time::Duration;

/// The longest pause between two attempts to reconnect.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How often an idle connection is probed. The third probe without an answer to the first two ends
/// it: so long may a server that stands still, or is cut off, hold up its clients.
const PING_INTERVAL: Duration = Duration::from_secs(2);

/// Connects to the broker, and reconnects for ever. A broker that is not there yet is waited for in
/// the background.
///
/// `urls` is one address, or those of several servers of a cluster with commas between.
///
/// For credentials and TLS make a client with [`ConnectOptions`] instead.
///
/// # Errors
/// If an address is none.
pub async fn connect(urls: &str) -> Result<Client, ConnectError> {
    let addresses: Vec<&str> = urls.split(',').map(str::trim).collect();
    ConnectOptions::new()
        .retry_on_initial_connect()
        .ping_interval(PING_INTERVAL)
        .reconnect_delay_callback(|attempts| {
            let doubled = Duration::from_millis(50).saturating_mul(1 << attempts.min(10));
            doubled.min(LONGEST_PAUSE)
        })
        .connect(&addresses[..])
        .await
}
