//! Two networks between namespaces: one on which servers talk to clients, one on which they talk to
//! each other. Either can be cut for one server, silently: nobody is told, packets just end.
//!
//! Everything lives in the sandbox of the test and goes with it.

use crate::sandbox::run;
use std::process::Command;

/// The networks of a cluster.
#[derive(Debug)]
pub struct Network(());

/// What connects a server with the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// With coordinators, workers and callers.
    Clients,
    /// With the other servers.
    Peers,
}

impl Network {
    /// Makes a namespace for each server, with both links.
    ///
    /// # Errors
    /// If that is not allowed; it takes a sandbox, and the program `ip` (Debian: iproute2).
    pub fn lay(servers: usize) -> anyhow::Result<Self> {
        for link in [Link::Clients, Link::Peers] {
            run(&["ip", "link", "add", link.bridge(), "type", "bridge"])?;
            run(&["ip", "link", "set", link.bridge(), "up"])?;
        }
        // The test, coordinators and workers stand on the clients' bridge.
        let here = format!("{}/24", Link::Clients.address(254));
        run(&["ip", "address", "add", &here, "dev", Link::Clients.bridge()])?;
        for server in 0..servers {
            let space = space(server);
            run(&["ip", "netns", "add", &space])?;
            run(&["ip", "-n", &space, "link", "set", "lo", "up"])?;
            for link in [Link::Clients, Link::Peers] {
                let (outer, inner) = (link.outer(server), link.bridge());
                let address = format!("{}/24", link.address(server + 1));
                run(&[
                    "ip", "link", "add", &outer, "type", "veth", "peer", "name", inner, "netns",
                    &space,
                ])?;
                run(&["ip", "link", "set", &outer, "master", link.bridge(), "up"])?;
                run(&["ip", "-n", &space, "address", "add", &address, "dev", inner])?;
                run(&["ip", "-n", &space, "link", "set", inner, "up"])?;
            }
        }
        Ok(Self(()))
    }

    /// The address of a server on a link.
    pub fn address(link: Link, server: usize) -> String {
        link.address(server + 1)
    }

    /// A command that runs a program where a server lives.
    pub fn enter(server: usize) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &space(server)]);
        command
    }

    /// Cuts a link.
    ///
    /// # Errors
    /// If that is refused.
    pub fn cut(&self, link: Link, server: usize) -> anyhow::Result<()> {
        run(&["ip", "link", "set", &link.outer(server), "nomaster"])
    }

    /// Mends a link.
    ///
    /// # Errors
    /// If that is refused.
    pub fn mend(&self, link: Link, server: usize) -> anyhow::Result<()> {
        run(&[
            "ip",
            "link",
            "set",
            &link.outer(server),
            "master",
            link.bridge(),
        ])
    }
}

impl Link {
    fn bridge(self) -> &'static str {
        match self {
            Self::Clients => "clients",
            Self::Peers => "peers",
        }
    }

    /// The end of the cable at the bridge.
    fn outer(self, server: usize) -> String {
        format!("{}-{server}", self.bridge())
    }

    fn address(self, host: usize) -> String {
        match self {
            Self::Clients => format!("10.99.1.{host}"),
            Self::Peers => format!("10.99.2.{host}"),
        }
    }
}

fn space(server: usize) -> String {
    format!("server-{server}")
}
