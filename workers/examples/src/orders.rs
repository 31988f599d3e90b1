//! Orders: stock, fraud, payment and delivery.

use crate::{simulate::Simulate, store::Store};
use dirigent_worker::{TaskContext, TaskError, WorkerBuilder};
use rusqlite::{OptionalExtension as _, params};
use serde::Deserialize;
use serde_json::{Value, json};

/// An order of more than this is not believed.
const FRAUD_LIMIT: f64 = 10_000.0;

/// What a customer orders, and what the saga adds to it.
#[derive(Clone, Debug, Deserialize)]
struct Order {
    order: String,
    item: String,
    quantity: u32,
    total: f64,
    /// `declined` is a card that the bank does not take.
    card: String,
    /// `nowhere` is a place to which nobody drives.
    #[serde(default)]
    address: String,
    #[serde(default)]
    simulate: Simulate,
}

pub(crate) fn offer(mut builder: WorkerBuilder, store: &Store) -> WorkerBuilder {
    macro_rules! offer {
        ($name:literal, $function:ident) => {{
            let store = store.clone();
            builder = builder.task($name, move |context, input| {
                $function(store.clone(), context, input)
            });
        }};
    }
    offer!("reserve-stock", reserve);
    offer!("release-stock", release);
    offer!("charge-card", charge);
    offer!("ship-order", ship);
    offer!("offer-pickup", offer_pickup);
    builder.task("check-fraud", check)
}

async fn reserve(store: Store, context: TaskContext, order: Order) -> Result<Value, TaskError> {
    order.simulate.obey(&context)?;
    store
        .once(&context, move |transaction, effect| {
            let left: Option<u32> = transaction
                .query_row(
                    "SELECT quantity FROM stock WHERE item = ?",
                    [&order.item],
                    |row| row.get(0),
                )
                .optional()?;
            let left = left.unwrap_or(0);
            if left < order.quantity {
                let cause = format!(
                    "{} of {} are wanted, {left} are left",
                    order.quantity, order.item
                );
                return Err(TaskError::new("OutOfStock", cause).permanent());
            }
            transaction.execute(
                "UPDATE stock SET quantity = quantity - ? WHERE item = ?",
                params![order.quantity, order.item],
            )?;
            transaction.execute(
                "INSERT INTO reservations (id, item, quantity) VALUES (?, ?, ?)",
                params![effect, order.item, order.quantity],
            )?;
            Ok(json!({ "reservation": effect }))
        })
        .await
}

async fn release(store: Store, context: TaskContext, _: Value) -> Result<Value, TaskError> {
    store
        .undo(&context, |transaction, effect| {
            transaction.execute(
                "UPDATE stock SET quantity = stock.quantity + reservations.quantity
                 FROM reservations WHERE reservations.id = ? AND stock.item = reservations.item",
                [effect],
            )?;
            transaction.execute("DELETE FROM reservations WHERE id = ?", [effect])?;
            Ok(())
        })
        .await
}

async fn check(context: TaskContext, order: Order) -> Result<Value, TaskError> {
    order.simulate.obey(&context)?;
    if order.total > FRAUD_LIMIT {
        let cause = format!("{} is more than anybody orders here", order.total);
        return Err(TaskError::new("FraudSuspected", cause).permanent());
    }
    Ok(json!({}))
}

async fn charge(store: Store, context: TaskContext, order: Order) -> Result<Value, TaskError> {
    order.simulate.obey(&context)?;
    if order.card == "declined" {
        return Err(TaskError::new("CardDeclined", "the bank does not take this card").permanent());
    }
    store
        .once(&context, move |transaction, effect| {
            transaction.execute(
                "INSERT INTO payments (id, purchase, amount) VALUES (?, ?, ?)",
                params![effect, order.order, order.total],
            )?;
            Ok(json!({ "payment": effect }))
        })
        .await
}

async fn ship(store: Store, context: TaskContext, order: Order) -> Result<Value, TaskError> {
    order.simulate.obey(&context)?;
    if order.address == "nowhere" {
        return Err(TaskError::new("NoCarrier", "nobody drives there").permanent());
    }
    deliver(store, context, order, "parcel").await
}

async fn offer_pickup(
    store: Store,
    context: TaskContext,
    order: Order,
) -> Result<Value, TaskError> {
    deliver(store, context, order, "pickup").await
}

async fn deliver(
    store: Store,
    context: TaskContext,
    order: Order,
    kind: &'static str,
) -> Result<Value, TaskError> {
    store
        .once(&context, move |transaction, effect| {
            transaction.execute(
                "INSERT INTO deliveries (id, purchase, kind) VALUES (?, ?, ?)",
                [effect, &order.order, kind],
            )?;
            Ok(json!({ "delivery": kind }))
        })
        .await
}
