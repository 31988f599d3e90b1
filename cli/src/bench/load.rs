//! The load: so many sagas in flight at a time, each started as soon as another has ended.

use super::workload::{Workload, input};
use crate::{connection::Connection, trouble::Trouble};
use dirigent_contracts::{
    api::StartRequest,
    id::{IdError, SagaKey},
    subject,
};
use futures::StreamExt as _;
use hdrhistogram::Histogram;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A saga that has not ended by then never will.
const PATIENCE: Duration = Duration::from_secs(60);
/// Precision of the latencies, in significant digits.
const DIGITS: u8 = 3;

/// One workload at one level.
pub(super) struct Load<'a> {
    pub(super) connection: &'a Connection,
    pub(super) workload: Workload,
    pub(super) in_flight: usize,
}

/// How it went.
pub(super) struct Outcome {
    pub(super) sagas: usize,
    pub(super) elapsed: Duration,
    /// From start to outcome, in microseconds.
    pub(super) latencies: Histogram<u64>,
}

/// The sagas under way: when each was asked for, and its place among those in flight.
type UnderWay = Arc<Mutex<HashMap<SagaKey, (Instant, OwnedSemaphorePermit)>>>;

impl Load<'_> {
    /// Runs sagas to their end. `phase` keeps their keys apart.
    pub(super) async fn run(&self, phase: &str, sagas: usize) -> Result<Outcome, Trouble> {
        let client = &self.connection.client;
        let outcomes = format!("dirigent.event.{}.*.*", self.workload.name());
        let broken = |reason: String| Trouble::NotStarted {
            what: "the load",
            reason,
        };
        let mut ended = client
            .subscribe(outcomes)
            .await
            .map_err(|error| broken(error.to_string()))?;
        client
            .flush()
            .await
            .map_err(|error| broken(error.to_string()))?;
        let under_way = UnderWay::default();
        let began = Instant::now();
        let listening = {
            let under_way = Arc::clone(&under_way);
            let mut latencies =
                Histogram::new(DIGITS).map_err(|error| broken(error.to_string()))?;
            async move {
                let mut left = sagas;
                while left > 0 {
                    let message = tokio::time::timeout(PATIENCE, ended.next()).await;
                    let Ok(Some(message)) = message else {
                        return Err(broken(format!("{left} of {sagas} sagas did not end")));
                    };
                    let Ok((address, _)) = subject::parse_event(&message.subject) else {
                        continue;
                    };
                    let mut under_way = under_way.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some((since, _place)) = under_way.remove(&address.key) {
                        left -= 1;
                        latencies
                            .record(micros(since.elapsed()))
                            .map_err(|error| broken(error.to_string()))?;
                    }
                }
                Ok(latencies)
            }
        };
        let (latencies, ()) =
            tokio::try_join!(listening, self.start_all(phase, sagas, &under_way))?;
        Ok(Outcome {
            sagas,
            elapsed: began.elapsed(),
            latencies,
        })
    }

    async fn start_all(
        &self,
        phase: &str,
        sagas: usize,
        under_way: &UnderWay,
    ) -> Result<(), Trouble> {
        let places = Arc::new(Semaphore::new(self.in_flight));
        let (definition, input) = (self.workload.deployment()?.name, input());
        let no_key = |error: IdError| Trouble::NoName {
            path: phase.into(),
            reason: error.to_string(),
        };
        let starts = futures::stream::iter(0..sagas).map(|number| {
            let (places, definition, input) = (&places, definition.clone(), input.clone());
            async move {
                let Ok(place) = Arc::clone(places).acquire_owned().await else {
                    return Ok(());
                };
                let key: SagaKey = format!("{phase}-{}-{number}", self.in_flight)
                    .parse()
                    .map_err(no_key)?;
                under_way
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(key.clone(), (Instant::now(), place));
                let request = StartRequest {
                    definition,
                    key: Some(key),
                    input,
                    digest: None,
                };
                self.connection.ask(&request).await?;
                Ok(())
            }
        });
        let mut starts = starts.buffer_unordered(self.in_flight);
        while let Some(started) = starts.next().await {
            started?;
        }
        Ok(())
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
