//! User registration.

use crate::{mail::Mailer, simulate::Simulate, store::Store};
use dirigent_worker::{TaskContext, TaskError, WorkerBuilder};
use lettre::Address;
use serde::Deserialize;
use serde_json::{Value, json};

/// What a sign-up says, and what the saga adds to it.
#[derive(Clone, Debug, Deserialize)]
struct User {
    email: String,
    name: String,
    #[serde(default)]
    simulate: Simulate,
}

pub(crate) fn offer(builder: WorkerBuilder, store: &Store, mailer: &Mailer) -> WorkerBuilder {
    let (creating, deleting) = (store.clone(), store.clone());
    let (sending, mailer) = (store.clone(), mailer.clone());
    builder
        .task("validate-user", validate)
        .task("create-user", move |context, user| {
            create(creating.clone(), context, user)
        })
        .task("delete-user", move |context, _: Value| {
            delete(deleting.clone(), context)
        })
        .task("send-welcome-email", move |context, user| {
            welcome(sending.clone(), mailer.clone(), context, user)
        })
}

async fn validate(context: TaskContext, user: User) -> Result<Value, TaskError> {
    user.simulate.obey(&context)?;
    let invalid = |cause: String| TaskError::new("InvalidUser", cause).permanent();
    if user.name.trim().is_empty() {
        return Err(invalid("the name is empty".to_owned()));
    }
    user.email
        .parse::<Address>()
        .map_err(|error| invalid(format!("{:?} is no mail address: {error}", user.email)))?;
    Ok(json!({}))
}

async fn create(store: Store, context: TaskContext, user: User) -> Result<Value, TaskError> {
    user.simulate.obey(&context)?;
    store
        .once(&context, move |transaction, effect| {
            let inserted = transaction.execute(
                "INSERT INTO users (id, email, name) VALUES (?, ?, ?) ON CONFLICT (email) DO NOTHING",
                [effect, &user.email, &user.name],
            )?;
            if inserted == 0 {
                let cause = format!("{} is registered already", user.email);
                return Err(TaskError::new("EmailTaken", cause).permanent());
            }
            Ok(json!({ "id": effect }))
        })
        .await
}

async fn delete(store: Store, context: TaskContext) -> Result<Value, TaskError> {
    store
        .undo(&context, |transaction, effect| {
            transaction.execute("DELETE FROM users WHERE id = ?", [effect])?;
            Ok(())
        })
        .await
}

/// A mail cannot be part of a transaction: if the process dies between sending it and noting that, it
/// is sent again, with the same Message-ID, by which its receiver knows it.
async fn welcome(
    store: Store,
    mailer: Mailer,
    context: TaskContext,
    user: User,
) -> Result<Value, TaskError> {
    user.simulate.obey(&context)?;
    if let Some(sent) = store.known(&context).await? {
        return Ok(sent);
    }
    let message_id = format!("<{}@dirigent.example>", context.effect_id());
    mailer.welcome(&user.email, &user.name, &message_id).await?;
    store
        .once(&context, move |_, _| Ok(json!({ "message": message_id })))
        .await
}
