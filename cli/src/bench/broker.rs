//! The broker of a measurement: a server of its own, a cluster of them, or one that is there already.

use crate::{
    arguments::{BenchArguments, BrokerArguments, Sync},
    connection::Connection,
    local_broker::{LocalBroker, any_port},
    trouble::Trouble,
};
use async_nats::jetstream;
use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

/// How long a cluster may take until it keeps streams.
const CLUSTER_TIME: Duration = Duration::from_secs(30);
/// The stream by which that is found out.
const PROBE: &str = "DIRIGENT_BENCH_PROBE";

/// The servers that we have started, and a connection.
pub(super) struct Broker {
    servers: Vec<LocalBroker>,
    pub(super) connection: Connection,
    /// How a process of ours finds it.
    pub(super) environment: Vec<(&'static str, String)>,
}

impl Broker {
    /// Starts as many servers as there are replicas, with their data in `directory`.
    pub(super) async fn start(
        arguments: &BenchArguments,
        directory: &Path,
    ) -> Result<Self, Trouble> {
        let count = usize::from(arguments.replicas);
        let routes: Vec<u16> = (0..count).map(|_| any_port()).collect::<Result<_, _>>()?;
        let mut servers = Vec::new();
        for number in 0..count {
            let home = directory.join(format!("server-{number}"));
            let file = home.join("nats-server.conf");
            let fault = |source| Trouble::File {
                path: file.clone(),
                source,
            };
            fs::create_dir_all(&home).map_err(fault)?;
            fs::write(&file, configuration(arguments.sync, number, &routes)).map_err(fault)?;
            let binary = arguments.nats_server.as_deref();
            servers.push(LocalBroker::start(&home, binary, None, &[], Some(&file))?);
        }
        let mut client = None;
        for server in &mut servers {
            client = Some(server.connect().await?);
        }
        let client = client.ok_or_else(|| Trouble::bench("there is no server"))?;
        if count > 1 {
            wait_for_cluster(&client, count).await?;
        }
        let urls: Vec<String> = servers.iter().map(LocalBroker::url).collect();
        let url = urls.join(",");
        Ok(Self {
            servers,
            environment: vec![("NATS_URL", url.clone())],
            connection: Connection::new(client, url),
        })
    }

    /// Uses the broker that the command line names.
    pub(super) async fn join(broker: &BrokerArguments) -> Result<Self, Trouble> {
        let creds = broker.creds.as_ref();
        let environment = [
            ("NATS_URL", Some(broker.nats_url.clone())),
            ("NATS_CREDS", creds.map(|path| path.display().to_string())),
            ("NATS_USER", broker.user.clone()),
            ("NATS_PASSWORD", broker.password.clone()),
            ("NATS_TOKEN", broker.token.clone()),
        ];
        Ok(Self {
            servers: Vec::new(),
            connection: Connection::open(broker, "bench").await?,
            environment: environment
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?)))
                .collect(),
        })
    }

    /// The process ids of our servers.
    pub(super) fn ids(&self) -> Vec<u32> {
        self.servers.iter().filter_map(LocalBroker::id).collect()
    }

    pub(super) async fn stop(self) {
        for server in self.servers {
            server.stop().await;
        }
    }
}

/// What a server is told besides its port and directory.
fn configuration(sync: Sync, number: usize, routes: &[u16]) -> String {
    let mut text = format!("server_name: bench-{number}\n");
    if sync == Sync::Always {
        text += "jetstream { sync_interval: always }\n";
    }
    if routes.len() > 1 {
        let own = routes.get(number).copied().unwrap_or_default();
        let others: Vec<String> = routes
            .iter()
            .filter(|port| **port != own)
            .map(|port| format!("\"nats://127.0.0.1:{port}\""))
            .collect();
        text += &format!(
            "cluster {{ name: bench, listen: \"127.0.0.1:{own}\", routes: [{}] }}\n",
            others.join(", ")
        );
    }
    text
}

/// Waits until a stream can be kept on all servers.
async fn wait_for_cluster(client: &async_nats::Client, servers: usize) -> Result<(), Trouble> {
    let context = jetstream::new(client.clone());
    let config = jetstream::stream::Config {
        name: PROBE.to_owned(),
        num_replicas: servers,
        ..Default::default()
    };
    let began = Instant::now();
    loop {
        match context.create_stream(config.clone()).await {
            Ok(_) => break,
            Err(error) if began.elapsed() > CLUSTER_TIME => return Err(Trouble::bench(error)),
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
    context
        .delete_stream(PROBE)
        .await
        .map(drop)
        .map_err(Trouble::bench)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_server_is_no_cluster() {
        assert_eq!(
            configuration(Sync::Default, 0, &[1]),
            "server_name: bench-0\n"
        );
        let always = configuration(Sync::Always, 0, &[1]);
        assert!(always.contains("sync_interval: always"), "{always}");
    }

    #[test]
    fn each_server_of_a_cluster_knows_the_others() {
        let text = configuration(Sync::Default, 1, &[11, 12, 13]);
        assert!(text.contains("listen: \"127.0.0.1:12\""), "{text}");
        assert!(
            text.contains("[\"nats://127.0.0.1:11\", \"nats://127.0.0.1:13\"]"),
            "{text}"
        );
    }
}
