//! What one value cannot say: bounds, and values that contradict one another.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use super::{Config, Endpoint, Size};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A rule that is broken, and the keys that break it, the likeliest culprit first.
#[derive(Debug)]
pub(super) struct Violation {
    pub(super) keys: Vec<String>,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

#[derive(Default)]
struct Check(Vec<Violation>);

/// Everything that is wrong with `config`; nothing if it may be used.
pub(super) fn violations(config: &Config) -> Vec<Violation> {
    let mut check = Check::default();
    node(config, &mut check);
    listen(config, &mut check);
    cluster(config, &mut check);
    raft(config, &mut check);
    gateway(config, &mut check);
    genesis(config, &mut check);
    check.0
}

impl Check {
    fn fail(&mut self, keys: &[&str], message: String, hint: impl Into<Option<&'static str>>) {
        let keys = keys.iter().map(|key| (*key).to_owned()).collect();
        self.0.push(Violation {
            keys,
            message,
            hint: hint.into().map(str::to_owned),
        });
    }

    fn within<T: PartialOrd + Display>(&mut self, key: &str, value: T, min: T, max: T) {
        if value < min || value > max {
            let message = format!("{key} is {value}, it must be between {min} and {max}");
            self.fail(&[key], message, None);
        }
    }

    fn duration(&mut self, key: &str, value: Duration, min: Duration, max: Duration) {
        if value < min || value > max {
            let [value, min, max] = [value, min, max].map(text);
            let message = format!("{key} is {value}, it must be between {min} and {max}");
            self.fail(&[key], message, None);
        }
    }

    fn length(&mut self, key: &str, value: &str, bytes_max: usize) {
        let len = value.len();
        if len == 0 || len > bytes_max {
            let message = format!("{key} has {len} bytes, it must have between 1 and {bytes_max}");
            self.fail(&[key], message, None);
        }
    }
}

fn text(duration: Duration) -> String {
    humantime_serde::re::humantime::format_duration(duration).to_string()
}

fn node(config: &Config, check: &mut Check) {
    check.within("node.id", config.node.id, 1, i64::MAX as u64);
    if let Some(name) = &config.node.name {
        check.length("node.name", name, 255);
    }
    if config.node.data_dir.as_os_str().is_empty() {
        check.fail(
            &["node.data-dir"],
            "node.data-dir is empty".to_owned(),
            None,
        );
    }
}

fn listen(config: &Config, check: &mut Check) {
    let listen = &config.listen;
    let bound = [
        ("listen.client", listen.client.0),
        ("listen.raft", listen.raft.0),
        ("listen.admin", listen.admin),
    ];
    for (at, (key, address)) in bound.iter().enumerate() {
        if !address.ip().is_loopback() && !listen.insecure {
            let message =
                format!("{key} is {address}, which other machines can reach without encryption");
            let hint = "listen on 127.0.0.1, or allow it with `listen.insecure = true` or \
                        `--insecure` on a network that you trust";
            check.fail(&[key], message, hint);
        }
        for (other_key, other) in &bound[..at] {
            let overlap = address.ip() == other.ip()
                || address.ip().is_unspecified()
                || other.ip().is_unspecified();
            if address.port() != 0 && address.port() == other.port() && overlap {
                let port = address.port();
                let message = format!("{key} and {other_key} have the same port {port}");
                check.fail(&[key, other_key], message, None);
            }
        }
    }
    advertised(config, check);
}

fn advertised(config: &Config, check: &mut Check) {
    let told = [
        (
            "listen.advertise-client",
            "listen.client",
            config.client_endpoint().0,
        ),
        (
            "listen.advertise-admin",
            "listen.admin",
            config.admin_address(),
        ),
    ];
    for (key, bound, address) in told {
        if address.is_unspecified() {
            let message = format!("nobody can connect to {address}: {key} is needed");
            let hint = "name the address under which the others reach this node";
            check.fail(&[key, bound], message, hint);
        }
    }
}

fn cluster(config: &Config, check: &mut Check) {
    let cluster = &config.cluster;
    check.length("cluster.name", &cluster.name, 64);
    let peers = &cluster.peers.0;
    let id = config.node.id;
    if peers.is_empty() {
        let message = "cluster.peers is empty".to_owned();
        let hint = "name every founding node, this one included: 1 = \"tcp://127.0.0.1:7401\"";
        check.fail(&["cluster.peers"], message, hint);
    } else if id != 0 && !peers.contains_key(&id) {
        let known = peers
            .keys()
            .map(u64::to_string)
            .collect::<Vec<_>>()
            .join(", ");
        let message = format!("node.id is {id}, but cluster.peers names only {known}");
        let hint = "name every founding node, this one included";
        check.fail(&["node.id", "cluster.peers"], message, hint);
    }
    let mut seen: BTreeMap<&Endpoint, u64> = BTreeMap::new();
    for (id, endpoint) in peers {
        let key = format!("cluster.peers.{id}");
        if endpoint.0.is_unspecified() {
            let message = format!("{key} is {endpoint}, which nobody can connect to");
            check.fail(
                &[&key],
                message,
                "name the address under which the others reach it",
            );
        }
        if let Some(other) = seen.insert(endpoint, *id) {
            let other = format!("cluster.peers.{other}");
            let message = format!("{key} and {other} have the same address {endpoint}");
            check.fail(&[&key, &other], message, None);
        }
    }
    if let Some(own) = peers.get(&id) {
        let told = [
            ("listen.client", config.client_endpoint().0),
            ("listen.admin", config.admin_address()),
        ];
        for (key, address) in told {
            if own.0 == address && address.port() != config.listen.raft.0.port() {
                let peer = format!("cluster.peers.{id}");
                let message = format!("{peer} is the address of {key}, not of listen.raft");
                check.fail(&[&peer, key], message, "give the raft port of every node");
            }
        }
    }
}

fn raft(config: &Config, check: &mut Check) {
    let raft = &config.raft;
    let (heartbeat, election) = (raft.heartbeat_interval, raft.election_timeout);
    let (heartbeat_key, election_key) = ("raft.heartbeat-interval", "raft.election-timeout");
    let minute = Duration::from_secs(60);
    check.duration(heartbeat_key, heartbeat, Duration::from_millis(10), minute);
    if election.min >= election.max || election.max > 10 * minute {
        let message = format!("{election_key} is {election}, a range that ends before it begins");
        let message = match election.min < election.max {
            true => format!("{election_key} is {election}, it must end within 10m"),
            false => message,
        };
        check.fail(
            &[election_key],
            message,
            "write shortest..longest, such as \"1s..2s\"",
        );
    }
    if election.min <= heartbeat.saturating_mul(2) {
        let message = format!(
            "{election_key} begins at {}, it must be more than twice {heartbeat_key} ({})",
            text(election.min),
            text(heartbeat)
        );
        let hint = "five heartbeats or more, so that one lost heartbeat causes no election";
        check.fail(&[election_key, heartbeat_key], message, hint);
    }
    let interval = raft.checkpoint_interval;
    let key = "raft.checkpoint-interval";
    check.duration(key, interval, Duration::from_secs(1), 7 * DAY);
    check.within(
        "raft.log-keep",
        raft.log_keep,
        Size::mib(1),
        Size::gib(1024),
    );
}

fn gateway(config: &Config, check: &mut Check) {
    let gateway = &config.gateway;
    check.within(
        "gateway.connections-max",
        gateway.connections_max,
        1,
        1_000_000,
    );
    let queued = gateway.queued_bytes_per_connection;
    let key = "gateway.queued-bytes-per-connection";
    check.within(key, queued, Size::kib(64), Size::gib(1));
}

fn genesis(config: &Config, check: &mut Check) {
    let genesis = &config.genesis;
    let timeouts = [
        ("genesis.session-timeout", genesis.session_timeout),
        ("genesis.session-timeout-min", genesis.session_timeout_min),
        ("genesis.session-timeout-max", genesis.session_timeout_max),
    ];
    for (key, timeout) in timeouts {
        check.duration(key, timeout, Duration::from_millis(100), 7 * DAY);
    }
    let [timeout, min, max] = timeouts;
    for (low, high) in [(min, timeout), (timeout, max)] {
        if low.1 > high.1 && !high.1.is_zero() {
            let (low_text, high_text) = (text(low.1), text(high.1));
            let message = format!(
                "{} ({low_text}) is more than {} ({high_text})",
                low.0, high.0
            );
            check.fail(&[low.0, high.0], message, None);
        }
    }
    check.within("genesis.sessions-max", genesis.sessions_max, 1, 10_000_000);
    let requests = genesis.requests_in_flight_per_session;
    check.within("genesis.requests-in-flight-per-session", requests, 1, 4096);
    let fuel = genesis.fuel_per_command;
    check.within(
        "genesis.fuel-per-command",
        fuel,
        1_000_000,
        1_000_000_000_000,
    );
    check.within(
        "genesis.memory-max",
        genesis.memory_max,
        Size::mib(1),
        Size::gib(4),
    );
    if !genesis.memory_max.get().is_multiple_of(Size::kib(64).get()) {
        let message = format!(
            "genesis.memory-max is {}, not whole pages",
            genesis.memory_max
        );
        check.fail(&["genesis.memory-max"], message, "a page has 64KiB");
    }
    check.within(
        "genesis.command-max",
        genesis.command_max,
        Size::kib(1),
        Size::mib(1),
    );
}
