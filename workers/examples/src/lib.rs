//! The example services: user registration and orders, as somebody would really write them.
//!
//! Each keeps its data in `SQLite` and notes the effect id in the same transaction, so that a command
//! that comes twice is done once. Each refuses what a real one would refuse: an address to which no
//! mail can be sent, more than there is in stock, a card that is declined. Any of them fails when its
//! input says so: `"simulate": {"charge-card": "BankBusy"}`.

mod mail;
mod orders;
mod simulate;
mod sink;
mod store;
mod users;

use anyhow::Context as _;
use async_nats::Client;
use dirigent_worker::{BuildError, Worker};
use mail::Mailer;
use serde_json::json;
use std::path::{Path, PathBuf};
use store::Store;

/// The definitions that the services play in: name and document.
pub const DEFINITIONS: &[(&str, &str)] = &[
    (
        "register-user",
        include_str!("../definitions/register-user.yaml"),
    ),
    ("order", include_str!("../definitions/order.yaml")),
];

/// Which services a worker offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Which {
    /// User registration.
    Users,
    /// Orders.
    Orders,
    /// Both.
    #[default]
    All,
}

/// Where the services keep their data, and who takes their mails.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory of the database, and of the mails if they stay here.
    pub data: PathBuf,
    /// Host and port of the SMTP server; a sink in this process that keeps the mails as files if
    /// there is none.
    pub smtp: Option<(String, u16)>,
    /// What is offered.
    pub which: Which,
}

impl Options {
    /// Both services, with everything in one directory.
    #[must_use]
    pub fn in_directory(data: &Path) -> Self {
        Self {
            data: data.to_owned(),
            smtp: None,
            which: Which::All,
        }
    }
}

/// The services, with their data open.
#[derive(Debug)]
pub struct Services {
    store: Store,
    mailer: Mailer,
    which: Which,
}

impl Services {
    /// Opens the data. Needs a Tokio runtime.
    ///
    /// # Errors
    /// If the directory or the database cannot be used, or the SMTP server has no usable name.
    pub fn open(options: Options) -> anyhow::Result<Self> {
        let shown = options.data.display();
        std::fs::create_dir_all(&options.data)
            .with_context(|| format!("the directory {shown} cannot be made"))?;
        let path = options.data.join("services.sqlite");
        let store = Store::open(&path)
            .with_context(|| format!("the database {} cannot be opened", path.display()))?;
        let (host, port) = match options.smtp {
            Some(server) => server,
            None => {
                sink::start(options.data.join("mails")).context("the mail sink cannot start")?
            }
        };
        Ok(Self {
            store,
            mailer: Mailer::new(&host, port),
            which: options.which,
        })
    }

    /// A worker that offers the services.
    ///
    /// # Errors
    /// If two services have a task of the same name.
    pub fn worker(&self, client: Client) -> Result<Worker, BuildError> {
        let mut builder = Worker::builder(client);
        if self.which != Which::Orders {
            builder = users::offer(builder, &self.store, &self.mailer);
        }
        if self.which != Which::Users {
            builder = orders::offer(builder, &self.store);
        }
        builder.build()
    }
}

/// One saga of the demo: the event that triggers it, and how it is to end.
#[derive(Clone, Debug)]
pub struct Scene {
    /// What the audience is to look at.
    pub title: &'static str,
    /// The definition that the event triggers.
    pub definition: &'static str,
    /// The key that its rule computes.
    pub key: String,
    /// Subject of the event.
    pub subject: &'static str,
    /// Body of the event, JSON.
    pub body: String,
    /// Whether the saga is to succeed; else it is to be undone.
    pub succeeds: bool,
}

/// The demo. `run` tells the sagas of one demo from those of another.
#[must_use]
pub fn scenes(run: u128) -> Vec<Scene> {
    let user = |title, name: &str, domain: &str, succeeds| {
        let email = format!("{name}-{run}@{domain}");
        Scene {
            title,
            definition: "register-user",
            subject: "users.signup.requested",
            body: json!({ "email": email, "name": name }).to_string(),
            key: email,
            succeeds,
        }
    };
    let order = |title, number: u32, card: &str, succeeds| {
        let order = format!("o-{run}-{number}");
        let body = json!({
            "order": order, "item": "violin", "quantity": 1, "total": 900, "card": card,
        });
        Scene {
            title,
            definition: "order",
            subject: "orders.placed",
            body: body.to_string(),
            key: order,
            succeeds,
        }
    };
    vec![
        user("a user signs up", "anna", "example.org", true),
        user(
            "another's mail bounces, so the account is removed again",
            "ben",
            "bounce.example",
            false,
        ),
        order("an order is paid and shipped", 1, "valid", true),
        order(
            "a card is declined, so the stock is released again",
            2,
            "declined",
            false,
        ),
    ]
}
