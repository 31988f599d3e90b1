//! The recorded runs once more, through a real broker, a coordinator and a worker. Runs that take
//! more than a moment of virtual time are left out: nobody wants to wait for them.

use crate::{
    cases::{self, Case, Recording},
    compare,
    player::{Fault, Played, Player},
};
use dirigent_contracts::{
    api::CallbackRequest,
    definition::model::{Action, Machine},
    id::{CommandId, DefinitionName},
    outcome::{Failure, Outcome},
    task::TaskResult,
    time::Timestamp,
};
use dirigent_tests::stage::Stage;
use dirigent_worker::{TaskContext, TaskError, Worker};
use serde_json::Value;
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio_util::sync::CancellationToken;

/// Longer runs are left out.
const MOMENT: Duration = Duration::from_millis(1_500);

/// A run that is under way: what is to be answered, and what was sent.
struct Script {
    recording: Recording,
    answered: Vec<bool>,
    payloads: Vec<(Value, Value)>,
    strays: Vec<String>,
    /// What was answered to each command: one that comes again gets the same.
    given: HashMap<CommandId, Answer>,
}

/// By definition, of which there is one for each run: the items of a distributed Map share its script.
type Scripts = Arc<Mutex<HashMap<DefinitionName, Script>>>;

/// What the worker is to do about a command.
#[derive(Clone)]
enum Answer {
    Give(TaskResult),
    /// Pass it on; the callback gives the result.
    Submit(TaskResult),
}

impl Script {
    fn answer(&mut self, context: &TaskContext, input: &Value) -> Answer {
        let command = context.command_id();
        if let Some(known) = self.given.get(&command) {
            return known.clone();
        }
        let answer = self.next_answer(context, input);
        self.given.insert(command, answer.clone());
        answer
    }

    fn next_answer(&mut self, context: &TaskContext, input: &Value) -> Answer {
        let open = self
            .recording
            .tasks
            .iter()
            .enumerate()
            .filter(|(at, task)| {
                let is_of_state = task
                    .state
                    .as_ref()
                    .is_none_or(|state| state == context.state());
                !self.answered[*at] && is_of_state
            });
        let open: Vec<usize> = open.map(|(at, _)| at).collect();
        let same = open
            .iter()
            .copied()
            .find(|at| compare::agree(&self.recording.tasks[*at].payload, input));
        let Some(at) = same.or(open.first().copied()) else {
            if !self.recording.has_unrecorded() {
                let stray = format!("{} is called, and was not", context.state());
                self.strays.push(stray);
            }
            return Answer::Give(TaskResult::Succeeded {
                output: Arc::new(input.clone()),
            });
        };
        self.answered[at] = true;
        let task = &self.recording.tasks[at];
        self.payloads.push((task.payload.clone(), input.clone()));
        let result = task.result().unwrap_or(TaskResult::Succeeded {
            output: Arc::new(Value::Null),
        });
        if context.token().is_some() {
            Answer::Submit(result)
        } else {
            Answer::Give(result)
        }
    }
}

fn work(
    stage: Arc<Stage>,
    scripts: &Scripts,
    context: &TaskContext,
    input: &Value,
) -> Result<Value, TaskError> {
    let answer = {
        let mut scripts = scripts.lock().unwrap_or_else(PoisonError::into_inner);
        let script = scripts.get_mut(&context.saga().definition);
        let script = script.ok_or_else(|| TaskError::new("Unknown", "no such run"))?;
        script.answer(context, input)
    };
    match answer {
        Answer::Give(TaskResult::Failed { failure, .. }) => {
            Err(TaskError::new(failure.error, failure.cause))
        }
        Answer::Give(TaskResult::Succeeded { output }) => Ok(Value::clone(&output)),
        Answer::Give(TaskResult::Heartbeat) => Ok(Value::Null),
        Answer::Submit(result) => {
            let token = context.token().unwrap_or_default().to_owned();
            tokio::spawn(async move {
                // After the answer that the request was passed on.
                tokio::time::sleep(Duration::from_millis(100)).await;
                let _ = stage.request(&CallbackRequest { token, result }).await;
            });
            Ok(Value::Null)
        }
    }
}

/// Every task that a definition names.
fn tasks(machine: &Machine, found: &mut BTreeSet<String>) {
    machine.for_each_action(&mut |action| {
        if let Action::Task { task, .. } = action {
            found.insert(task.to_string());
        }
    });
}

/// The runs that are over in a moment if they begin now: one that waits for a fixed date may have been
/// quick when it was recorded.
fn quick(cases: &[Case]) -> anyhow::Result<Vec<(&Case, &Recording)>> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let now = Timestamp::from_millis(i64::try_from(now.as_millis())?);
    let runs = cases
        .iter()
        .flat_map(|case| case.runs.iter().map(move |run| (case, run)));
    let quick = runs.filter(|(case, run)| {
        Player::play(case, run, Fault::None, now).is_ok_and(|played| {
            played.elapsed < MOMENT && compare::differences(run, &played).is_empty()
        })
    });
    Ok(quick.collect())
}

#[tokio::test]
async fn recorded_runs_come_out_the_same_through_a_real_broker() -> anyhow::Result<()> {
    through_a_broker(false).await
}

#[tokio::test]
async fn recorded_runs_come_out_the_same_when_every_message_is_stored_twice() -> anyhow::Result<()>
{
    through_a_broker(true).await
}

async fn through_a_broker(is_doubled: bool) -> anyhow::Result<()> {
    let Some(cases) = cases::read() else {
        return Ok(());
    };
    let stage = Arc::new(Stage::start().await?);
    let doubler = if is_doubled {
        Some(stage.double_everything().await?)
    } else {
        None
    };
    let runs = quick(&cases)?;
    let mut names = BTreeSet::new();
    for (case, run) in &runs {
        let document = case.machines[&run.machine].to_string();
        if let Ok((parsed, _)) = dirigent_coordinator::compile("recorded.json", &document) {
            tasks(&parsed.definition.machine, &mut names);
        }
    }
    let scripts = Scripts::default();
    let mut builder = Worker::builder(stage.nats.connect().await?);
    for name in &names {
        let (stage, scripts) = (Arc::clone(&stage), Arc::clone(&scripts));
        builder = builder.task(name, move |context: TaskContext, input: Value| {
            std::future::ready(work(Arc::clone(&stage), &scripts, &context, &input))
        });
    }
    let stop = CancellationToken::new();
    let worker = tokio::spawn(builder.build()?.run(stop.clone()));
    let mut differing = Vec::new();
    for (number, (case, run)) in runs.iter().enumerate() {
        let name = format!("recorded-{number}");
        stage
            .deploy(&name, &case.machines[&run.machine].to_string())
            .await?;
        let saga = dirigent_tests::stage::address(&name, "run")?;
        let script = Script {
            answered: vec![false; run.tasks.len()],
            recording: (*run).clone(),
            payloads: Vec::new(),
            strays: Vec::new(),
            given: HashMap::new(),
        };
        scripts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(saga.definition.clone(), script);
        let ended = stage.run(&name, "run", run.input.clone()).await?;
        let history = stage.history(&name, "run").await?;
        let script = scripts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&saga.definition);
        let (payloads, strays) =
            script.map_or_else(Default::default, |script| (script.payloads, script.strays));
        let played = Played {
            outcome: Some(Outcome {
                status: ended.status,
                output: ended.output.map(Arc::new),
                failure: ended
                    .failure
                    .or_else(|| Some(Failure::new("", "")))
                    .filter(|_| ended.status != dirigent_contracts::outcome::SagaStatus::Succeeded),
            }),
            payloads,
            strays,
            history,
            elapsed: Duration::ZERO,
        };
        for difference in compare::differences(run, &played) {
            // Which of two branches hears from its worker first is open.
            if difference.is_of_level_1() || !run.is_concurrent() {
                differing.push(format!("{}: {difference}", case.id));
            }
        }
    }
    stop.cancel();
    worker.await?;
    if let Some(doubler) = doubler {
        doubler.abort();
    }
    let how = if is_doubled {
        ", every message twice"
    } else {
        ""
    };
    println!(
        "through a real broker{how}: {} runs, {} differ",
        runs.len(),
        differing.len()
    );
    anyhow::ensure!(differing.is_empty(), "{differing:#?}");
    anyhow::ensure!(runs.len() > 200, "only {} runs are quick", runs.len());
    Ok(())
}
