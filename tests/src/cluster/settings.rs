//! What a cluster is started with, and what that makes of each node's configuration.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Profile;
use crate::node::Node;

/// What a cluster is started with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How many nodes, 1 to 5. Their ids are 1, 2, 3, ...
    pub nodes: u16,
    /// The first module: `kv`, `counter`, `work-queue`, or a file.
    pub module: String,
    /// Further lines of the table `[genesis]`.
    pub genesis: String,
    /// How the program is compiled.
    pub profile: Profile,
    /// A program that was built before, such as another release, instead of building this one.
    pub binary: Option<PathBuf>,
    /// Whether zio-raft's clients are served.
    pub accept_version_1: bool,
    /// `raft.heartbeat-interval`.
    pub heartbeat_interval: Duration,
    /// `raft.election-timeout`, both ends.
    pub election_timeout: [Duration; 2],
    /// `raft.checkpoint-interval`.
    pub checkpoint_interval: Duration,
    /// Where the nodes keep their data, a folder each; otherwise in the cluster's own folder.
    pub data: Option<PathBuf>,
    /// What makes the nodes fail, as `QUORATE_FAILPOINT` has it. Needs [`Profile::Dev`].
    pub failpoint: Option<String>,
}

impl Default for Settings {
    /// Three nodes with the module kv, for version 2, and with timeouts that are half of a node's
    /// defaults: short, and yet not met by a node that waits for a busy processor.
    fn default() -> Self {
        Self {
            nodes: 3,
            module: "kv".to_owned(),
            genesis: String::new(),
            profile: Profile::current(),
            binary: None,
            accept_version_1: false,
            heartbeat_interval: Duration::from_millis(100),
            election_timeout: [Duration::from_millis(500), Duration::from_secs(1)],
            checkpoint_interval: Duration::from_secs(60),
            data: None,
            failpoint: None,
        }
    }
}

/// The configuration of `node`, one of `nodes`, with its data in `folder`.
pub(super) fn configuration(
    settings: &Settings,
    node: &Node,
    nodes: &[Node],
    folder: &Path,
) -> String {
    let peers: String = nodes
        .iter()
        .map(|peer| format!("{} = \"tcp://{}\"\n", peer.id, peer.raft))
        .collect();
    let data = folder.join(format!("node-{}", node.id));
    let milliseconds = |duration: Duration| format!("{}ms", duration.as_millis());
    let [shortest, longest] = settings.election_timeout.map(milliseconds);
    format!(
        r#"[node]
id = {id}
data-dir = '{data}'

[listen]
client = "tcp://{client}"
raft = "tcp://{raft}"
admin = "{admin}"

[cluster]
name = "test"

[cluster.peers]
{peers}
[raft]
heartbeat-interval = "{heartbeat}"
election-timeout = "{shortest}..{longest}"
checkpoint-interval = "{checkpoints}"

[gateway]
accept-version-1 = {version_1}

[genesis]
module = '{module}'
{genesis}
"#,
        id = node.id,
        data = data.display(),
        client = node.client,
        raft = node.raft,
        admin = node.admin,
        heartbeat = milliseconds(settings.heartbeat_interval),
        checkpoints = milliseconds(settings.checkpoint_interval),
        version_1 = settings.accept_version_1,
        module = settings.module,
        genesis = settings.genesis,
    )
}
