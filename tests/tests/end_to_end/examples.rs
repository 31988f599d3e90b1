//! The example services, with their database and their mails: what they refuse is undone.

use dirigent_contracts::outcome::SagaStatus;
use dirigent_examples::{DEFINITIONS, Options, Services, scenes};
use dirigent_tests::stage::{Stage, story};
use rusqlite::Connection;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The services at work on a stage.
struct Shop {
    stage: Stage,
    database: Connection,
    worker: JoinHandle<()>,
}

impl Shop {
    async fn open() -> anyhow::Result<Self> {
        let stage = Stage::start().await?;
        for (name, document) in DEFINITIONS {
            stage.deploy(name, document).await?;
        }
        let data = stage.nats.directory().join("services");
        let services = Services::open(Options::in_directory(&data))?;
        let worker = services.worker(stage.client.clone())?;
        Ok(Self {
            stage,
            database: Connection::open(data.join("services.sqlite"))?,
            worker: tokio::spawn(worker.run(CancellationToken::new())),
        })
    }

    fn count(&self, table: &str) -> anyhow::Result<u32> {
        let query = format!("SELECT count(*) FROM {table}");
        Ok(self.database.query_row(&query, [], |row| row.get(0))?)
    }

    fn stock(&self, item: &str) -> anyhow::Result<u32> {
        let query = "SELECT quantity FROM stock WHERE item = ?";
        Ok(self.database.query_row(query, [item], |row| row.get(0))?)
    }

    async fn mails(&self) -> anyhow::Result<usize> {
        let mut entries =
            tokio::fs::read_dir(self.stage.nats.directory().join("services/mails")).await?;
        let mut count = 0;
        while entries.next_entry().await?.is_some() {
            count += 1;
        }
        Ok(count)
    }

    /// Runs an order that differs from a good one in this; how it ended, and why.
    async fn order(&self, key: &str, change: Value) -> anyhow::Result<(SagaStatus, String)> {
        let mut input = json!({
            "order": key, "item": "violin", "quantity": 2, "total": 1800, "card": "valid",
        });
        for (name, value) in change.as_object().into_iter().flatten() {
            input[name] = value.clone();
        }
        let saga = self.stage.run("order", key, input).await?;
        let why = saga
            .failure
            .map_or_else(String::new, |failure| failure.error);
        Ok((saga.status, why))
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        self.worker.abort();
    }
}

#[tokio::test]
async fn the_scenes_of_the_demo_end_as_they_say() -> anyhow::Result<()> {
    let shop = Shop::open().await?;
    let jetstream = async_nats::jetstream::new(shop.stage.client.clone());
    for scene in scenes(1) {
        let stored = jetstream.publish(scene.subject, scene.body.into()).await?;
        stored.await?;
        let saga = shop.stage.ended(scene.definition, &scene.key).await?;
        let expected = if scene.succeeds {
            SagaStatus::Succeeded
        } else {
            SagaStatus::Compensated
        };
        assert_eq!(saga.status, expected, "{}", scene.title);
    }
    // Anna stays, Ben's account is gone; one order is paid, the other's stock is back.
    assert_eq!((shop.count("users")?, shop.mails().await?), (1, 1));
    assert_eq!((shop.count("payments")?, shop.count("deliveries")?), (1, 1));
    assert_eq!(shop.stock("violin")?, 999);
    Ok(())
}

#[tokio::test]
async fn an_order_is_refused_at_each_place_and_leaves_nothing_behind() -> anyhow::Result<()> {
    use SagaStatus::{Compensated, Failed, Succeeded};
    let shop = Shop::open().await?;
    let refused = |status, why: &str| (status, why.to_owned());
    let out = shop.order("o-1", json!({"quantity": 2000})).await?;
    assert_eq!(out, refused(Failed, "OutOfStock"));
    let (status, why) = shop.order("o-2", json!({"total": 20_000})).await?;
    assert_eq!(why, "FraudSuspected");
    // Whether the stock had been reserved by then decides whether there was anything to undo.
    assert!(matches!(status, Compensated | Failed), "{status}");
    let out = shop.order("o-3", json!({"card": "declined"})).await?;
    assert_eq!(out, refused(Compensated, "CardDeclined"));
    assert_eq!(
        (shop.stock("violin")?, shop.count("reservations")?),
        (1000, 0)
    );
    assert_eq!(shop.count("payments")?, 0);
    // After the pivot a refusal finds another way forward.
    let out = shop.order("o-4", json!({"address": "nowhere"})).await?;
    assert_eq!(out, refused(Succeeded, ""));
    // One that only comes late is waited for.
    let busy = json!({"simulate": {"charge-card": {"error": "BankBusy", "attempts": 1}}});
    assert_eq!(shop.order("o-5", busy).await?, refused(Succeeded, ""));
    let story = story(&shop.stage.history("order", "o-5").await?);
    assert!(story.contains(&"retry ChargeCard".to_owned()), "{story:?}");
    assert_eq!((shop.count("payments")?, shop.count("deliveries")?), (2, 2));
    assert_eq!(shop.stock("violin")?, 996);
    Ok(())
}

#[tokio::test]
async fn a_user_is_registered_once() -> anyhow::Result<()> {
    let shop = Shop::open().await?;
    let user = |name: &str| json!({"email": "anna@example.org", "name": name});
    let run = |key: &'static str, input| shop.stage.run("register-user", key, input);
    assert_eq!(run("a", user("Anna")).await?.status, SagaStatus::Succeeded);
    let again = run("b", user("Another Anna")).await?;
    assert_eq!(
        again.failure.map(|it| it.error).as_deref(),
        Some("EmailTaken")
    );
    let nameless = run("c", user(" ")).await?;
    assert_eq!(
        nameless.failure.map(|it| it.error).as_deref(),
        Some("InvalidUser")
    );
    let incomplete = run("d", json!({"name": "Carl"})).await?;
    let failure = incomplete.failure.unwrap_or_else(|| panic!("no failure"));
    assert!(failure.cause.contains("email"), "{failure}");
    assert_eq!((shop.count("users")?, shop.mails().await?), (1, 1));
    Ok(())
}
