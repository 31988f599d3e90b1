//! Spans, as a tracing backend receives them: whole trees of sagas of every kind.

mod backend;

use crate::node::Node;
use anyhow::Context as _;
use async_nats::HeaderMap;
use backend::Backend;
use dirigent_coordinator::telemetry::Telemetry;
use dirigent_tests::stage::{PATIENCE, Stage};
use serde_json::json;
use std::time::{Duration, Instant};

/// A stage whose coordinator and worker export to a backend.
struct Traced {
    backend: Backend,
    stage: Stage,
    telemetry: Telemetry,
    _worker: Node,
}

impl Traced {
    async fn start() -> anyhow::Result<Self> {
        let backend = Backend::start().await?;
        let traces = format!("{}/v1/traces", backend.address);
        let telemetry = Telemetry::to_endpoint("coordinator", &traces)?;
        let stage = Stage::start_traced(telemetry.clone()).await?;
        let worker = start_worker(&stage, &backend)?;
        Ok(Self {
            backend,
            stage,
            telemetry,
            _worker: worker,
        })
    }

    /// Waits for so many spans, lets the coordinator tell the rest, and draws them.
    async fn drawn(mut self, spans: usize) -> anyhow::Result<String> {
        self.backend.forest(spans).await?;
        if let Some(coordinator) = self.stage.coordinator.take() {
            coordinator.stop().await;
        }
        self.telemetry.shutdown().await;
        Ok(self.backend.forest(spans).await?.draw())
    }
}

fn start_worker(stage: &Stage, backend: &Backend) -> anyhow::Result<Node> {
    let ledger = stage.nats.directory().join("ledger");
    let variables = backend.variables("worker");
    Node::start_with(
        "worker",
        &ledger.to_string_lossy(),
        &stage.nats.url(),
        &variables,
    )
}

const TWO_STEPS: &str = "
Extensions: [saga/1]
QueryLanguage: JSONata
Triggers: [{ Event: traced.orders, Key: '{% $event.data.order %}' }]
StartAt: A
States:
  A: { Type: Task, Resource: 'task:do-a', Compensate: { Resource: 'task:undo-a' }, Next: B }
  B:
    Type: Task
    Resource: task:do-b
    Retry: [{ ErrorEquals: [Flaky], IntervalSeconds: 1, MaxAttempts: 2 }]
    End: true
";

#[tokio::test]
async fn a_saga_is_a_tree_of_its_states_attempts_and_executions() -> anyhow::Result<()> {
    let traced = Traced::start().await?;
    traced.stage.deploy("order", TWO_STEPS).await?;
    traced.stage.run("order", "k-1", json!({})).await?;
    insta::assert_snapshot!(traced.drawn(7).await?);
    Ok(())
}

#[tokio::test]
async fn an_attempt_is_linked_to_the_one_before_and_the_pause_lies_between() -> anyhow::Result<()> {
    let traced = Traced::start().await?;
    let document = "
Extensions: [saga/1]
QueryLanguage: JSONata
StartAt: Try
States:
  Try:
    Type: Task
    Resource: task:do-b
    Retry: [{ ErrorEquals: [Flaky], IntervalSeconds: 1, MaxAttempts: 2 }]
    Next: Rest
  Rest: { Type: Wait, Seconds: 1, End: true }
";
    traced.stage.deploy("retried", document).await?;
    let input = json!({"flaky": 1});
    traced.stage.run("retried", "k-1", input).await?;
    insta::assert_snapshot!(traced.drawn(9).await?);
    Ok(())
}

#[tokio::test]
async fn the_way_back_is_a_span_around_the_undos() -> anyhow::Result<()> {
    let traced = Traced::start().await?;
    traced.stage.deploy("order", TWO_STEPS).await?;
    let input = json!({"refuse": "do-b"});
    traced.stage.run("order", "k-1", input).await?;
    insta::assert_snapshot!(traced.drawn(10).await?);
    Ok(())
}

#[tokio::test]
async fn a_child_saga_lies_in_the_step_that_waits_for_it() -> anyhow::Result<()> {
    const PARENT: &str = "
Extensions: [saga/1]
QueryLanguage: JSONata
StartAt: Delegate
States:
  Delegate: { Type: Task, Resource: 'saga:child', End: true }
";
    const CHILD: &str = "
Extensions: [saga/1]
QueryLanguage: JSONata
StartAt: C
States:
  C: { Type: Task, Resource: 'task:do-c', End: true }
";
    let traced = Traced::start().await?;
    traced.stage.deploy("child", CHILD).await?;
    traced.stage.deploy("parent", PARENT).await?;
    traced.stage.run("parent", "k-1", json!({})).await?;
    insta::assert_snapshot!(traced.drawn(7).await?);
    Ok(())
}

#[tokio::test]
async fn branches_and_iterations_lie_beside_each_other() -> anyhow::Result<()> {
    const DOCUMENT: &str = "
Extensions: [saga/1]
QueryLanguage: JSONata
StartAt: Both
States:
  Both:
    Type: Parallel
    Branches:
      - StartAt: A
        States: { A: { Type: Task, Resource: 'task:do-a', End: true } }
      - StartAt: Pause
        States:
          Pause: { Type: Wait, Seconds: 1, Next: B }
          B: { Type: Task, Resource: 'task:do-b', End: true }
    Next: Each
  Each:
    Type: Map
    Items: [1, 2]
    ItemProcessor:
      StartAt: Kind
      States:
        Kind:
          Type: Choice
          Choices: [{ Condition: '{% $states.input = 1 %}', Next: Fine }]
          Default: Fine
        Fine: { Type: Pass, End: true }
    End: true
";
    let traced = Traced::start().await?;
    traced.stage.deploy("wide", DOCUMENT).await?;
    traced.stage.run("wide", "k-1", json!({})).await?;
    insta::assert_snapshot!(traced.drawn(19).await?);
    Ok(())
}

#[tokio::test]
async fn a_failed_branch_breaks_the_others_off_and_nothing_is_an_orphan() -> anyhow::Result<()> {
    const DOCUMENT: &str = "
Extensions: [saga/1]
QueryLanguage: JSONata
StartAt: Both
States:
  Both:
    Type: Parallel
    Branches:
      - StartAt: Forever
        States: { Forever: { Type: Task, Resource: 'event:never.comes.await', End: true } }
      - StartAt: B
        States: { B: { Type: Task, Resource: 'task:do-b', End: true } }
    End: true
";
    let traced = Traced::start().await?;
    traced.stage.deploy("broken", DOCUMENT).await?;
    let input = json!({"refuse": "do-b"});
    traced.stage.run("broken", "k-1", input).await?;
    insta::assert_snapshot!(traced.drawn(9).await?);
    Ok(())
}

#[tokio::test]
async fn a_trace_leads_from_event_to_event_through_sagas_and_workers() -> anyhow::Result<()> {
    const FIRST: &str = "
Extensions: [saga/1]
QueryLanguage: JSONata
Triggers: [{ Event: traced.orders, Key: '{% $event.data.order %}' }]
StartAt: A
States:
  A: { Type: Task, Resource: 'task:do-a', Next: Tell }
  Tell: { Type: Task, Resource: 'event:traced.paid', Arguments: { order: 'k-2' }, End: true }
";
    const SECOND: &str = "
Extensions: [saga/1]
QueryLanguage: JSONata
Triggers: [{ Event: traced.paid, Key: '{% $event.data.order %}' }]
StartAt: B
States:
  B: { Type: Task, Resource: 'task:do-b', End: true }
";
    let traced = Traced::start().await?;
    traced.stage.deploy("first", FIRST).await?;
    traced.stage.deploy("second", SECOND).await?;
    let (trace, caller) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    publish(&traced.stage, &format!("00-{trace}-{caller}-01"), "k-1").await?;
    traced.stage.ended("second", "k-2").await?;
    let forest = traced.backend.forest(10).await?;
    let roots = forest.roots();
    assert_eq!(roots.len(), 1, "{}", forest.draw());
    let hex = |bytes: &[u8]| {
        let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
        digits.collect::<String>()
    };
    assert_eq!(hex(&roots[0].trace_id), trace);
    assert_eq!(hex(&roots[0].parent_span_id), caller);
    insta::assert_snapshot!(traced.drawn(10).await?);
    Ok(())
}

async fn publish(stage: &Stage, traceparent: &str, order: &str) -> anyhow::Result<()> {
    let mut headers = HeaderMap::new();
    headers.insert("traceparent", traceparent);
    let body = json!({ "order": order }).to_string();
    async_nats::jetstream::new(stage.client.clone())
        .publish_with_headers("traced.orders", headers, body.into())
        .await?
        .await?;
    Ok(())
}

#[tokio::test]
async fn what_a_caller_does_not_record_is_not_recorded() -> anyhow::Result<()> {
    let traced = Traced::start().await?;
    traced.stage.deploy("order", TWO_STEPS).await?;
    let caller = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
    publish(&traced.stage, caller, "unrecorded").await?;
    traced.stage.ended("order", "unrecorded").await?;
    traced.stage.run("order", "recorded", json!({})).await?;
    let forest = traced.backend.forest(7).await?;
    assert_eq!(forest.roots().len(), 1, "{}", forest.draw());
    assert_eq!(forest.spans.len(), 7, "{}", forest.draw());
    Ok(())
}

#[tokio::test]
async fn a_wait_for_an_event_is_linked_to_its_publisher() -> anyhow::Result<()> {
    const WAITING: &str = "
Extensions: [saga/1]
QueryLanguage: JSONata
StartAt: Paid
States:
  Paid: { Type: Task, Resource: 'event:traced.paid.await', Next: Shipped }
  Shipped: { Type: Task, Resource: 'event:traced.shipped.await', End: true }
";
    const TELLING: &str = "
Extensions: [saga/1]
QueryLanguage: JSONata
StartAt: Ship
States:
  Ship: { Type: Task, Resource: 'event:traced.shipped', Next: Pay }
  Pay: { Type: Task, Resource: 'event:traced.paid', End: true }
";
    let traced = Traced::start().await?;
    traced.stage.deploy("waiting", WAITING).await?;
    traced.stage.deploy("telling", TELLING).await?;
    traced.stage.begin("waiting", "k-1", json!({})).await?;
    traced
        .stage
        .until("waiting", "k-1", |saga| !saga.activities.is_empty())
        .await?;
    // The second event comes first, and is kept.
    traced.stage.run("telling", "k-1", json!({})).await?;
    traced.stage.ended("waiting", "k-1").await?;
    insta::assert_snapshot!(traced.drawn(10).await?);
    Ok(())
}

#[tokio::test]
async fn another_coordinator_goes_on_with_the_same_spans() -> anyhow::Result<()> {
    const DOCUMENT: &str = "
Extensions: [saga/1]
QueryLanguage: JSONata
StartAt: A
States:
  A: { Type: Task, Resource: 'task:do-a', Compensate: { Resource: 'task:undo-a' }, Next: Rest }
  Rest: { Type: Wait, Seconds: 2, Next: B }
  B: { Type: Task, Resource: 'task:do-b', End: true }
";
    let backend = Backend::start().await?;
    let stage = Stage::start_without_coordinator().await?;
    let variables = backend.variables("coordinator");
    let start = |name| Node::start_with("coordinator", name, &stage.nats.url(), &variables);
    let mut first = start("first")?;
    stage.deploy("order", DOCUMENT).await?;
    let _worker = start_worker(&stage, &backend)?;
    let input = json!({"refuse": "do-b"});
    stage.begin("order", "k-1", input).await?;
    // The state A, the attempt at it, and its execution.
    backend.forest(3).await?;
    first.kill()?;
    let _second = start("second")?;
    stage.ended("order", "k-1").await?;
    let forest = backend.forest(12).await?;
    assert_eq!(forest.roots().len(), 1, "{}", forest.draw());
    insta::assert_snapshot!(forest.draw());
    Ok(())
}

#[tokio::test]
async fn metrics_are_pushed_beside_the_spans() -> anyhow::Result<()> {
    let backend = Backend::start().await?;
    let stage = Stage::start_without_coordinator().await?;
    let variables = backend.variables("coordinator");
    let _coordinator = Node::start_with("coordinator", "one", &stage.nats.url(), &variables)?;
    stage.deploy("order", TWO_STEPS).await?;
    let _worker = start_worker(&stage, &backend)?;
    stage.run("order", "k-1", json!({})).await?;
    let until = Instant::now() + PATIENCE;
    loop {
        let coordinator = backend.metrics("coordinator");
        let worker = backend.metrics("worker");
        let has = |name: &str| coordinator.contains_key(name) || worker.contains_key(name);
        let wanted = ["dirigent.saga.duration", "dirigent.worker.run.duration"];
        let missing = wanted.into_iter().find(|name| !has(name));
        let Some(missing) = missing else {
            let started = &coordinator
                .get("dirigent.sagas.started")
                .context("no sagas")?;
            assert!(started.data.is_some(), "{started:?}");
            return Ok(());
        };
        let known: Vec<_> = coordinator.keys().chain(worker.keys()).collect();
        anyhow::ensure!(Instant::now() < until, "no {missing} among {known:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
