//! The log of a run, as JSON lines at the level `trace`: what each line about a saga carries, and what
//! stands in none.

use anyhow::{Context as _, ensure};
use dirigent_contracts::outcome::SagaStatus;
use dirigent_coordinator::{Coordinator, Settings, telemetry::Telemetry};
use dirigent_tests::{
    crew::Crew,
    stage::{PATIENCE, Stage, settings},
};
use dirigent_worker::TaskError;
use serde_json::{Value, json};
use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tracing::Level;
use tracing_subscriber::{
    filter::filter_fn, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

/// Stands in every payload of the run.
const SECRET: &str = "4111-1111-1111-1111";

const ORDER: &str = "
Extensions: [saga/1]
QueryLanguage: JSONata
Triggers: [{ Event: logged.orders, Key: '{% $event.data.order %}' }]
StartAt: Reserve
States:
  Reserve:
    Type: Task
    Resource: task:reserve
    Compensate: { Resource: 'task:release', Retry: [{ ErrorEquals: [States.ALL], MaxAttempts: 0 }] }
    Next: Charge
  Charge: { Type: Task, Resource: 'task:charge', End: true }
";

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        written.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Written {
    fn text(&self) -> String {
        let written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&written).into_owned()
    }

    fn lines(&self) -> anyhow::Result<Vec<Value>> {
        let text = self.text();
        let lines = text
            .lines()
            .map(|line| serde_json::from_str(line).context(line.to_owned()));
        lines.collect()
    }
}

/// A field of a line, or of a span that it stands in.
fn field<'a>(line: &'a Value, name: &str) -> Option<&'a Value> {
    let spans = line["spans"].as_array().into_iter().flatten();
    std::iter::once(line)
        .chain(spans)
        .find_map(|fields| fields.get(name))
}

fn is(line: &Value, message: &str) -> bool {
    line["message"]
        .as_str()
        .is_some_and(|it| it.starts_with(message))
}

fn is_about(line: &Value, key: &str) -> bool {
    field(line, "key").is_some_and(|it| it == key)
}

async fn stage(log_payloads: bool) -> anyhow::Result<Stage> {
    let mut stage = Stage::start_without_coordinator().await?;
    let settings = Settings {
        log_payloads,
        ..settings("logged")
    };
    let client = stage.nats.connect().await?;
    stage.coordinator = Some(Coordinator::start(client, settings, Telemetry::default()).await?);
    stage.deploy("order", ORDER).await?;
    Ok(stage)
}

fn crew(stage: &Stage) -> Crew {
    Crew::new(stage.client.clone())
        .does("reserve", |call| async move {
            tracing::info!("the handler speaks");
            Ok(call.input)
        })
        .does("charge", |call| async move {
            assert!(call.key != "panics", "no card {SECRET}");
            match call.key.as_str() {
                "good" => Ok(json!({ "card": SECRET })),
                _ => Err(TaskError::new("Declined", format!("no card {SECRET}")).permanent()),
            }
        })
        .does("release", |_| async move {
            Err(TaskError::new("Closed", format!("no card {SECRET}")).permanent())
        })
}

#[tokio::test]
async fn lines_about_a_saga_name_it_and_no_line_holds_a_payload() -> anyhow::Result<()> {
    let written = Written::default();
    let writer = written.clone();
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .json()
        .flatten_event(true)
        .with_writer(move || writer.clone())
        .finish()
        // As the binary does: at `trace` this prints every message with its body.
        .with(filter_fn(|line| {
            line.target() != "async_nats::connection" || *line.level() != Level::TRACE
        }))
        .init();
    let stage = self::stage(false).await?;
    let working = crew(&stage).start()?;
    let input = json!({ "card": SECRET });
    stage.run("order", "good", input.clone()).await?;
    stage.begin("order", "stuck", input.clone()).await?;
    stage.stands("order", "stuck", SagaStatus::Stuck).await?;
    stage.begin("order", "panics", input.clone()).await?;
    stage.stands("order", "panics", SagaStatus::Stuck).await?;
    // What nobody can read, or expects: a request, a trigger event, and an entry of a journal.
    let request = format!(r#"{{"definition": {{"card": "{SECRET}"}}}}"#);
    assert!(
        stage
            .request_raw("start", request.into_bytes())
            .await
            .is_err()
    );
    let jetstream = async_nats::jetstream::new(stage.client.clone());
    let event = format!(r#"{{"order": {{"card": "{SECRET}"}}}}"#);
    jetstream
        .publish("logged.orders", event.into())
        .await?
        .await?;
    let reply = rmp_serde::to_vec_named(&json!({ "v": 1, "command": SECRET }))?;
    let subject = "dirigent.journal.0.order.x.reply.charge";
    jetstream.publish(subject, reply.into()).await?.await?;
    let until = Instant::now() + PATIENCE;
    for awaited in [
        "an event is a dead letter",
        "an entry of the journal cannot be read",
    ] {
        while !written.lines()?.iter().any(|line| is(line, awaited)) {
            ensure!(Instant::now() < until, "no line says that {awaited}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    drop(working);

    let text = written.text();
    let told = text.lines().find(|line| line.contains(SECRET));
    assert_eq!(told, None, "a payload is logged");
    let lines = written.lines()?;
    for key in ["good", "stuck", "panics"] {
        let about: Vec<_> = lines.iter().filter(|line| is_about(line, key)).collect();
        for message in ["the saga begins", "the handler speaks"] {
            assert!(
                about.iter().any(|line| is(line, message)),
                "{key}: {message}"
            );
        }
        for line in &about {
            let trace = field(line, "trace_id")
                .and_then(Value::as_str)
                .unwrap_or_default();
            let is_trace = trace.len() == 32 && trace.bytes().all(|byte| byte.is_ascii_hexdigit());
            assert!(is_trace, "{line}");
            assert_eq!(field(line, "definition"), Some(&json!("order")), "{line}");
            assert!(
                field(line, "partition").is_some_and(Value::is_u64),
                "{line}"
            );
        }
        let loud = about.iter().filter(|line| {
            let level = line["level"].as_str().unwrap_or_default();
            ["INFO", "WARN", "ERROR"].contains(&level) && !is(line, "the handler speaks")
        });
        let loud: Vec<_> = loud
            .map(|line| (line["level"].clone(), line["message"].clone()))
            .collect();
        let incident = (
            json!("ERROR"),
            json!("the saga is stuck: it needs a person"),
        );
        match key {
            "good" => assert_eq!(loud, []),
            "stuck" => assert_eq!(loud, [incident]),
            _ => assert_eq!(
                loud,
                [(json!("ERROR"), json!("a handler panicked")), incident]
            ),
        }
    }

    // Whoever asks for payloads gets them, so it was not for lack of lines.
    let telling = self::stage(true).await?;
    let _working = crew(&telling).start()?;
    telling.run("order", "good", input).await?;
    let lines = written.lines()?;
    let mut begins = lines.iter().filter(|line| is(line, "the saga begins"));
    ensure!(
        begins.any(|line| line["input"].to_string().contains(SECRET)),
        "asked for, not told"
    );
    Ok(())
}
