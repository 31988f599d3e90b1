//! Workers that do as a test says, and remember every call.

use async_nats::Client;
use dirigent_contracts::task::Direction;
use dirigent_worker::{TaskContext, TaskError, Worker, WorkerBuilder};
use serde_json::Value;
use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// One execution of a handler.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The task.
    pub task: String,
    /// Key of the saga that asks.
    pub key: String,
    /// Which attempt.
    pub attempt: u32,
    /// Do or undo.
    pub direction: Direction,
    /// The effect id.
    pub effect: String,
    /// The effect that is to be undone, if one is.
    pub undoes: Option<String>,
    /// The input.
    pub input: Value,
    /// The token, if the step waits for one.
    pub token: Option<String>,
}

/// All calls so far, in order. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Calls(Arc<Mutex<Vec<Call>>>);

impl Calls {
    fn note(&self, call: Call) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(call);
    }

    /// All of them.
    pub fn all(&self) -> Vec<Call> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Their tasks.
    pub fn tasks(&self) -> Vec<String> {
        self.all().into_iter().map(|call| call.task).collect()
    }

    /// Those of one task.
    pub fn of(&self, task: &str) -> Vec<Call> {
        self.all()
            .into_iter()
            .filter(|call| call.task == task)
            .collect()
    }
}

/// Workers being hired.
#[derive(Debug)]
pub struct Crew {
    builder: WorkerBuilder,
    calls: Calls,
}

/// Workers at work, until dropped.
#[derive(Debug)]
pub struct Working {
    /// What they did.
    pub calls: Calls,
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
}

impl Crew {
    /// A crew without skills.
    pub fn new(client: Client) -> Self {
        Self {
            builder: Worker::builder(client).name("crew"),
            calls: Calls::default(),
        }
    }

    /// Remembers outcomes by effect id, as the SDK's inbox does.
    #[must_use]
    pub fn idempotent(mut self) -> Self {
        self.builder = self.builder.idempotent(true);
        self
    }

    /// Adds a task.
    #[must_use]
    pub fn does<F, Fut>(mut self, task: &str, work: F) -> Self
    where
        F: Fn(Call) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Value, TaskError>> + Send + 'static,
    {
        let calls = self.calls.clone();
        self.builder = self
            .builder
            .task(task, move |context: TaskContext, input: Value| {
                let call = Call {
                    task: context.task().to_string(),
                    key: context.saga().key.to_string(),
                    attempt: context.attempt(),
                    direction: context.direction(),
                    effect: context.effect_id().to_string(),
                    undoes: context.undoes().map(|effect| effect.to_string()),
                    input,
                    token: context.token().map(str::to_owned),
                };
                calls.note(call.clone());
                work(call)
            });
        self
    }

    /// Adds tasks that answer with their input.
    #[must_use]
    pub fn echoes(self, tasks: &[&str]) -> Self {
        tasks.iter().fold(self, |crew, task| {
            crew.does(task, |call| async move { Ok(call.input) })
        })
    }

    /// Adds a task that always fails with this error.
    #[must_use]
    pub fn fails(self, task: &str, error: TaskError) -> Self {
        self.does(task, move |_| std::future::ready(Err(error.clone())))
    }

    /// Begins to work.
    ///
    /// # Errors
    /// If the skills do not fit together.
    pub fn start(self) -> anyhow::Result<Working> {
        let worker = self.builder.build()?;
        let stop = CancellationToken::new();
        let task = tokio::spawn(worker.run(stop.clone()));
        Ok(Working {
            calls: self.calls,
            stop,
            task: Some(task),
        })
    }
}

impl Working {
    /// Stops when what is under way is done.
    ///
    /// # Errors
    /// If the worker broke off.
    pub async fn leave(mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        if let Some(task) = self.task.take() {
            task.await?;
        }
        Ok(())
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}
