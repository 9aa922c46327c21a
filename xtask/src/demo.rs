//! `cargo xtask demo`: three nodes, a killed leader, one session. What a user would do by hand, with
//! times; the first step that fails ends it.

use std::fmt::Display;
use std::process::Output;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use quorate_client::{Client, Requests};
use quorate_tests::{Cluster, Profile, kv, quorate_binary};

const KEY: &str = "greeting";

pub(crate) fn run() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start a runtime")?;
    runtime.block_on(async {
        tokio::select! {
            ended = tell() => ended,
            // Returning ends the nodes and deletes their data.
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        }
    })
}

async fn tell() -> Result<()> {
    let mut story = Story::begin();
    story.step("build quorate");
    let binary = tokio::task::spawn_blocking(|| quorate_binary(Profile::current())).await??;
    story.result(binary.display());

    story.step("start three nodes, each `quorate serve` with the module kv");
    let mut cluster = Cluster::start(3).await?;
    let ended = play(&mut story, &mut cluster).await;
    if ended.is_err() {
        eprintln!("{}", cluster.logs());
        return ended.with_context(|| format!("step {} failed: {}", story.steps, story.current));
    }
    story.step("stop the nodes");
    for id in cluster.ids() {
        let stopped = cluster.stop_node(id).await?;
        ensure!(
            stopped.status.success(),
            "node {id} ended with {}",
            stopped.status
        );
    }
    story.end();
    Ok(())
}

async fn play(story: &mut Story, cluster: &mut Cluster) -> Result<()> {
    let old = cluster.wait_for_leader().await?;
    story.result(format_args!("node {old} leads"));
    story.output(&cluster.quorate(&["cluster", "status"])?)?;

    story.step("open a session through a follower");
    let follower = cluster.follower().await?;
    let client = connect(&cluster.endpoint(follower)).await?;
    let session = client
        .session_id()
        .context("a connected client has a session")?;
    story.result(format_args!(
        "node {follower} named the leader; session {session}"
    ));

    story.step("set a key and get it");
    let set = client.call_bytes(kv::set(KEY, "hello")).await?;
    story.result(format_args!(
        "set {KEY} = hello, committed at index {}",
        set.commit_index
    ));
    expect_value(&client, "hello").await?;
    story.result(format_args!("get {KEY} = hello"));

    story.step("watch the key from a second session");
    let watcher = connect(&cluster.endpoint(follower)).await?;
    let mut requests = watcher
        .requests()
        .context("nobody has taken the requests")?;
    watcher.call_bytes(kv::watch(KEY)).await?;
    expect_notification(&mut requests, "hello").await?;
    story.result("the watcher was told the value: hello");
    client.call_bytes(kv::set(KEY, "hello again")).await?;
    expect_notification(&mut requests, "hello again").await?;
    story.result("the watcher was told the change: hello again");

    story.step(format_args!("kill the leader, node {old}, with kill -9"));
    cluster.kill_node(old)?;
    let killed = Instant::now();

    story.step("go on with the same session");
    let after = client.call_bytes(kv::set("farewell", "not yet")).await?;
    story.result(format_args!(
        "set farewell = not yet, committed at index {}, {} after the kill",
        after.commit_index,
        seconds(killed.elapsed())
    ));
    let new = cluster.wait_for_new_leader(old).await?;
    ensure!(
        client.session_id() == Some(session),
        "the session is another one"
    );
    ensure!(after.commit_index > set.commit_index, "the log went back");
    story.result(format_args!("node {new} leads; session {session}"));

    story.step("read what was written before");
    expect_value(&client, "hello again").await?;
    story.result(format_args!("get {KEY} = hello again"));
    client.call_bytes(kv::set(KEY, "hello, new leader")).await?;
    expect_notification(&mut requests, "hello, new leader").await?;
    story.result("the watcher is still told: hello, new leader");

    story.step(format_args!("restart node {old}"));
    cluster.restart_node(old)?;
    let equal = cluster.equal_hash().await?;
    story.result(format_args!("it has caught up to index {}", equal.index));

    story.step("compare the states of all nodes");
    story.output(&cluster.quorate(&["cluster", "hash", "--timeout", "30s"])?)?;
    story.output(&cluster.quorate(&["cluster", "status"])?)?;

    story.step("close the sessions");
    client.close().await?;
    watcher.close().await?;
    Ok(())
}

async fn connect(endpoint: &str) -> Result<Client> {
    Client::builder([endpoint])
        .capability("app", "demo")
        .request_timeout(Duration::from_secs(2))
        .attempt_timeout(Duration::from_secs(2))
        .call_timeout(Duration::from_secs(60))
        .connect_timeout(Duration::from_secs(60))
        .connect()
        .await
        .with_context(|| format!("open a session at {endpoint}"))
}

async fn expect_value(client: &Client, value: &str) -> Result<()> {
    let found = client.query_bytes(kv::get(KEY)).await?;
    ensure!(
        found.answer == kv::value(Some(value)),
        "expected {value:?}, got {:?}",
        String::from_utf8_lossy(&found.answer)
    );
    Ok(())
}

async fn expect_notification(requests: &mut Requests, value: &str) -> Result<()> {
    let request = tokio::time::timeout(Duration::from_secs(60), requests.next())
        .await
        .context("the watcher was not told")?
        .context("the watcher's session has ended")?;
    ensure!(
        request.payload == kv::notification(KEY, value),
        "expected a notification of {value:?}, got {:?}",
        String::from_utf8_lossy(&request.payload)
    );
    request.ack();
    Ok(())
}

/// Says what happens, on standard output.
struct Story {
    started: Instant,
    steps: u32,
    current: String,
}

impl Story {
    fn begin() -> Self {
        Self {
            started: Instant::now(),
            steps: 0,
            current: String::new(),
        }
    }

    fn step(&mut self, what: impl Display) {
        self.steps += 1;
        self.current = what.to_string();
        println!(
            "{:>9}  {:>2}. {what}",
            seconds(self.started.elapsed()),
            self.steps
        );
    }

    fn result(&self, what: impl Display) {
        println!("{:>9}      {what}", seconds(self.started.elapsed()));
    }

    /// Shows what a command printed, which must have succeeded.
    fn output(&self, output: &Output) -> Result<()> {
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            println!("{:>9}      | {line}", "");
        }
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "quorate ended with {}\n{told}",
            output.status
        );
        Ok(())
    }

    fn end(&self) {
        println!(
            "{:>9}      done: nothing was lost",
            seconds(self.started.elapsed())
        );
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.3} s", duration.as_secs_f64())
}
