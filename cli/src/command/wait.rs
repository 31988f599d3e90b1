//! Waiting for a saga's end, and showing on a terminal what it does meanwhile.

use crate::{connection::Connection, render, trouble::Trouble};
use dirigent_contracts::{
    api::{DescribeRequest, ErrorCode, SagaDescription},
    id::SagaAddress,
    outcome::SagaStatus,
};
use std::{
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

/// Pauses between two looks: short at first, for sagas that are quick.
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Waits until a saga is over, or stuck.
pub(super) async fn until_over(
    connection: &Connection,
    saga: &SagaAddress,
    timeout: Option<Duration>,
) -> Result<SagaDescription, Trouble> {
    let began = Instant::now();
    let mut pause = SHORTEST_PAUSE;
    let mut progress = Progress {
        is_shown: io::stderr().is_terminal(),
        last: String::new(),
    };
    loop {
        let status = match connection
            .ask(&DescribeRequest { saga: saga.clone() })
            .await
        {
            Ok(description) => {
                let status = description.status;
                if status.is_terminal() || status == SagaStatus::Stuck {
                    progress.clear();
                    return Ok(description);
                }
                let doing = description
                    .activities
                    .iter()
                    .map(|activity| activity.waits_for.as_str());
                let doing = doing.collect::<Vec<_>>().join("; ");
                progress.show(&render::visible(format!("{saga}: {doing}")));
                status.to_string()
            }
            // Its start is stored, and not folded yet.
            Err(Trouble::Refused {
                code: ErrorCode::NotFound,
                ..
            }) => "starting".to_owned(),
            Err(trouble) => return Err(trouble),
        };
        if timeout.is_some_and(|timeout| began.elapsed() > timeout) {
            progress.clear();
            return Err(Trouble::TimedOut {
                saga: saga.to_string(),
                status,
                waited: format!("{} s", began.elapsed().as_secs()),
                describe: describe(saga),
            });
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = tokio::signal::ctrl_c() => {
                progress.clear();
                return Err(Trouble::TimedOut {
                    saga: saga.to_string(),
                    status: format!("{status}, and goes on"),
                    waited: format!("{} s", began.elapsed().as_secs()),
                    describe: describe(saga),
                });
            }
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// The command that tells how a saga stands.
fn describe(saga: &SagaAddress) -> String {
    format!(
        "dirigent describe {} {}",
        saga.definition,
        render::quoted(&saga.key)
    )
}

/// One line on stderr that is written over.
struct Progress {
    is_shown: bool,
    last: String,
}

impl Progress {
    fn show(&mut self, line: &str) {
        if self.is_shown && line != self.last {
            // A progress line that cannot be written is no reason to stop.
            let _ = write!(io::stderr(), "\r\x1b[2K{line}");
            line.clone_into(&mut self.last);
        }
    }

    fn clear(&mut self) {
        if self.is_shown && !self.last.is_empty() {
            let _ = write!(io::stderr(), "\r\x1b[2K");
        }
    }
}
