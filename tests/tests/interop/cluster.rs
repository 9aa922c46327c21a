//! A cluster of three processes, and a driver that asks this side for what only it can do.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use quorate_protocol::NodeId;
use quorate_tests::{Cluster, Settings, skipped, wait_for};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

use crate::environment::Environment;

const DRIVER: &str = "cluster_client.js";

/// Runs one scenario of the driver against a cluster of its own.
pub(crate) async fn drive(scenario: &str) {
    let environment = match tokio::task::spawn_blocking(Environment::node)
        .await
        .unwrap()
    {
        Ok(environment) => environment,
        Err(why) => {
            skipped(format_args!(
                "interoperability with {DRIVER} {scenario}: {why:#}"
            ));
            return;
        }
    };
    let settings = Settings {
        accept_version_1: true,
        ..Settings::default()
    };
    let mut cluster = Cluster::start_with(settings).await.unwrap();
    cluster.wait_for_leader().await.unwrap();
    let mut command = Command::from(environment.command());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    command
        .arg(folder.join("tests/interop").join(DRIVER))
        .arg(scenario)
        .arg(folder.join("../protocol/tests/golden/zio-raft-v1.json"));
    let members: BTreeMap<String, NodeId> = cluster
        .ids()
        .into_iter()
        .map(|id| (format!("node-{id}"), id))
        .collect();
    for (name, id) in &members {
        command.arg(format!("{name}={}", cluster.endpoint(*id)));
    }
    let mut driver = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut answers = driver.stdin.take().unwrap();
    let mut questions = BufReader::new(driver.stdout.take().unwrap()).lines();
    while let Some(question) = questions.next_line().await.unwrap() {
        let answer = answer(&mut cluster, &members, &question).await;
        let answer = answer.unwrap_or_else(|error| panic!("{scenario}: {question}: {error:#}"));
        answers
            .write_all(format!("{answer}\n").as_bytes())
            .await
            .unwrap();
    }
    let mut said = String::new();
    let mut complaints = driver.stderr.take().unwrap();
    complaints.read_to_string(&mut said).await.unwrap();
    let status = driver.wait().await.unwrap();
    assert!(status.success(), "{scenario}: {status}: {said}");
    cluster.equal_hash().await.unwrap();
}

async fn answer(
    cluster: &mut Cluster,
    members: &BTreeMap<String, NodeId>,
    question: &str,
) -> Result<String> {
    let id = |name: &str| members.get(name).copied().context("no such member");
    let words: Vec<&str> = question.split(' ').collect();
    Ok(match words[..] {
        ["leader"] => format!("node-{}", cluster.wait_for_leader().await?),
        ["follower"] => format!("node-{}", cluster.follower().await?),
        ["kill-leader"] => {
            let leader = cluster.wait_for_leader().await?;
            cluster.kill_node(leader)?;
            format!("node-{leader}")
        }
        ["restart", name] => {
            cluster.restart_node(id(name)?)?;
            cluster.wait_until_ready(id(name)?).await?;
            "restarted".to_owned()
        }
        ["metric", name, series] => cluster.metrics(id(name)?).await?.get(series).to_string(),
        ["no-session"] => {
            wait_for("no session is left", async || {
                (cluster.sessions().await.ok()? == 0).then_some(())
            })
            .await?;
            "none".to_owned()
        }
        _ => bail!("the test knows nothing of this"),
    })
}
