//! The services' database. What a task changes and the id of its effect stand in one transaction, so
//! that they stand together or not at all.

use dirigent_worker::{TaskContext, TaskError};
use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};
use serde_json::{Value, json};
use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// How long to wait for another process that writes.
const BUSY_TIME: Duration = Duration::from_secs(5);

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS effects (
    effect TEXT PRIMARY KEY, task TEXT NOT NULL, saga TEXT NOT NULL,
    output TEXT NOT NULL, undone INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE TABLE IF NOT EXISTS users (
    id TEXT PRIMARY KEY, email TEXT NOT NULL UNIQUE, name TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS stock (
    item TEXT PRIMARY KEY, quantity INTEGER NOT NULL CHECK (quantity >= 0)) STRICT;
CREATE TABLE IF NOT EXISTS reservations (
    id TEXT PRIMARY KEY, item TEXT NOT NULL, quantity INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS payments (
    id TEXT PRIMARY KEY, purchase TEXT NOT NULL, amount REAL NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS deliveries (
    id TEXT PRIMARY KEY, purchase TEXT NOT NULL, kind TEXT NOT NULL) STRICT;
INSERT OR IGNORE INTO stock VALUES ('violin', 1000), ('baton', 100000), ('stradivari', 1);
";

/// The database. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Store(Arc<Mutex<Connection>>);

impl Store {
    pub(crate) fn open(path: &Path) -> rusqlite::Result<Self> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(BUSY_TIME)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.execute_batch(SCHEMA)?;
        Ok(Self(Arc::new(Mutex::new(connection))))
    }

    /// Does an effect once: a second command for it gets the first one's output.
    pub(crate) async fn once<F>(&self, context: &TaskContext, work: F) -> Result<Value, TaskError>
    where
        F: FnOnce(&Transaction<'_>, &str) -> Result<Value, TaskError> + Send + 'static,
    {
        let effect = context.effect_id().to_string();
        let (task, saga) = (context.task().to_string(), context.saga().to_string());
        self.transact(move |transaction| {
            if let Some(known) = recall(transaction, &effect)? {
                return known;
            }
            let output = work(transaction, &effect)?;
            transaction.execute(
                "INSERT INTO effects (effect, task, saga, output) VALUES (?, ?, ?, ?)",
                params![effect, task, saga, output.to_string()],
            )?;
            Ok(output)
        })
        .await
    }

    /// What became of the effect, if it was done or undone.
    pub(crate) async fn known(&self, context: &TaskContext) -> Result<Option<Value>, TaskError> {
        let effect = context.effect_id().to_string();
        self.transact(move |transaction| recall(transaction, &effect)?.transpose())
            .await
    }

    /// Undoes an effect once. One that was never done is only marked, so that a command for it that
    /// comes late does nothing.
    pub(crate) async fn undo<F>(&self, context: &TaskContext, work: F) -> Result<Value, TaskError>
    where
        F: FnOnce(&Transaction<'_>, &str) -> rusqlite::Result<()> + Send + 'static,
    {
        let Some(effect) = context.undoes().map(|effect| effect.to_string()) else {
            let cause = "this task only undoes: name it in `Compensate`";
            return Err(TaskError::new("NothingToUndo", cause).permanent());
        };
        let (task, saga) = (context.task().to_string(), context.saga().to_string());
        self.transact(move |transaction| {
            if let Some(Ok(_)) = recall(transaction, &effect)? {
                work(transaction, &effect)?;
            }
            transaction.execute(
                "INSERT INTO effects (effect, task, saga, output, undone) VALUES (?, ?, ?, 'null', 1)
                 ON CONFLICT (effect) DO UPDATE SET undone = 1",
                params![effect, task, saga],
            )?;
            Ok(json!({}))
        })
        .await
    }

    async fn transact<T, F>(&self, work: F) -> Result<T, TaskError>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, TaskError> + Send + 'static,
    {
        let connection = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || {
            // A panic rolls its transaction back, so what is behind the lock is sound.
            let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let result = work(&transaction)?;
            transaction.commit()?;
            Ok(result)
        })
        .await?
    }
}

/// The effect's output if it was done; an error if it was undone; `None` if it never was.
fn recall(
    transaction: &Transaction<'_>,
    effect: &str,
) -> Result<Option<Result<Value, TaskError>>, TaskError> {
    let row = transaction
        .query_row(
            "SELECT output, undone FROM effects WHERE effect = ?",
            [effect],
            |row| Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?)),
        )
        .optional()?;
    Ok(match row {
        None => None,
        Some((_, true)) => Some(Err(TaskError::new(
            "Undone",
            "the saga has undone this step",
        )
        .permanent())),
        Some((output, false)) => Some(Ok(serde_json::from_str(&output)?)),
    })
}
