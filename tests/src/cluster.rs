//! Three nats-servers that replicate to each other, each of which can be taken away.
//!
//! In a sandbox each lives in a network namespace, so it can be cut off. Elsewhere they stand on a
//! loopback address that follows from the number of this process, so that nobody else has it.

use crate::{
    disk::SmallDisk,
    nats,
    network::{Link, Network},
    process::Process,
};
use anyhow::{Context as _, bail, ensure};
use async_nats::Client;
use serde_json::Value;
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// How many servers a cluster has: the fewest that may lose one.
pub const SERVERS: usize = 3;
/// How long the servers may take until all of them have caught up.
const RECOVERY_LIMIT: Duration = Duration::from_secs(120);
/// Pause between two looks at them.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// How long a server may take to say how it is.
const HEALTH_LIMIT: Duration = Duration::from_secs(5);
/// Size of the small disk, if a server has one.
const SMALL_DISK_MEBIBYTES: u32 = 256;

const CLIENT_PORT: usize = 4222;
const PEER_PORT: usize = 6222;
const MONITOR_PORT: usize = 8222;

/// A cluster.
#[derive(Debug)]
pub struct Cluster {
    directory: TempDir,
    processes: Vec<Option<Process>>,
    network: Option<Network>,
}

impl Cluster {
    /// Starts the servers; in namespaces of their own if `network` is given.
    ///
    /// # Errors
    /// If they do not become a cluster.
    pub async fn start(network: Option<Network>) -> anyhow::Result<Self> {
        let mut cluster = Self {
            directory: tempfile::tempdir()?,
            processes: (0..SERVERS).map(|_| None).collect(),
            network,
        };
        for server in 0..SERVERS {
            fs::create_dir_all(cluster.home(server))?;
            fs::write(
                cluster.configuration_file(server),
                cluster.configuration(server),
            )?;
            cluster.launch(server)?;
        }
        cluster.recovered().await?;
        Ok(cluster)
    }

    /// Gives a server a small disk, before it has written anything.
    ///
    /// # Errors
    /// If mounting is not allowed.
    pub async fn shrink_disk(&mut self, server: usize) -> anyhow::Result<SmallDisk> {
        self.kill(server)?;
        let store = self.home(server).join("data");
        fs::remove_dir_all(&store)?;
        let disk = SmallDisk::mount(&store, SMALL_DISK_MEBIBYTES)?;
        self.launch(server)?;
        self.recovered().await?;
        Ok(disk)
    }

    /// The addresses of all servers, with commas between.
    pub fn url(&self) -> String {
        let urls = (0..SERVERS).map(|server| format!("nats://{}", self.client_address(server)));
        urls.collect::<Vec<_>>().join(",")
    }

    /// A connection that finds another server when its own is gone.
    ///
    /// # Errors
    /// If none of them accepts it.
    pub async fn connect(&self) -> anyhow::Result<Client> {
        Ok(dirigent_worker::connect(&self.url()).await?)
    }

    /// The networks, if each server lives in a namespace.
    pub fn network(&self) -> Option<&Network> {
        self.network.as_ref()
    }

    /// The process of a server.
    ///
    /// # Errors
    /// If it was taken away.
    pub fn process(&mut self, server: usize) -> anyhow::Result<&mut Process> {
        self.processes[server]
            .as_mut()
            .with_context(|| format!("server {server} does not run"))
    }

    /// Ends a server with SIGKILL.
    ///
    /// # Errors
    /// If it does not run.
    pub fn kill(&mut self, server: usize) -> anyhow::Result<()> {
        self.process(server)?.kill()?;
        self.processes[server] = None;
        Ok(())
    }

    /// Asks a server to end, and waits until it has.
    ///
    /// # Errors
    /// If it does not.
    pub async fn terminate(&mut self, server: usize) -> anyhow::Result<()> {
        self.process(server)?.terminate().await?;
        self.processes[server] = None;
        Ok(())
    }

    /// Starts a server that was taken away, on its data.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn launch(&mut self, server: usize) -> anyhow::Result<()> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.home(server).join("log"))?;
        let binary = nats::find_binary()?;
        let mut command = if self.network.is_some() {
            let mut command = Network::enter(server);
            command.arg(binary);
            command
        } else {
            Command::new(binary)
        };
        command.arg("-c").arg(self.configuration_file(server));
        command.stdout(log.try_clone()?).stderr(log);
        self.processes[server] = Some(Process::start(&mut command)?);
        Ok(())
    }

    /// Waits until all servers say that they are there and have caught up with each other.
    ///
    /// # Errors
    /// If that takes too long, with what the one that lags says.
    pub async fn recovered(&self) -> anyhow::Result<()> {
        let until = Instant::now() + RECOVERY_LIMIT;
        for server in 0..SERVERS {
            loop {
                let health = tokio::time::timeout(HEALTH_LIMIT, self.health(server)).await;
                let lag = match health {
                    Ok(Ok(())) => break,
                    Ok(Err(error)) => error.to_string(),
                    Err(_) => "no answer".to_owned(),
                };
                if Instant::now() > until {
                    bail!("server {server} has not recovered after {RECOVERY_LIMIT:?}: {lag}");
                }
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        }
        Ok(())
    }

    async fn health(&self, server: usize) -> anyhow::Result<()> {
        let mut connection = TcpStream::connect(self.monitor_address(server)).await?;
        connection
            .write_all(b"GET /healthz HTTP/1.0\r\n\r\n")
            .await?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await?;
        let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
        let health: Value = serde_json::from_str(body)?;
        ensure!(health["status"] == "ok", "{body}");
        Ok(())
    }

    /// Where everything about this cluster is kept.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Leaves all of that behind when the cluster is gone, for a person to look at. Gives the place.
    pub fn keep(&mut self) -> &Path {
        self.directory.disable_cleanup(true);
        self.directory.path()
    }

    fn home(&self, server: usize) -> PathBuf {
        self.directory.path().join(format!("server-{server}"))
    }

    fn configuration_file(&self, server: usize) -> PathBuf {
        self.home(server).join("nats.conf")
    }

    fn configuration(&self, server: usize) -> String {
        let routes = (0..SERVERS).map(|peer| format!("\"nats://{}\"", self.peer_address(peer)));
        format!(
            "server_name: server-{server}
listen: \"{client}\"
http: \"{monitor}\"
jetstream {{ store_dir: \"{store}\", max_file_store: 4GB, max_memory_store: 64MB }}
cluster {{ name: faults, listen: \"{peer}\", routes: [{routes}] }}
accounts {{
    $SYS {{ users: [{{ user: system, password: system }}] }}
    SAGAS {{ jetstream: enabled, users: [{{ user: sagas, password: sagas }}] }}
}}
no_auth_user: sagas
",
            client = self.client_address(server),
            monitor = self.monitor_address(server),
            store = self.home(server).join("data").display(),
            peer = self.peer_address(server),
            routes = routes.collect::<Vec<_>>().join(", "),
        )
    }

    fn client_address(&self, server: usize) -> String {
        self.address(Link::Clients, server, CLIENT_PORT)
    }

    fn peer_address(&self, server: usize) -> String {
        self.address(Link::Peers, server, PEER_PORT)
    }

    fn monitor_address(&self, server: usize) -> String {
        self.address(Link::Clients, server, MONITOR_PORT)
    }

    fn address(&self, link: Link, server: usize, port: usize) -> String {
        if self.network.is_some() {
            return format!("{}:{port}", Network::address(link, server));
        }
        let [_, high, middle, low] = std::process::id().to_be_bytes();
        format!("127.{}.{middle}.{low}:{}", high + 1, port + server)
    }
}
