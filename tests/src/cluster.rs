//! A cluster of `quorate serve` processes.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};

use anyhow::{Context, Result, anyhow, bail, ensure};
use quorate_protocol::NodeId;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::node::Node;
use crate::ports::Ports;
use crate::{HashAt, NodeStatus, Stopped, Usage, http, quorate_binary, wait_for};

mod inspect;
mod settings;

pub use inspect::Metrics;
pub use settings::Settings;
use settings::configuration;

/// Lines of each node's log that are shown after a failure.
const LOG_LINES: usize = 60;
/// Ports of one node: client, raft, admin.
const PORTS_PER_NODE: u16 = 3;

/// Nodes on this machine. Dropping it ends them all and deletes what they stored.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Node>,
    binary: PathBuf,
    folder: TempDir,
    _ports: Ports,
}

impl Cluster {
    /// Starts `nodes` nodes with the default [`Settings`].
    ///
    /// # Errors
    /// As [`Cluster::start_with`].
    pub async fn start(nodes: u16) -> Result<Self> {
        Self::start_with(Settings {
            nodes,
            ..Settings::default()
        })
        .await
    }

    /// Starts the nodes and waits until a leader serves and all are ready.
    ///
    /// # Errors
    /// The program cannot be built or started, or no leader came; then with the nodes' logs.
    pub async fn start_with(settings: Settings) -> Result<Self> {
        let mut cluster = Self::launch(settings).await?;
        match cluster.wait_until_serving().await {
            Ok(()) => Ok(cluster),
            Err(error) => Err(error.context(cluster.logs())),
        }
    }

    /// Starts the nodes and waits for nothing: for a cluster that may never serve.
    ///
    /// # Errors
    /// The program cannot be built or started.
    pub async fn launch(settings: Settings) -> Result<Self> {
        let profile = settings.profile;
        let binary = match &settings.binary {
            Some(binary) => binary.clone(),
            None => tokio::task::spawn_blocking(move || quorate_binary(profile)).await??,
        };
        let mut cluster = Self::prepare(&settings, &binary)?;
        for node in &mut cluster.nodes {
            node.start(&[])?;
        }
        Ok(cluster)
    }

    /// Configures the nodes, each in files of its own, and starts none.
    fn prepare(settings: &Settings, built: &Path) -> Result<Self> {
        let ports_max = Ports::COUNT / PORTS_PER_NODE;
        ensure!(
            (1..=ports_max).contains(&settings.nodes),
            "a cluster has 1 to {ports_max} nodes, not {}",
            settings.nodes
        );
        // Beside the build's output, since a folder for temporary files may be in memory.
        let temporary = built
            .parent()
            .context("the binary lies in a folder")?
            .join("clusters");
        fs::create_dir_all(&temporary)?;
        let folder = TempDir::with_prefix_in("cluster-", temporary)?;
        // A build during the test must not change what a restarted node runs.
        let binary = folder.path().join("quorate");
        fs::hard_link(built, &binary).or_else(|_| fs::copy(built, &binary).map(drop))?;
        let ports = Ports::take()?;
        let nodes: Vec<Node> = (0..settings.nodes)
            .map(|n| {
                let address = |k| ports.address(n * PORTS_PER_NODE + k);
                let addresses = [address(0), address(1), address(2)];
                let id = NodeId(u64::from(n) + 1);
                let mut node = Node::new(id, folder.path(), &binary, addresses);
                node.failpoint.clone_from(&settings.failpoint);
                node
            })
            .collect();
        let data = settings.data.as_deref().unwrap_or_else(|| folder.path());
        for node in &nodes {
            node.configure(&configuration(settings, node, &nodes, data))?;
        }
        Ok(Self {
            nodes,
            binary,
            folder,
            _ports: ports,
        })
    }

    /// Waits until a leader serves and all nodes are ready.
    ///
    /// # Errors
    /// That does not come in time, or a node that should run has ended.
    pub async fn wait_until_serving(&mut self) -> Result<()> {
        self.wait_for_leader().await?;
        for id in self.ids() {
            self.wait_until_ready(id).await?;
        }
        Ok(())
    }

    /// Waits until a node says that it can serve, or would if it led.
    ///
    /// # Errors
    /// It does not in time, or does not run.
    pub async fn wait_until_ready(&mut self, id: NodeId) -> Result<()> {
        let node = self.node_mut(id);
        let outcome = wait_for("the node is ready", async || {
            if !node.is_running() {
                return Some(Err(node.said()));
            }
            let answer = http::get(node.admin, "/readyz").await;
            matches!(answer, Ok((200, _))).then_some(Ok(()))
        });
        outcome
            .await?
            .map_err(|said| anyhow!("node {id} does not run: {said}"))
    }

    /// Ids of all nodes.
    #[must_use]
    pub fn ids(&self) -> Vec<NodeId> {
        self.nodes.iter().map(|node| node.id).collect()
    }

    /// Client endpoints of all nodes.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        let ids = self.ids();
        ids.into_iter().map(|id| self.endpoint(id)).collect()
    }

    /// The client endpoint of one node.
    ///
    /// # Panics
    /// If there is no such node, as every function that takes an id.
    #[must_use]
    pub fn endpoint(&self, id: NodeId) -> String {
        format!("tcp://{}", self.node(id).client)
    }

    /// The node that leads and serves; waits until there is one.
    ///
    /// # Errors
    /// None in time, or a node that should run has ended.
    pub async fn wait_for_leader(&mut self) -> Result<NodeId> {
        self.wait_for_leader_other_than(None).await
    }

    /// As [`Cluster::wait_for_leader`], but `old` does not count.
    ///
    /// # Errors
    /// As there.
    pub async fn wait_for_new_leader(&mut self, old: NodeId) -> Result<NodeId> {
        self.wait_for_leader_other_than(Some(old)).await
    }

    async fn wait_for_leader_other_than(&mut self, old: Option<NodeId>) -> Result<NodeId> {
        wait_for("a node leads and is ready", async || {
            if let Err(error) = self.check_running() {
                return Some(Err(error));
            }
            self.leader().await.filter(|id| Some(*id) != old).map(Ok)
        })
        .await?
    }

    /// The node that leads now and is ready to serve. Its readiness includes a linearizable read, so
    /// that a leader which was deposed without knowing is not taken for one.
    pub async fn leader(&self) -> Option<NodeId> {
        for node in &self.nodes {
            let leads = self
                .status(node.id)
                .await
                .is_ok_and(|status| status.is_leader());
            if leads && matches!(http::get(node.admin, "/readyz").await, Ok((200, _))) {
                return Some(node.id);
            }
        }
        None
    }

    /// A running node that does not lead.
    ///
    /// # Errors
    /// No leader in time, or no other node runs.
    pub async fn follower(&mut self) -> Result<NodeId> {
        let leader = self.wait_for_leader().await?;
        let mut others = self.nodes.iter_mut().filter(|node| node.id != leader);
        let follower = others.find_map(|node| node.is_running().then_some(node.id));
        follower.context("no follower runs")
    }

    /// The client endpoint of a running node that does not lead.
    ///
    /// # Errors
    /// As [`Cluster::follower`].
    pub async fn follower_endpoint(&mut self) -> Result<String> {
        let follower = self.follower().await?;
        Ok(self.endpoint(follower))
    }

    /// Kills a node with SIGKILL, as a power failure would; returns when it is gone.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill_node(&mut self, id: NodeId) -> Result<()> {
        self.node_mut(id).kill()
    }

    /// Stops a node with SIGSTOP; returns when each of its threads stands still, so that it has nothing
    /// under way at its disk.
    ///
    /// # Errors
    /// It does not run, or does not come to a stand.
    pub async fn hold_node(&mut self, id: NodeId) -> Result<()> {
        let node = self.node_mut(id);
        node.hold()?;
        wait_for("the node stands still", async || {
            matches!(node.is_held(), Ok(true)).then_some(())
        })
        .await
    }

    /// Lets a node go on that [`Cluster::hold_node`] stopped.
    ///
    /// # Errors
    /// It does not run.
    pub fn release_node(&mut self, id: NodeId) -> Result<()> {
        self.node_mut(id).release()
    }

    /// Asks a node to end, with SIGTERM, and waits until it has.
    ///
    /// # Errors
    /// It does not run, or does not end.
    pub async fn stop_node(&mut self, id: NodeId) -> Result<Stopped> {
        let started = Instant::now();
        let node = self.node_mut(id);
        node.terminate()?;
        let status = wait_for("the node ends after SIGTERM", async || {
            node.ended().transpose()
        })
        .await??;
        let took = started.elapsed();
        Ok(Stopped { status, took })
    }

    /// Starts a node again that was killed or stopped, with what it has stored. Returns when its
    /// process was started; it may not answer yet.
    ///
    /// # Errors
    /// It still runs, or cannot be started.
    pub fn restart_node(&mut self, id: NodeId) -> Result<()> {
        self.node_mut(id).start(&[])
    }

    /// As [`Cluster::restart_node`], under a program that becomes the node: `wrapper` and its
    /// arguments, followed by the command.
    ///
    /// # Errors
    /// As there.
    pub fn restart_node_under(&mut self, id: NodeId, wrapper: &[String]) -> Result<()> {
        self.node_mut(id).start(wrapper)
    }

    /// Waits until a node has ended by itself, or by a signal that this harness did not send.
    ///
    /// # Errors
    /// It does not in time, or was never started.
    pub async fn wait_until_ended(&mut self, id: NodeId) -> Result<ExitStatus> {
        let node = self.node_mut(id);
        wait_for("the node ends by itself", async || node.ended().transpose()).await?
    }

    /// Whether a node's process runs.
    pub fn is_running(&mut self, id: NodeId) -> bool {
        self.node_mut(id).is_running()
    }

    /// Where a node keeps its data.
    #[must_use]
    pub fn data_dir(&self, id: NodeId) -> PathBuf {
        self.folder.path().join(format!("node-{id}"))
    }

    /// What a node has said since its last start.
    #[must_use]
    pub fn said(&self, id: NodeId) -> String {
        self.node(id).said()
    }

    /// What makes a node fail from its next start on, as [`Settings::failpoint`] has it.
    pub fn set_failpoint(&mut self, id: NodeId, failpoint: Option<&str>) {
        self.node_mut(id).failpoint = failpoint.map(str::to_owned);
    }

    /// The exit status of a node that has ended by itself; `None` while it runs.
    ///
    /// # Errors
    /// It was killed, or never started.
    pub fn ended(&mut self, id: NodeId) -> Result<Option<ExitStatus>> {
        self.node_mut(id).ended()
    }

    /// What a node's admin listener answers to a GET: status code and body.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn get(&self, id: NodeId, path: &str) -> Result<(u16, String)> {
        http::get(self.node(id).admin, path).await
    }

    /// What a node's admin listener answers to a POST: status code and body.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn post(&self, id: NodeId, path: &str, body: &[u8]) -> Result<(u16, String)> {
        http::post(self.node(id).admin, path, body).await
    }

    /// Fails if a node has ended by itself.
    fn check_running(&mut self) -> Result<()> {
        for node in &mut self.nodes {
            if let Ok(Some(status)) = node.ended()
                && !status.success()
            {
                bail!("node {} ended by itself: {status}", node.id);
            }
        }
        Ok(())
    }

    /// A node as it sees itself.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn status(&self, id: NodeId) -> Result<NodeStatus> {
        let (code, body) = http::get(self.node(id).admin, "/v1/status").await?;
        ensure!(code == 200, "status of node {id}: {code} {body}");
        NodeStatus::parse(&body)
    }

    /// Sessions that the cluster has, as its leader sees them.
    ///
    /// # Errors
    /// No leader came, or it does not answer.
    pub async fn sessions(&mut self) -> Result<u64> {
        let leader = self.wait_for_leader().await?;
        Ok(self.status(leader).await?.sessions)
    }

    /// The hash of every node's state at one index: the newest that any node has applied. Waits for the
    /// nodes that are behind, also for one that is only starting.
    ///
    /// # Errors
    /// A node does not reach the index in time.
    pub async fn hashes(&self) -> Result<Vec<(NodeId, HashAt)>> {
        let mut index = 0;
        for node in &self.nodes {
            let applied = wait_for("the node tells its applied index", async || {
                self.status(node.id)
                    .await
                    .ok()
                    .map(|status| status.applied_index)
            })
            .await?;
            index = index.max(applied);
        }
        let path = format!("/v1/hash?index={index}&wait-ms=1000");
        let mut hashes = Vec::new();
        for node in &self.nodes {
            let why = format!("node {} applies entry {index}", node.id);
            let body = wait_for(&why, async || match http::get(node.admin, &path).await {
                Ok((200, body)) => Some(body),
                _ => None,
            })
            .await?;
            hashes.push((node.id, HashAt::parse(&body)?));
        }
        Ok(hashes)
    }

    /// Checks that all nodes have the same state, and returns its hash.
    ///
    /// # Errors
    /// As [`Cluster::hashes`], or two differ.
    pub async fn equal_hash(&self) -> Result<HashAt> {
        let hashes = self.hashes().await?;
        let (_, first) = hashes.first().context("a cluster has nodes")?;
        ensure!(
            hashes.iter().all(|(_, hash)| hash == first),
            "states differ: {hashes:?}"
        );
        Ok(first.clone())
    }

    /// Connections of clients to a node: each one's port on its side, which is to its node what a
    /// routing id is, and new with every connection.
    ///
    /// # Errors
    /// The operating system does not tell.
    pub fn connections(&self, id: NodeId) -> Result<BTreeSet<u16>> {
        crate::sockets::connections(self.node(id).client)
    }

    /// Sockets that a node's process has open.
    ///
    /// # Errors
    /// It does not run, or the operating system does not tell.
    pub fn open_sockets(&self, id: NodeId) -> Result<usize> {
        self.node(id).open_sockets()
    }

    /// Memory and CPU of a node's process.
    ///
    /// # Errors
    /// It does not run, or the operating system does not tell.
    pub fn usage(&self, id: NodeId) -> Result<Usage> {
        self.node(id).usage()
    }

    /// Runs `quorate` as a user would, against all nodes. Blocks until it ends.
    ///
    /// # Errors
    /// It cannot be started. Its exit status is for the caller to judge.
    pub fn quorate(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = self.quorate_command(arguments);
        command.output().with_context(|| format!("run {command:?}"))
    }

    /// `quorate` as a user would run it, against all nodes; for the caller to start.
    #[must_use]
    pub fn quorate_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .args(arguments)
            .env("QUORATE_ENDPOINTS", self.endpoints().join(","));
        command
    }

    /// The folder with the nodes' data, configurations and logs.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The ends of all nodes' logs, for people.
    #[must_use]
    pub fn logs(&self) -> String {
        let mut text = String::new();
        for node in &self.nodes {
            let end = node.log_end(LOG_LINES);
            writeln!(text, "--- end of the log of node {}\n{end}", node.id)
                .expect("writing to a string cannot fail");
        }
        text
    }

    fn node(&self, id: NodeId) -> &Node {
        let node = self.nodes.iter().find(|node| node.id == id);
        node.expect("the caller has the id from this cluster")
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node {
        let node = self.nodes.iter_mut().find(|node| node.id == id);
        node.expect("the caller has the id from this cluster")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}--- kept: {}", self.logs(), self.folder.path().display());
            self.folder.disable_cleanup(true);
        }
    }
}
