//! A nats-server on this machine, as a child process that ends with this one.

use crate::trouble::Trouble;
use async_nats::{Client, ConnectOptions};
use std::{
    fs::File,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};
use tokio::process::{Child, Command};

/// How long it may take until it answers.
const START_TIME: Duration = Duration::from_secs(20);

/// A running nats-server with JetStream.
pub(crate) struct LocalBroker {
    process: Child,
    port: u16,
    log: PathBuf,
}

impl LocalBroker {
    /// Starts it with its data in `directory`, on `port`; if none is said, on the first of
    /// `preferred` that is free, or any. `configuration` is a file with further settings.
    pub(crate) fn start(
        directory: &Path,
        binary: Option<&Path>,
        port: Option<u16>,
        preferred: &[u16],
        configuration: Option<&Path>,
    ) -> Result<Self, Trouble> {
        let binary = binary.map_or_else(find_binary, |path| Ok(path.to_owned()))?;
        let port = match port {
            Some(port) if !is_free(port) => return Err(Trouble::PortTaken { port }),
            Some(port) => port,
            None => match preferred.iter().find(|port| is_free(**port)) {
                Some(port) => *port,
                None => any_port()?,
            },
        };
        let log = directory.join("nats-server.log");
        let fault = |source| Trouble::File {
            path: log.clone(),
            source,
        };
        let file = File::create(&log).map_err(fault)?;
        let errors = file.try_clone().map_err(fault)?;
        let process = Command::new(&binary)
            .args(["-a", "127.0.0.1", "-p", &port.to_string(), "-js", "-sd"])
            .arg(directory.join("nats"))
            .args(
                configuration
                    .iter()
                    .flat_map(|file| [Path::new("-c"), file]),
            )
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors)
            // Ctrl-C goes to the whole group: the broker must outlive the coordinator.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Trouble::NotStarted {
                what: "nats-server",
                reason: error.to_string(),
            })?;
        Ok(Self { process, port, log })
    }

    /// Its address.
    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Its process id, while it runs.
    pub(crate) fn id(&self) -> Option<u32> {
        self.process.id()
    }

    /// Connects once it answers.
    pub(crate) async fn connect(&mut self) -> Result<Client, Trouble> {
        let began = Instant::now();
        loop {
            let options = ConnectOptions::new().name("dirigent").max_reconnects(None);
            match options.connect(self.url()).await {
                Ok(client) => return Ok(client),
                Err(error) if began.elapsed() > START_TIME => {
                    return Err(Trouble::NoBroker {
                        url: self.url(),
                        reason: error.to_string(),
                    });
                }
                Err(_) => {}
            }
            if let Ok(Some(status)) = self.process.try_wait() {
                return Err(self.trouble(status.to_string()));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until it ends by itself, and says how.
    pub(crate) async fn ended(&mut self) -> Trouble {
        let ended = self.process.wait().await;
        self.trouble(ended.map_or_else(|error| error.to_string(), |status| status.to_string()))
    }

    fn trouble(&self, how: String) -> Trouble {
        Trouble::Ended {
            what: "nats-server",
            how,
            log: Some(self.log.clone()),
        }
    }

    /// Ends it. What it acknowledged is stored.
    pub(crate) async fn stop(mut self) {
        // If it cannot be killed it is gone already.
        let _ = self.process.kill().await;
    }
}

fn find_binary() -> Result<PathBuf, Trouble> {
    let searched = std::env::var_os("PATH").unwrap_or_default();
    std::iter::once(PathBuf::from(".venv/bin"))
        .chain(std::env::split_paths(&searched))
        .map(|place| place.join("nats-server"))
        .find(|path| path.is_file())
        .ok_or_else(|| Trouble::NoServer {
            searched: "PATH, .venv/bin".to_owned(),
        })
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

/// A port that is free now.
pub(crate) fn any_port() -> Result<u16, Trouble> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(Trouble::Write)?;
    Ok(listener.local_addr().map_err(Trouble::Write)?.port())
}
