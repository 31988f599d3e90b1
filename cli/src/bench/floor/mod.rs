//! The floor: what the broker itself costs.
//!
//! The messages of a saga are moved with nothing behind them: the same streams, consumers, subjects,
//! headers, sizes and acknowledgements, and processes in the same places, but a counter in the message
//! instead of a saga. What is left out is the work of an orchestrator, and the request and answer by
//! which a saga is started: here the load stores the start itself.
//!
//! What a saga sends is not written down here but recorded from one that a real coordinator runs.

mod coordinator;
mod recording;
mod worker;

pub(super) use recording::{Recordings, record};

use super::process::READY;
use crate::{
    arguments::{BenchFloorArguments, FloorPart},
    connection::Connection,
    exit::Exit,
    render,
    trouble::Trouble,
};
use async_nats::Message;
use bytes::Bytes;

/// Runs a process of the floor until it is ended.
pub(crate) async fn floor(
    connection: Connection,
    arguments: &BenchFloorArguments,
) -> Result<Exit, Trouble> {
    let recordings = Recordings::read(&arguments.recordings)?;
    match arguments.part {
        FloorPart::Coordinator => coordinator::coordinate(&connection.client, &recordings).await?,
        FloorPart::Worker => worker::work(&connection.client, &recordings).await?,
    }
    Ok(Exit::Done)
}

fn tell_ready() -> Result<(), Trouble> {
    render::print(&format!("{READY}\n"))
}

/// An acknowledgement of the broker must be one.
fn check(acknowledgement: &Message) -> Result<(), Trouble> {
    let is_error = acknowledgement.payload.starts_with(b"{\"error\"");
    if is_error || acknowledgement.status.is_some() {
        let text = String::from_utf8_lossy(&acknowledgement.payload);
        return Err(Trouble::bench(format!("a message was not stored: {text}")));
    }
    Ok(())
}

/// A body of so many bytes that begins with the number of a step, and perhaps a subject.
fn body(bytes: usize, step: u16, subject: &str) -> Bytes {
    let mut body = Vec::with_capacity(bytes);
    body.extend(step.to_be_bytes());
    body.extend(subject.as_bytes());
    body.resize(bytes, 0);
    body.into()
}

/// The step and the subject of such a body.
fn parse(body: &[u8]) -> Result<(u16, &str), Trouble> {
    let strange = || Trouble::bench("a message of the floor cannot be read");
    let (step, rest) = body.split_first_chunk().ok_or_else(strange)?;
    let end = rest.iter().position(|byte| *byte == 0);
    let subject = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
    let subject = std::str::from_utf8(subject).map_err(|_| strange())?;
    Ok((u16::from_be_bytes(*step), subject))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_has_its_size_and_tells_its_step() {
        let body = body(200, 7, "dirigent.journal.0.w.k.reply.t");
        assert_eq!(body.len(), 200);
        assert_eq!(parse(&body).unwrap(), (7, "dirigent.journal.0.w.k.reply.t"));
        assert_eq!(parse(&super::body(4, 9, "")).unwrap(), (9, ""));
        assert!(parse(&[1]).is_err());
    }
}
