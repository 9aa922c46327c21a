//! A node's configuration: one TOML file, the environment over it, flags over both.
//!
//! [`load`] reads, layers and checks; nothing else of the node sees a value that was not checked.
//! Every duration and size has a unit. A table or a key that is not given has the default of
//! [`Config::default`], which `default.toml` documents key by key (a test compares the two).
//!
//! What a reader gets wrong: `[genesis]` is not this node's: it is what a NEW cluster is founded
//! with, replicated from then on. A running cluster ignores it.

mod diagnose;
mod load;
mod validate;
mod values;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use diagnose::{Error, Problem};
pub use load::{Layers, Loaded, Origin, Override, Setting, environment, load};
pub use values::{
    BindAddress, Builtin, Endpoint, HostPort, ModuleSource, Peers, Size, TimeoutRange, ValueError,
};

/// The documented defaults, as `quorate config default` prints them.
pub const DEFAULT_TOML: &str = include_str!("config/default.toml");

/// Everything that a node is told before it starts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Which node this is, and where its data is.
    pub node: Node,
    /// Where it listens, and what it tells others.
    pub listen: Listen,
    /// Which cluster it belongs to.
    pub cluster: Cluster,
    /// Timing and log of the consensus.
    pub raft: Raft,
    /// Caps of the client side of this node.
    pub gateway: Gateway,
    /// Replicated settings that a new cluster is founded with.
    pub genesis: Genesis,
    /// What the node reports about itself.
    pub log: Log,
}

/// Table `[node]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Node {
    /// At least 1, unique in the cluster, never used again for another data directory.
    pub id: u64,
    /// What version-1 clients are told; see [`Config::node_name`]. At most 255 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Holds everything durable. Created if absent.
    pub data_dir: PathBuf,
}

/// Table `[listen]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Listen {
    /// Where clients connect (ZeroMQ).
    pub client: BindAddress,
    /// Where other nodes connect.
    pub raft: BindAddress,
    /// Where operators connect (HTTP).
    #[serde(deserialize_with = "values::deserialize_address")]
    pub admin: SocketAddr,
    /// What clients are told to connect to; by default `client`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise_client: Option<Endpoint>,
    /// What operators' tools are told to connect to; by default `admin`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise_admin: Option<HostPort>,
    /// Allows addresses that other machines can reach, without encryption or authentication.
    pub insecure: bool,
}

/// Table `[cluster]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Cluster {
    /// A node or client that names another cluster is refused. At most 64 bytes.
    pub name: String,
    /// The founding nodes, this one included: id and where the others reach it.
    pub peers: Peers,
}

/// Table `[raft]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Raft {
    /// How often a leader says that it is there. 10 ms to 60 s.
    #[serde(with = "humantime_serde")]
    pub heartbeat_interval: Duration,
    /// How long a follower waits without a leader before it stands for election; each time drawn
    /// at random from this range. Its lower end is more than two heartbeats.
    pub election_timeout: TimeoutRange,
    /// How much log is kept behind the oldest follower that is alive. 1 MiB to 1 TiB.
    pub log_keep: Size,
    /// How often nodes compare what they have stored, in a range of 64 MiB each time. 1 s to 7 days.
    #[serde(with = "humantime_serde")]
    pub checkpoint_interval: Duration,
}

/// Table `[gateway]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Gateway {
    /// Connections of clients at one time; further ones are closed at once. 1 to 1 000 000.
    pub connections_max: u32,
    /// What may wait to be sent to one connection; beyond it, the connection is closed. 64 KiB to
    /// 1 GiB.
    pub queued_bytes_per_connection: Size,
    /// Whether clients that speak zio-raft's protocol are served.
    pub accept_version_1: bool,
}

/// Table `[genesis]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Genesis {
    /// The first module: one that is built in, or a file.
    pub module: ModuleSource,
    /// A session without a sign of life for so long expires.
    #[serde(with = "humantime_serde")]
    pub session_timeout: Duration,
    /// The least that a client may ask for. At least 100 ms.
    #[serde(with = "humantime_serde")]
    pub session_timeout_min: Duration,
    /// The most that a client may ask for. At most 7 days.
    #[serde(with = "humantime_serde")]
    pub session_timeout_max: Duration,
    /// Sessions at one time; further ones are rejected. 1 to 10 000 000.
    pub sessions_max: u32,
    /// Cached responses of one session. 1 to 4096.
    pub requests_in_flight_per_session: u32,
    /// Fuel of one command. 1 000 000 to 1 000 000 000 000.
    pub fuel_per_command: u64,
    /// Memory of a module's instance. 1 MiB to 4 GiB, whole pages of 64 KiB.
    pub memory_max: Size,
    /// A command's payload. 1 KiB to 1 MiB.
    pub command_max: Size,
}

/// Table `[log]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Log {
    /// How a line looks.
    pub format: LogFormat,
    /// Which lines are written, as in `info,quorate_host=debug`.
    pub filter: String,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Config {
    /// The node's name: the configured one, or `node-<id>`.
    pub fn node_name(&self) -> String {
        let unnamed = || format!("node-{}", self.node.id);
        self.node.name.clone().unwrap_or_else(unnamed)
    }

    /// What clients are told to connect to.
    pub fn client_endpoint(&self) -> Endpoint {
        let bound = || Endpoint::from(self.listen.client.0);
        self.listen.advertise_client.clone().unwrap_or_else(bound)
    }

    /// What operators' tools are told to connect to.
    pub fn admin_address(&self) -> HostPort {
        let bound = || HostPort::from(self.listen.admin);
        self.listen.advertise_admin.clone().unwrap_or_else(bound)
    }
}

impl Default for Node {
    fn default() -> Self {
        Self {
            id: 1,
            name: None,
            data_dir: PathBuf::from("/var/lib/quorate"),
        }
    }
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            client: BindAddress(loopback(7400)),
            raft: BindAddress(loopback(7401)),
            admin: loopback(7402),
            advertise_client: None,
            advertise_admin: None,
            insecure: false,
        }
    }
}

impl Default for Cluster {
    fn default() -> Self {
        let alone = BTreeMap::from([(1, Endpoint::from(loopback(7401)))]);
        Self {
            name: "dev".to_owned(),
            peers: Peers(alone),
        }
    }
}

impl Default for Raft {
    fn default() -> Self {
        Self {
            heartbeat_interval: Duration::from_millis(200),
            election_timeout: TimeoutRange {
                min: Duration::from_secs(1),
                max: Duration::from_secs(2),
            },
            log_keep: Size::mib(256),
            checkpoint_interval: Duration::from_secs(60),
        }
    }
}

impl Default for Gateway {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            queued_bytes_per_connection: Size::mib(8),
            accept_version_1: false,
        }
    }
}

impl Default for Genesis {
    fn default() -> Self {
        Self {
            module: ModuleSource::Builtin(Builtin::Kv),
            session_timeout: Duration::from_secs(90),
            session_timeout_min: Duration::from_secs(1),
            session_timeout_max: Duration::from_secs(24 * 3600),
            sessions_max: 100_000,
            requests_in_flight_per_session: 4096,
            fuel_per_command: 1_000_000_000,
            memory_max: Size::mib(64),
            command_max: Size::mib(1),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            filter: "info,openraft=error".to_owned(),
        }
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

#[cfg(test)]
mod config_test;
