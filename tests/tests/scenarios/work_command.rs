//! `quorate work` as processes.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};

use quorate_client::Client;
use quorate_tests::{Cluster, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::client;
use crate::work_queue::{call, job, start, submit, totals};

const CAPABILITY: [&str; 2] = ["--capability", "data-processor=v1.0"];

/// A worker's process; ends with the test, whatever becomes of it.
struct Worker {
    child: Child,
}

impl Worker {
    /// Starts one that writes what it prints to `folder/NAME`.
    fn start(cluster: &Cluster, folder: &Path, name: &str, arguments: &[&str]) -> Self {
        let arguments = [&["work"], &CAPABILITY[..], arguments].concat();
        let output = |end| File::create(folder.join(format!("{name}.{end}"))).unwrap();
        let child = cluster
            .quorate_command(&arguments)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(output("out"))
            .stderr(output("err"))
            .spawn()
            .unwrap();
        Self { child }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    async fn ended(&mut self) -> ExitStatus {
        wait_for("the worker ends", async || self.child.try_wait().unwrap())
            .await
            .unwrap()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It has ended by itself where the test passed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn wait_until_done(submitter: &Client, jobs: u64) {
    wait_for("all jobs are done", async || {
        (totals(submitter).await["done"] == jobs).then_some(())
    })
    .await
    .unwrap();
}

async fn wait_for_files(folder: &Path, count: usize) -> Vec<String> {
    wait_for("commands have started", async || {
        let names = fs::read_dir(folder).unwrap();
        let names: Vec<String> = names
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        (names.len() >= count).then_some(names)
    })
    .await
    .unwrap()
}

/// Lines that a worker printed, as JSON.
fn printed(folder: &Path, name: &str) -> Vec<Value> {
    let text = fs::read_to_string(folder.join(format!("{name}.out"))).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Says that it has begun, waits to be let go, and answers in capitals. It ends by itself once the test is over.
const GATED: &str = "touch started/$QUORATE_JOB.$QUORATE_ATTEMPT; \
                     while [ -d started ] && [ ! -e go ]; do sleep 0.05; done; tr a-z A-Z";

#[tokio::test]
async fn nothing_is_lost_or_recorded_twice_when_a_worker_and_the_leader_are_killed() {
    const JOBS: u64 = 30;
    let mut cluster = start().await;
    let folder = TempDir::new().unwrap();
    let started = folder.path().join("started");
    fs::create_dir(&started).unwrap();
    let submitter = client(cluster.endpoints()).connect().await.unwrap();
    let worker = |n: usize, session_timeout| {
        let options = ["--exec", GATED, "--jobs", "2", "-o", "json"];
        let options = [&options[..], &["--session-timeout", session_timeout]].concat();
        Worker::start(&cluster, folder.path(), &format!("worker-{n}"), &options)
    };
    let mut workers = [worker(0, "3s"), worker(1, "10m"), worker(2, "10m")];
    for n in 1..=JOBS {
        submit(&submitter, &format!("payload {n}"), 600).await;
    }

    // Every hand is full, and nothing is done yet.
    wait_for_files(&started, 6).await;
    workers[0].signal(Signal::KILL);
    workers[0].ended().await;
    let leader = cluster.wait_for_leader().await.unwrap();
    cluster.kill_node(leader).unwrap();
    cluster.wait_for_new_leader(leader).await.unwrap();
    cluster.restart_node(leader).unwrap();
    File::create(folder.path().join("go")).unwrap();
    wait_until_done(&submitter, JOBS).await;

    let mut again = 0;
    for n in 1..=JOBS {
        let job = job(&submitter, &n.to_string()).await;
        assert_eq!(job["result"], format!("PAYLOAD {n}"));
        again += u64::from(job["attempt"] != 1);
    }
    // Only what the dead worker held was handed out again.
    assert_eq!(again, 2);
    for worker in &mut workers[1..] {
        worker.signal(Signal::TERM);
        assert_eq!(worker.ended().await.code(), Some(143));
    }
    let mut recorded: Vec<u64> = ["worker-1", "worker-2"]
        .iter()
        .flat_map(|name| printed(folder.path(), name))
        .map(|line| {
            assert_eq!(line["outcome"], "done", "{line}");
            line["job"].as_str().unwrap().parse().unwrap()
        })
        .collect();
    recorded.sort_unstable();
    assert_eq!(recorded, (1..=JOBS).collect::<Vec<_>>());
    assert_eq!(printed(folder.path(), "worker-0"), Vec::<Value>::new());
    cluster.equal_hash().await.unwrap();
}

#[tokio::test]
async fn a_worker_that_is_stopped_gives_its_job_back_at_once_and_uncharged() {
    let cluster = start().await;
    let folder = TempDir::new().unwrap();
    let started = folder.path().join("started");
    fs::create_dir(&started).unwrap();
    let submitter = client(cluster.endpoints()).connect().await.unwrap();
    let id = submit(&submitter, "a", 600).await;
    let options = ["--exec", GATED, "--session-timeout", "10m"];
    let mut worker = Worker::start(&cluster, folder.path(), "first", &options);
    assert_eq!(wait_for_files(&started, 1).await, ["1.1"]);
    worker.signal(Signal::INT);
    assert_eq!(worker.ended().await.code(), Some(130));
    let waiting = job(&submitter, &id).await;
    assert_eq!(
        (&waiting["state"], &waiting["attempts-left"]),
        (&json!("waiting"), &json!(10))
    );

    File::create(folder.path().join("go")).unwrap();
    let mut worker = Worker::start(&cluster, folder.path(), "second", &options);
    wait_until_done(&submitter, 1).await;
    assert_eq!(job(&submitter, &id).await["result"], "A");
    worker.signal(Signal::TERM);
    assert_eq!(worker.ended().await.code(), Some(143));
    let out = fs::read_to_string(folder.path().join("second.out")).unwrap();
    assert_eq!(out, "job=1 attempt=2 outcome=done\n");
}

/// A worker that hangs for longer than its session lasts loses its jobs, and goes on with another session.
#[tokio::test]
async fn a_worker_whose_session_is_lost_opens_another() {
    let cluster = start().await;
    let folder = TempDir::new().unwrap();
    let started = folder.path().join("started");
    fs::create_dir(&started).unwrap();
    let submitter = client(cluster.endpoints()).connect().await.unwrap();
    let id = submit(&submitter, "a", 600).await;
    let options = ["--exec", GATED, "--session-timeout", "2s"];
    let mut worker = Worker::start(&cluster, folder.path(), "w", &options);
    wait_for_files(&started, 1).await;
    worker.signal(Signal::STOP);
    wait_for("its session expires", async || {
        (job(&submitter, &id).await["state"] == "waiting").then_some(())
    })
    .await
    .unwrap();
    worker.signal(Signal::CONT);
    wait_for_files(&started, 2).await;
    File::create(folder.path().join("go")).unwrap();
    wait_until_done(&submitter, 1).await;
    worker.signal(Signal::TERM);
    assert_eq!(worker.ended().await.code(), Some(143));
    let errors = fs::read_to_string(folder.path().join("w.err")).unwrap();
    assert!(errors.contains("the session has ended"), "{errors}");
}

#[tokio::test]
async fn failures_of_the_command_are_recorded_and_tried_again() {
    let cluster = start().await;
    let folder = TempDir::new().unwrap();
    let submitter = client(cluster.endpoints()).connect().await.unwrap();
    let commands = [
        ("exit 3", "exit code 3"),
        ("kill -9 $$", "ended by signal 9"),
        (r"printf '\377'", "the output is not UTF-8"),
        ("yes", "the output is longer than 262144 bytes"),
        // A control character is six bytes in JSON: more than the module takes.
        (r"head -c 100000 /dev/zero", "the result was refused: "),
    ];
    for (command, expected) in commands {
        let submitted = json!({ "submit": {
            "capability": "data-processor", "version": "v1.0", "payload": "unread", "attempts": 1,
        } });
        let submitted = call(&submitter, submitted).await;
        let id = submitted["submitted"]["job"].as_str().unwrap();
        let mut worker = Worker::start(&cluster, folder.path(), "w", &["--exec", command]);
        let failed = wait_for("the job has failed", async || {
            let job = job(&submitter, id).await;
            (job["state"] == "failed").then_some(job)
        })
        .await
        .unwrap();
        let error = failed["error"].as_str().unwrap();
        assert!(error.starts_with(expected), "{command}: {error}");
        worker.signal(Signal::TERM);
        worker.ended().await;
    }
    // What fails once is tried again, after a pause.
    let id = submit(&submitter, "b", 60).await;
    let options = ["--exec", "[ $QUORATE_ATTEMPT = 2 ] && cat"];
    let _worker = Worker::start(&cluster, folder.path(), "w", &options);
    wait_until_done(&submitter, 1).await;
    let job = job(&submitter, &id).await;
    assert_eq!(
        (&job["result"], &job["error"]),
        (&json!("b"), &json!("exit code 1"))
    );
}

/// A job that takes longer than its lease stays where it is.
#[tokio::test]
async fn a_command_that_runs_longer_than_the_lease_keeps_its_job() {
    let cluster = start().await;
    let folder = TempDir::new().unwrap();
    fs::create_dir(folder.path().join("started")).unwrap();
    let submitter = client(cluster.endpoints()).connect().await.unwrap();
    let long = submit(&submitter, "a", 3).await;
    let options = ["--exec", GATED];
    let _worker = Worker::start(&cluster, folder.path(), "w", &options);
    wait_for_files(&folder.path().join("started"), 1).await;
    // A lease of a second that nobody keeps runs out several times meanwhile.
    let idle = client(cluster.endpoints())
        .capability("idle", "v1")
        .connect()
        .await
        .unwrap();
    let measure = json!({ "submit": {
        "capability": "idle", "version": "v1", "payload": "", "lease-seconds": 1, "attempts": 5,
    } });
    call(&submitter, measure).await;
    let mut requests = idle.requests().unwrap();
    for attempt in 1..=5 {
        let request = requests.next().await.unwrap();
        let payload: Value = serde_json::from_slice(&request.payload).unwrap();
        assert_eq!(payload["job"]["attempt"], attempt);
        if attempt < 5 {
            wait_for("the lease runs out", async || {
                (totals(&submitter).await["leases-expired"] == attempt).then_some(())
            })
            .await
            .unwrap();
        }
        // A word from it, so that it gets the job again.
        request.ack();
    }
    let held = job(&submitter, &long).await;
    assert_eq!(
        (&held["state"], &held["attempt"]),
        (&json!("in-hand"), &json!(1))
    );
    File::create(folder.path().join("go")).unwrap();
    wait_until_done(&submitter, 1).await;
}

#[tokio::test]
async fn without_a_command_jobs_are_printed() {
    let cluster = start().await;
    let folder = TempDir::new().unwrap();
    let submitter = client(cluster.endpoints()).connect().await.unwrap();
    submit(&submitter, "one line", 60).await;
    let mut worker = Worker::start(&cluster, folder.path(), "json", &["-o", "json"]);
    wait_until_done(&submitter, 1).await;
    worker.signal(Signal::TERM);
    assert_eq!(worker.ended().await.code(), Some(143));
    let lines = printed(folder.path(), "json");
    assert_eq!(lines[0]["payload"], "one line");
    assert_eq!(
        lines[1],
        json!({ "job": "1", "attempt": 1, "outcome": "done" })
    );
    let errors = fs::read_to_string(folder.path().join("json.err")).unwrap();
    assert_eq!(errors, "waiting for jobs - press Ctrl+C to stop\n");
}

/// A worker of another module says so instead of waiting for ever.
#[tokio::test]
async fn another_module_is_refused() {
    let cluster = Cluster::start(1).await.unwrap();
    let output = cluster.quorate(&["work", "--capability", "a=b"]).unwrap();
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(
        errors.contains("error[not-applied]: the module in force is not work-queue"),
        "{errors}"
    );
}

/// What docs/work-queue.md shows of the command line, as it shows it.
#[tokio::test]
async fn the_documented_session_runs() {
    let text = include_str!("../../../docs/work-queue.md");
    let cluster = start().await;
    let folder = TempDir::new().unwrap();
    let submitter = client(cluster.endpoints()).connect().await.unwrap();
    let work = text
        .lines()
        .find(|line| line.starts_with("    quorate work "))
        .unwrap();
    let _worker = Worker {
        child: cluster
            .quorate_command(&arguments(work))
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap(),
    };
    let mut lines = text.lines();
    let mut shown = 0;
    while let Some(line) = lines.next() {
        let Some(command) = line.strip_prefix("    $ ") else {
            continue;
        };
        if command.contains(" query ") {
            wait_until_done(&submitter, 1).await;
        }
        let output = cluster.quorate(&arguments(command)).unwrap();
        let output = String::from_utf8(output.stdout).unwrap();
        let expected = lines.next().unwrap().trim();
        let (begin, end) = expected.split_once(" ... ").unwrap_or((expected, ""));
        assert!(output.starts_with(begin), "{output}");
        assert!(output.trim().ends_with(end), "{output}");
        shown += 1;
    }
    assert_eq!(shown, 2);
}

/// The arguments of a command line whose last one is in quotation marks.
fn arguments(line: &str) -> Vec<&str> {
    let (plain, quoted) = line.trim().split_once('\'').unwrap();
    let mut arguments: Vec<&str> = plain.split_whitespace().skip(1).collect();
    arguments.push(quoted.trim_end_matches('\''));
    arguments
}
