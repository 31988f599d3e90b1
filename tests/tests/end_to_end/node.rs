//! Processes of an installation, and what an operator changes about their consumers.

use std::process::{Child, Command, Stdio};

/// A process that is killed when the test ends, however it ends.
pub(crate) struct Node(Child);

impl Node {
    pub(crate) fn start(role: &str, name: &str, url: &str) -> anyhow::Result<Self> {
        Self::start_with(role, name, url, &[])
    }

    /// Starts it with these environment variables.
    pub(crate) fn start_with(
        role: &str,
        name: &str,
        url: &str,
        variables: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_node"));
        command
            .args([role, name, url])
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        Ok(Self(command.stderr(Stdio::null()).spawn()?))
    }

    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // If it cannot be killed it is gone already.
        let _ = self.kill();
    }
}

/// The settings of a consumer, to be given back with a change.
pub(crate) fn pull_config(
    config: async_nats::jetstream::consumer::Config,
) -> async_nats::jetstream::consumer::pull::Config {
    async_nats::jetstream::consumer::pull::Config {
        durable_name: config.durable_name,
        filter_subject: config.filter_subject,
        ack_policy: config.ack_policy,
        ack_wait: config.ack_wait,
        max_deliver: config.max_deliver,
        max_ack_pending: config.max_ack_pending,
        max_waiting: config.max_waiting,
        ..Default::default()
    }
}
