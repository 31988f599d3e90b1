//! The worker: which tasks it offers, and how many commands it works on at a time.

use crate::{
    backoff::insist,
    context::TaskContext,
    error::TaskError,
    execution::Executor,
    handler::{Handler, erase},
    inbox::Inbox,
    metrics::TaskMeter,
    pull::{PullError, Puller, open_consumer},
};
use async_nats::{Client, jetstream};
use dirigent_contracts::{
    consumer,
    id::{IdError, TaskName},
};
use dirigent_payloads::Payloads;
use futures::future::join_all;
use serde::{Serialize, de::DeserializeOwned};
use std::{collections::BTreeMap, fmt, future::Future, io, sync::Arc, time::Duration};
use tokio::{sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Commands of one task that a worker works on at a time, if it is not said.
const CONCURRENCY: usize = 32;
/// How long a stopping worker lets its handlers run, if it is not said.
const DRAIN_LIMIT: Duration = Duration::from_secs(20);

/// Variable that lets words be logged that may quote a payload.
const LOG_PAYLOADS: &str = "DIRIGENT_LOG_PAYLOADS";

/// Why a worker cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The name of a task is none.
    #[error("{name:?} cannot be the name of a task: {reason}")]
    Name {
        /// The name.
        name: String,
        /// Why not.
        reason: IdError,
    },
    /// A task was given two handlers.
    #[error("the task {0} has two handlers: remove one of them")]
    Twice(TaskName),
    /// There is nothing to do.
    #[error("the worker offers no task: add one with `task`")]
    NoTask,
}

/// Collects what a worker offers.
pub struct WorkerBuilder {
    client: Client,
    name: String,
    concurrency: usize,
    drain_limit: Duration,
    is_idempotent: bool,
    tasks: Vec<(String, Handler)>,
}

impl fmt::Debug for WorkerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tasks: Vec<&str> = self.tasks.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("WorkerBuilder")
            .field("name", &self.name)
            .field("tasks", &tasks)
            .finish_non_exhaustive()
    }
}

impl WorkerBuilder {
    /// The name that its replies carry, for people. The process's number if it is not said.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// How many commands of each task it works on at a time; it asks for no more than that.
    #[must_use]
    pub fn concurrency(mut self, commands: usize) -> Self {
        self.concurrency = commands.max(1);
        self
    }

    /// How long handlers may go on when the worker is asked to stop. The commands of those that do
    /// not end in time go to another worker.
    #[must_use]
    pub fn drain_limit(mut self, limit: Duration) -> Self {
        self.drain_limit = limit;
        self
    }

    /// Whether outcomes are remembered by effect id, so that a command that comes again is answered
    /// without doing its work a second time. Costs two writes a command, so it is off by default:
    /// a service with a database of its own does better to keep the effect id there.
    #[must_use]
    pub fn idempotent(mut self, is_idempotent: bool) -> Self {
        self.is_idempotent = is_idempotent;
        self
    }

    /// Offers a task.
    #[must_use]
    pub fn task<I, O, F, Fut>(mut self, name: &str, handler: F) -> Self
    where
        F: Fn(TaskContext, I) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<O, TaskError>> + Send + 'static,
        I: DeserializeOwned,
        O: Serialize,
    {
        self.tasks.push((name.to_owned(), erase(handler)));
        self
    }

    /// Checks the names.
    ///
    /// # Errors
    /// If a name is none, or stands twice, or there is no task at all.
    pub fn build(self) -> Result<Worker, BuildError> {
        let mut tasks = BTreeMap::new();
        for (name, handler) in self.tasks {
            let task =
                TaskName::new(name.as_str()).map_err(|reason| BuildError::Name { name, reason })?;
            if tasks.insert(task.clone(), handler).is_some() {
                return Err(BuildError::Twice(task));
            }
        }
        if tasks.is_empty() {
            return Err(BuildError::NoTask);
        }
        let jetstream = jetstream::new(self.client.clone());
        Ok(Worker {
            inbox: self.is_idempotent.then(|| Inbox::new(jetstream.clone())),
            client: self.client,
            jetstream,
            name: self.name.into(),
            concurrency: self.concurrency,
            drain_limit: self.drain_limit,
            tasks,
        })
    }
}

/// Does tasks.
pub struct Worker {
    client: Client,
    jetstream: jetstream::Context,
    name: Arc<str>,
    concurrency: usize,
    drain_limit: Duration,
    inbox: Option<Inbox>,
    tasks: BTreeMap<TaskName, Handler>,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tasks: Vec<_> = self.tasks.keys().collect();
        f.debug_struct("Worker")
            .field("name", &self.name)
            .field("tasks", &tasks)
            .finish_non_exhaustive()
    }
}

impl Worker {
    /// Begins to build a worker on this connection.
    pub fn builder(client: Client) -> WorkerBuilder {
        WorkerBuilder {
            client,
            name: format!("worker-{}", std::process::id()),
            concurrency: CONCURRENCY,
            drain_limit: DRAIN_LIMIT,
            is_idempotent: false,
            tasks: Vec::new(),
        }
    }

    /// Works until `stop`; then takes nothing new, and waits for what is under way. A broker that is
    /// away, or a task that no definition has named yet, is waited for.
    pub async fn run(self, stop: CancellationToken) {
        let log_payloads = std::env::var(LOG_PAYLOADS).is_ok_and(|it| it == "1" || it == "true");
        info!(worker = %self.name, tasks = ?self.tasks.keys().collect::<Vec<_>>(), "the worker is at work");
        // Tasks of the runtime, not of the caller: a program's main thread is no thread of its pool, and
        // would have to be woken for every command. They end with this function, like what they run.
        let mut loops = JoinSet::new();
        for (task, handler) in self.tasks {
            let executor = Executor {
                jetstream: self.jetstream.clone(),
                payloads: Payloads::new(self.jetstream.clone()),
                handler,
                inbox: self.inbox.clone(),
                worker: Arc::clone(&self.name),
                meter: Arc::new(TaskMeter::new(&task, self.concurrency)),
                stop: stop.clone(),
                log_payloads,
                progress_interval: consumer::ACK_WAIT / 3,
            };
            let desk = Desk {
                client: self.client.clone(),
                task,
                concurrency: self.concurrency,
                stop: stop.clone(),
            };
            loops.spawn(desk.work(executor));
        }
        let mut running = Vec::new();
        while let Some(ended) = loops.join_next().await {
            match ended {
                Ok(of_task) => running.push(of_task),
                Err(error) => warn!(%error, "a task is not worked on any more"),
            }
        }
        let ended = join_all(running.iter_mut().map(drain));
        if tokio::time::timeout(self.drain_limit, ended).await.is_err() {
            let left: usize = running.iter().map(JoinSet::len).sum();
            warn!(
                left,
                "handlers did not end in time; their commands go to others"
            );
        }
    }

    /// Works until the process gets SIGTERM or SIGINT.
    ///
    /// # Errors
    /// If the signals cannot be listened for.
    pub async fn run_until_signal(self) -> io::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let stop = CancellationToken::new();
        let asked = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            asked.cancel();
        });
        self.run(stop).await;
        Ok(())
    }
}

/// Where the commands of one task are taken in.
struct Desk {
    client: Client,
    task: TaskName,
    concurrency: usize,
    stop: CancellationToken,
}

impl Desk {
    /// Pulls and starts commands of the task until `stop`, and gives back what is under way then.
    async fn work(self, mut executor: Executor) -> JoinSet<()> {
        let Self { task, stop, .. } = &self;
        // Dropped with the worker: a handler that went on would keep its command from everybody else.
        let mut running = JoinSet::new();
        let places = Arc::new(Semaphore::new(self.concurrency));
        while !stop.is_cancelled() {
            let open = insist("opening a task's consumer", || {
                open_consumer(&executor.jetstream, task)
            });
            let consumer = tokio::select! {
                () = stop.cancelled() => break,
                consumer = open => consumer,
            };
            executor.progress_interval = consumer.cached_info().config.ack_wait / 3;
            let jetstream = executor.jetstream.clone();
            let opened = Puller::open(self.client.clone(), jetstream, consumer).await;
            let result = match opened {
                Ok(puller) => pull(puller, &executor, &places, &mut running, stop).await,
                Err(error) => Err(error),
            };
            if let Err(error) = result {
                warn!(%task, %error, "pulling commands starts anew");
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
        }
        running
    }
}

async fn drain(running: &mut JoinSet<()>) {
    while running.join_next().await.is_some() {}
}

async fn pull(
    mut puller: Puller,
    executor: &Executor,
    places: &Arc<Semaphore>,
    running: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> Result<(), PullError> {
    let executor = Arc::new(executor.clone());
    let result = loop {
        let next = async {
            let Ok(place) = Arc::clone(places).acquire_owned().await else {
                return std::future::pending().await;
            };
            let message = puller.next(places.available_permits() + 1).await;
            message.map(|message| (message, place))
        };
        tokio::select! {
            () = stop.cancelled() => break Ok(()),
            Some(_) = running.join_next() => {}
            next = next => match next {
                Ok((message, place)) => {
                    let executor = Arc::clone(&executor);
                    running.spawn(async move {
                        executor.execute(message).await;
                        drop(place);
                    });
                }
                Err(error) => break Err(error),
            }
        }
    };
    puller.close().await;
    result
}
