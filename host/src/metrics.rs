//! What a node counts and measures, for `/metrics`.
//!
//! One [`Metrics`] per node, handed to whatever counts: nothing is global, so that several nodes
//! live in one process. Names are etcd's where it has them; docs/metrics.md lists every one, and a
//! test compares. Units are seconds and bytes; counters end in `_total`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// What [`Metrics::encode`] returns is of this type.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A histogram per label set.
pub type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// A value out of a fixed set, as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Slug(pub &'static str);

impl EncodeLabelValue for Slug {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        EncodeLabelValue::encode(&self.0, encoder)
    }
}

/// Another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Peer {
    /// Its node id.
    pub peer: u64,
}

/// Why something happened to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reason {
    /// As in the session protocol, such as `not-leader`.
    pub reason: Slug,
}

/// A request of a client, and how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestOutcome {
    /// `command` or `query`.
    pub kind: Slug,
    /// `applied`, `answered`, or a rejection's reason.
    pub outcome: Slug,
}

/// A request of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestKind {
    /// `command` or `query`.
    pub kind: Slug,
}

/// A call of the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Entry {
    /// What was called for: `command`, `session-created`, `query` and so on.
    pub entry: Slug,
}

/// A stage of a command's way, on the leader; those of applying on every node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Decoding and queueing one message of a client; of one in 16.
    Ingress,
    /// From a command's arrival to its entry, for the one that waited longest.
    BatchWait,
    /// Encoding an entry.
    Encode,
    /// From handing an entry to consensus to applying it here: a majority has it on disk.
    Commit,
    /// Applying one entry, one in 16, without what follows.
    Core,
    /// Making instances of the module.
    Instance,
    /// The module's code.
    Guest,
    /// What the module calls, without reading the state.
    HostCalls,
    /// Reading the state, and taking the entry's writes into it.
    State,
    /// Hashing.
    Hash,
    /// From an entry's being applied to its last answer's being queued.
    Response,
}

impl Stage {
    fn slug(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::BatchWait => "batch-wait",
            Self::Encode => "encode",
            Self::Commit => "commit",
            Self::Core => "core",
            Self::Instance => "instance",
            Self::Guest => "guest",
            Self::HostCalls => "host-calls",
            Self::State => "state",
            Self::Hash => "hash",
            Self::Response => "response",
        }
    }
}

/// A [`Stage`], as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct InStage {
    /// Its slug.
    pub stage: Slug,
}

/// What became of a module that was to be put in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct UpgradeOutcome {
    /// `activated`, or the slug of the reason why it was not.
    pub outcome: Slug,
}

/// A trap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TrapCode {
    /// The trap's slug.
    pub code: Slug,
}

/// The module in force.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ModuleInfo {
    /// From its manifest.
    pub name: String,
    /// From its manifest.
    pub version: String,
    /// SHA-256 of the module, in hexadecimal.
    pub hash: String,
    /// From its manifest.
    pub state_version: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildInfo {
    version: &'static str,
    commit: &'static str,
    rustc: &'static str,
}

macro_rules! metrics {
    ($($(#[$doc:meta])* $field:ident: $type:ty = $make:expr, $name:literal, $help:literal;)*) => {
        /// Every metric of one node. Cheap to clone; clones count into the same metrics.
        #[derive(Clone)]
        pub struct Metrics {
            registry: Arc<Registry>,
            $(#[doc = $help] $(#[$doc])* pub $field: $type,)*
        }

        /// The names, with neither prefix nor `_total`.
        #[cfg(test)]
        const NAMES: &[&str] = &[$($name),*];

        impl Metrics {
            /// Metrics that have counted nothing.
            pub fn new() -> Self {
                let mut registry = Registry::with_prefix("quorate");
                $(let $field: $type = $make; registry.register($name, $help, $field.clone());)*
                registry.register("build", "The binary", Info::new(build_info()));
                Self { registry: Arc::new(registry), $($field,)* }
            }
        }
    };
}

metrics! {
    has_leader: Gauge = Gauge::default(), "server_has_leader", "Whether a leader is known: 1 or 0";
    is_leader: Gauge = Gauge::default(), "server_is_leader", "Whether this node leads: 1 or 0";
    is_learner: Gauge = Gauge::default(), "server_is_learner",
        "Whether this node is a learner: 1 or 0";
    leader_changes_seen: Counter = Counter::default(), "server_leader_changes_seen",
        "Leader changes seen";
    proposals_committed: Counter = Counter::default(), "server_proposals_committed",
        "Entries that this node proposed and that were committed";
    proposals_applied: Counter = Counter::default(), "server_proposals_applied",
        "Entries applied";
    proposals_pending: Gauge = Gauge::default(), "server_proposals_pending",
        "Entries that this node proposed and that are not yet applied";
    proposals_failed: Counter = Counter::default(), "server_proposals_failed",
        "Entries that this node proposed and that were refused or discarded";
    slow_apply: Counter = Counter::default(), "server_slow_apply",
        "Entries that took longer than 100 ms to apply";
    read_indexes_failed: Counter = Counter::default(), "server_read_indexes_failed",
        "Rounds of ReadIndex that failed";

    raft_term: Gauge = Gauge::default(), "raft_term", "Current term";
    raft_last_log_index: Gauge = Gauge::default(), "raft_last_log_index",
        "Index of the last entry in the log";
    raft_commit_index: Gauge = Gauge::default(), "raft_commit_index",
        "Index of the last entry known to be committed";
    raft_applied_index: Gauge = Gauge::default(), "raft_applied_index",
        "Index of the last entry applied";
    raft_replication_lag: Family<Peer, Gauge> = Family::default(),
        "raft_replication_lag_entries",
        "Entries that a peer is behind; on the leader only";

    log_fsync_duration: Histogram = seconds(), "disk_log_fsync_duration_seconds",
        "Time of one durable commit of the log";
    db_size: Family<File, Gauge> = Family::default(), "disk_db_size_bytes",
        "Size of a database file";
    snapshot_build_duration: Histogram = long_seconds(), "snapshot_build_duration_seconds",
        "Time to build a snapshot";
    snapshot_bytes: Gauge = Gauge::default(), "snapshot_bytes",
        "Size of the newest snapshot built or received";
    peer_round_trip_time: Histograms<Peer> = Family::new_with_constructor(seconds as _),
        "network_peer_round_trip_time_seconds",
        "Round-trip time of heartbeats to a peer";
    peer_sent_bytes: Family<Peer, Counter> = Family::default(), "network_peer_sent_bytes",
        "Bytes sent to a peer";
    peer_received_bytes: Family<Peer, Counter> = Family::default(),
        "network_peer_received_bytes",
        "Bytes received from a peer";

    sessions_active: Gauge = Gauge::default(), "sessions_active", "Sessions in the state";
    sessions_created: Counter = Counter::default(), "sessions_created", "Sessions created";
    sessions_expired: Counter = Counter::default(), "sessions_expired", "Sessions expired";
    sessions_closed: Family<Reason, Counter> = Family::default(), "sessions_closed",
        "Sessions closed";
    sessions_rejected: Family<Reason, Counter> = Family::default(), "sessions_rejected",
        "Requests for a session that this node rejected";
    server_requests_dispatched: Counter = Counter::default(), "server_requests_dispatched",
        "Requests sent to clients, each sending";
    server_requests_acked: Counter = Counter::default(), "server_requests_acked",
        "Requests that clients acknowledged";
    client_connections: Gauge = Gauge::default(), "client_connections",
        "Connections of clients, after their handshake";
    client_connections_accepted: Counter = Counter::default(), "client_connections_accepted",
        "Connections taken from the client port, refused ones included";
    client_connections_refused: Family<Reason, Counter> = Family::default(),
        "client_connections_refused",
        "Connections that ended before their handshake was complete";
    client_connections_closed: Family<Reason, Counter> = Family::default(),
        "client_connections_closed",
        "Connections that ended after their handshake";
    client_accept_failures: Counter = Counter::default(), "client_accept_failures",
        "Failures to take a connection for want of a resource";
    client_messages_refused: Family<Reason, Counter> = Family::default(),
        "client_messages_refused",
        "Messages of clients that mean nothing here; the connection is closed";
    client_received_messages: Counter = Counter::default(), "client_received_messages",
        "Messages received from clients";
    client_sent_messages: Counter = Counter::default(), "client_sent_messages",
        "Messages queued to clients";
    client_received_bytes: Counter = Counter::default(), "client_received_bytes",
        "Bytes received from clients";
    client_sent_bytes: Counter = Counter::default(), "client_sent_bytes",
        "Bytes sent to clients";
    client_queued_bytes: Gauge = Gauge::default(), "client_queued_bytes",
        "Bytes queued to clients and not yet sent";
    relays_open: Gauge = Gauge::default(), "relays_open",
        "Connections of version-1 clients that this node relays to the leader";
    relayed_connections: Gauge = Gauge::default(), "relayed_connections",
        "Connections of clients that other nodes relay to this one";
    relay_messages_dropped: Counter = Counter::default(), "relay_messages_dropped",
        "Messages of clients that were not relayed for want of room; they are sent again";
    client_requests: Family<RequestOutcome, Counter> = Family::default(), "client_requests",
        "Requests of clients that this node answered";
    client_request_duration: Histograms<RequestKind> = Family::new_with_constructor(seconds as _),
        "client_request_duration_seconds",
        "Time from a request's arrival to its answer";
    response_cache_hits: Counter = Counter::default(), "response_cache_hits",
        "Commands answered from the cache of their session";
    response_cache_evictions: Counter = Counter::default(), "response_cache_evictions",
        "Cached responses dropped because their client no longer needs them";

    module: Family<ModuleInfo, Gauge> = Family::default(), "module_info",
        "The module in force: 1";
    module_apply_duration: Histograms<Entry> = Family::new_with_constructor(seconds as _),
        "module_apply_duration_seconds",
        "Time to apply one entry, its calls of the module included";
    stage_duration: Histograms<InStage> = Family::new_with_constructor(short_seconds as _),
        "stage_duration_seconds",
        "Time of one stage of the way of an entry and its commands";
    module_fuel_consumed: Counter = Counter::default(), "module_fuel_consumed",
        "Fuel that the module used";
    module_calls: Counter = Counter::default(), "module_calls",
        "Calls of the module while applying: commands, hooks and migrations";
    module_upgrades: Family<UpgradeOutcome, Counter> = Family::default(), "module_upgrades",
        "Modules that were put in force, or were to be";
    module_upgrade_duration: Histogram = seconds(), "module_upgrade_duration_seconds",
        "Time to apply an entry that puts a module in force, its migration included";
    module_traps: Family<TrapCode, Counter> = Family::default(), "module_traps",
        "Calls of the module that trapped";
    state_hash_mismatch: Counter = Counter::default(), "state_hash_mismatch",
        "Checkpoints at which this node's state differed";
}

/// A file of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct File {
    /// `raft` or `state`.
    pub file: Slug,
}

impl Metrics {
    /// All metrics as OpenMetrics text, of [`CONTENT_TYPE`].
    pub fn encode(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string cannot fail");
        text
    }

    /// Adds what a stage took.
    pub fn stage(&self, stage: Stage, took: Duration) {
        let label = InStage {
            stage: Slug(stage.slug()),
        };
        observe(&self.stage_duration.get_or_create(&label), took);
    }

    /// Counts a module that was put in force (`activated`) or was not (the reason's slug), by an entry
    /// that took so long.
    pub fn count_upgrade(&self, outcome: &'static str, took: Duration) {
        let outcome = Slug(outcome);
        let label = UpgradeOutcome { outcome };
        self.module_upgrades.get_or_create(&label).inc();
        observe(&self.module_upgrade_duration, took);
    }

    /// Says which module is in force, instead of the one before.
    pub fn set_module(&self, info: &ModuleInfo) {
        self.module.clear();
        self.module.get_or_create(info).set(1);
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

/// Adds `duration` to `histogram`.
pub fn observe(histogram: &Histogram, duration: Duration) {
    histogram.observe(duration.as_secs_f64());
}

/// 1 us to 17 s, each bucket four times the one before.
fn short_seconds() -> Histogram {
    Histogram::new((0..13).map(|power| 1e-6 * f64::from(1u32 << (2 * power))))
}

/// 50 us to 13 s, each bucket twice the one before.
fn seconds() -> Histogram {
    Histogram::new((0..19).map(|power| 50e-6 * f64::from(1u32 << power)))
}

/// 10 ms to 44 min, each bucket four times the one before.
fn long_seconds() -> Histogram {
    Histogram::new((0..10).map(|power| 10e-3 * f64::from(1u32 << (2 * power))))
}

fn build_info() -> BuildInfo {
    BuildInfo {
        version: env!("CARGO_PKG_VERSION"),
        commit: option_env!("QUORATE_COMMIT").unwrap_or("unknown"),
        rustc: option_env!("QUORATE_RUSTC").unwrap_or("unknown"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The names in `text` that begin like ours.
    fn names(text: &str) -> BTreeSet<&str> {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        words.filter(|word| word.starts_with("quorate_")).collect()
    }

    #[test]
    fn documentation_lists_every_metric_and_no_other() {
        let encoded = Metrics::new().encode();
        let lines = encoded
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "));
        let exposed: BTreeSet<String> = lines
            .map(
                |line| match line.split_once(' ').expect("a name and a type") {
                    (name, "counter") => format!("{name}_total"),
                    (name, "info") => format!("{name}_info"),
                    (name, _) => name.to_owned(),
                },
            )
            .collect();
        // A metric with labels shows only once it counts: those are known by their names alone.
        let documented = names(include_str!("../../docs/metrics.md"));
        for name in &exposed {
            assert!(
                documented.contains(name.as_str()),
                "{name} is not documented"
            );
        }
        let bare = |name: &&str| {
            let name = name.trim_start_matches("quorate_");
            name.trim_end_matches("_total").to_owned()
        };
        let mut known: BTreeSet<String> = NAMES.iter().map(|name| (*name).to_owned()).collect();
        known.insert("build_info".to_owned());
        assert_eq!(documented.iter().map(bare).collect::<BTreeSet<_>>(), known);
    }

    #[test]
    fn nodes_in_one_process_count_apart() {
        let (one, other) = (Metrics::new(), Metrics::new());
        let handle = one.clone();
        handle.leader_changes_seen.inc();
        assert!(
            one.encode()
                .contains("quorate_server_leader_changes_seen_total 1\n")
        );
        assert!(
            other
                .encode()
                .contains("quorate_server_leader_changes_seen_total 0\n")
        );
    }

    #[test]
    fn labels_are_written_as_they_are_documented() {
        let metrics = Metrics::new();
        let outcome = RequestOutcome {
            kind: Slug("command"),
            outcome: Slug("applied"),
        };
        metrics.client_requests.get_or_create(&outcome).inc();
        metrics
            .raft_replication_lag
            .get_or_create(&Peer { peer: 2 })
            .set(7);
        let info = |version: &str| ModuleInfo {
            name: "kv".to_owned(),
            version: version.to_owned(),
            hash: "ab".to_owned(),
            state_version: 1,
        };
        metrics.set_module(&info("0.1.0"));
        metrics.set_module(&info("0.2.0"));
        observe(&metrics.log_fsync_duration, Duration::from_millis(1));
        let text = metrics.encode();
        for line in [
            "quorate_client_requests_total{kind=\"command\",outcome=\"applied\"} 1",
            "quorate_raft_replication_lag_entries{peer=\"2\"} 7",
            "quorate_module_info{name=\"kv\",version=\"0.2.0\",hash=\"ab\",state_version=\"1\"} 1",
            "quorate_disk_log_fsync_duration_seconds_bucket{le=\"0.0008\"} 0",
            "quorate_disk_log_fsync_duration_seconds_bucket{le=\"0.0016\"} 1",
        ] {
            assert!(
                text.lines().any(|other| other == line),
                "{line} is not in\n{text}"
            );
        }
        assert!(
            !text.contains("0.1.0\",hash"),
            "the module before is still in force"
        );
    }
}
