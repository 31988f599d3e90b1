//! Trying again what the broker has to do before anything else can go on.

use std::{fmt::Display, future::Future, time::Duration};
use tracing::{debug, warn};

/// The first pause.
const SHORTEST: Duration = Duration::from_millis(100);
/// The longest pause; each is twice the one before until then.
const LONGEST: Duration = Duration::from_secs(5);

/// Tries until it succeeds, for as long as the future is not dropped.
pub(crate) async fn insist<T, E, F, Fut>(what: &str, mut attempt: F) -> T
where
    E: Display,
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    let mut pause = SHORTEST;
    loop {
        match attempt().await {
            Ok(value) => {
                if pause > SHORTEST {
                    debug!(what, "succeeded at last");
                }
                return value;
            }
            Err(error) if pause == SHORTEST => {
                warn!(what, %error, "failed; trying again until it succeeds");
            }
            Err(error) => debug!(what, %error, ?pause, "failed again"),
        }
        tokio::time::sleep(pause).await;
        pause = LONGEST.min(pause * 2);
    }
}
