//! `quorate module deploy`: a file into the cluster's log, and in force once every node is ready.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use quorate_core::library::{chunks, hash_of};
use quorate_core::module::{Manifest, ModuleLimits};
use quorate_engine::{Engine, MEMORY_BYTES_CEILING};
use quorate_host::admin::{
    ErrorBody, ModuleInForce, ModuleOverview, ModuleUploaded, ModuleWish, Status, hex,
};
use quorate_host::modules::Mode;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::module_plan;
use crate::args::module::{Deploy, Readiness};
use crate::args::{Format, Options};
use crate::confirm::confirm;
use crate::failure::{Failure, Slug};
use crate::http;
use crate::leader::{Leader, Next, Request, Unanswered, failure_of};
use crate::output::{Exit, print, print_json};
use crate::payload::handed;
use crate::progress::Progress;
use crate::session::find;
use crate::trial;

/// Longest file that is read: far above what any cluster takes.
const FILE_BYTES_MAX: u64 = 256 << 20;
/// How long one request waits for nodes to get ready; then it is said who is waited for.
const ROUND: Duration = Duration::from_secs(1);
/// Between looks at how far an upload is, or a node.
const PAUSE: Duration = Duration::from_millis(200);

/// A look at the modules, and what only stores one.
pub(super) const LOOK: Request = Request {
    refused,
    unanswered: Unanswered::Again,
};
/// Putting one in force: it says what is in force before it, so a second time finds itself done.
const ACTIVATE: Request = Request {
    refused,
    unanswered: Unanswered::Repeat(
        "`quorate module list` tells; to ask for the same again does no harm",
    ),
};

pub(crate) async fn run(arguments: &Deploy, options: &Options) -> Result<Exit, Box<Failure>> {
    let argument = handed(arguments.argument.as_deref())?;
    let (code, manifest) = checked(&arguments.file)?;
    let hash = hash_of(&code).to_string();
    let deadline = Instant::now() + options.timeout + arguments.readiness.wait;
    let mut leader = Leader::new(options, deadline);
    let mode = Mode::from(arguments.mode);
    if arguments.plan {
        return module_plan::run(&mut leader, &code, mode, &argument, options).await;
    }
    let before = look(&mut leader).await?;
    let is_in_force = before.in_force.as_ref() == Some(&hash);
    if mode == Mode::Reinstall && !is_in_force {
        let current = before.history.last();
        let current = current.map_or("the module in force", |newest| newest.name.as_str());
        confirm(
            &format!("reinstalling drops the data of {current}"),
            options,
        )?;
    }
    let progress = Progress::new(options);
    let uploaded = upload(&mut leader, &code, &hash, &progress).await?;
    let wish = Wish {
        hash,
        mode,
        expected: before.in_force,
        argument: &argument,
        readiness: &arguments.readiness,
    };
    let in_force = wish.activate(&mut leader, &progress).await?;
    let module = (&*manifest.name, &*manifest.version, manifest.state_version);
    let mut outcome = Outcome::of(module, &in_force);
    outcome.chunks_sent = Some(uploaded.stored);
    outcome.everywhere(options, deadline, &progress).await?;
    outcome.tell(options)
}

fn refused(error: ErrorBody) -> Next {
    match error.code.as_str() {
        "busy" | "not-running" => Next::Look(failure_of(error, Exit::REFUSED)),
        "module-rejected" => Next::Fail(failure_of(error, Exit::MODULE_REJECTED)),
        _ => Next::Fail(failure_of(error, Exit::REFUSED)),
    }
}

/// The file's bytes, by the rules of admission; what depends on the cluster's limits is the leader's
/// to judge.
fn checked(file: &Path) -> Result<(Bytes, Manifest), Box<Failure>> {
    let code = read(file).map_err(|error| {
        let name = file.display();
        Failure::input(format!("cannot read {name}: {error}"))
    })?;
    let engine = Engine::new(quorate_engine::Config::default())
        .map_err(|fault| Failure::host(format!("cannot check the module: {fault}")))?;
    let limits = ModuleLimits {
        module_bytes_max: u64::MAX,
        memory_bytes_max: MEMORY_BYTES_CEILING,
        ..ModuleLimits::default()
    };
    let manifest = engine.check(&code, &limits).map_err(|why| {
        let text = format!("{} is refused: {}", file.display(), why.detail);
        trial::rejected(why.code, text)
    })?;
    Ok((code.into(), manifest))
}

fn read(file: &Path) -> std::io::Result<Vec<u8>> {
    // Opening a pipe would wait for whoever writes to it.
    let data = fs::metadata(file)?;
    if !data.is_file() || data.len() > FILE_BYTES_MAX {
        return Err(std::io::Error::other("it is not a file, or far too long"));
    }
    let mut code = Vec::new();
    fs::File::open(file)?
        .take(FILE_BYTES_MAX)
        .read_to_end(&mut code)?;
    Ok(code)
}

/// What the leader sees.
pub(super) async fn look(leader: &mut Leader<'_>) -> Result<ModuleOverview, Box<Failure>> {
    leader
        .ask(&LOOK, async |admin, deadline| {
            http::get(&admin, "/v1/modules", deadline).await
        })
        .await
}

/// Sends the module; what is there already is not stored again.
async fn upload(
    leader: &mut Leader<'_>,
    code: &Bytes,
    hash: &str,
    progress: &Progress,
) -> Result<ModuleUploaded, Box<Failure>> {
    let total = chunks(code).len() as u64;
    progress.begin(total, "sending the module");
    let sent = leader
        .ask(&LOOK, async |admin, deadline| {
            let sending = http::post_bytes(&admin, "/v1/modules", code.clone(), deadline);
            let watching = watch_upload(&admin, hash, progress, deadline);
            tokio::select! {
                sent = sending => sent,
                () = watching => unreachable!("it goes on until it is dropped"),
            }
        })
        .await;
    progress.end();
    sent
}

/// Shows how many chunks are there, for as long as it is polled.
async fn watch_upload(admin: &str, hash: &str, progress: &Progress, deadline: Instant) {
    if !progress.is_shown() {
        return std::future::pending().await;
    }
    loop {
        sleep(PAUSE).await;
        let overview = http::get::<ModuleOverview>(admin, "/v1/modules", deadline).await;
        let kept = overview.map_or_else(|_| Vec::new(), |overview| overview.kept);
        if let Some(kept) = kept.iter().find(|kept| kept.hash == hash) {
            progress.reached(u64::from(kept.chunks));
        }
    }
}

/// What is to be put in force.
pub(super) struct Wish<'a> {
    pub(super) hash: String,
    pub(super) mode: Mode,
    /// What was in force when this began: a repetition never undoes what somebody else did meanwhile.
    pub(super) expected: Option<String>,
    /// What its own code is handed.
    pub(super) argument: &'a [u8],
    pub(super) readiness: &'a Readiness,
}

impl Wish<'_> {
    /// Waits for the nodes and puts it in force.
    pub(super) async fn activate(
        &self,
        leader: &mut Leader<'_>,
        progress: &Progress,
    ) -> Result<ModuleInForce, Box<Failure>> {
        let path = format!("/v1/modules/{}/activate", self.hash);
        let until = Instant::now() + self.readiness.wait;
        progress.begin(0, "waiting for the nodes to compile it");
        let activated = loop {
            let left = until.saturating_duration_since(Instant::now());
            let wish = ModuleWish {
                mode: self.mode,
                expected: self.expected.clone(),
                force: self.readiness.force,
                wait_on: left > ROUND,
                wait_ms: u64::try_from(left.min(ROUND).as_millis()).unwrap_or(u64::MAX),
                argument: Some(hex(self.argument)),
            };
            let asked = leader.ask(&ACTIVATE, async |admin, deadline| {
                http::post(&admin, &path, &wish, deadline).await
            });
            match asked.await {
                Err(failure)
                    if failure.slug() == Slug::ModuleNotReady && Instant::now() < until =>
                {
                    progress.say(&failure.message().replace('\n', " "));
                }
                activated => break activated,
            }
        };
        progress.end();
        activated
    }
}

/// What came of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Outcome {
    outcome: String,
    name: String,
    version: String,
    state_version: u32,
    hash: String,
    index: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    chunks_sent: Option<u32>,
    /// Nodes that have it in force.
    nodes: Vec<String>,
}

impl Outcome {
    /// Of a module of this name, version and state version.
    pub(super) fn of(
        (name, version, state_version): (&str, &str, u32),
        in_force: &ModuleInForce,
    ) -> Self {
        Self {
            outcome: in_force.outcome.clone(),
            name: name.to_owned(),
            version: version.to_owned(),
            state_version,
            hash: in_force.hash.clone(),
            index: in_force.index.to_string(),
            chunks_sent: None,
            nodes: Vec::new(),
        }
    }

    /// Waits until every node has applied it.
    pub(super) async fn everywhere(
        &mut self,
        options: &Options,
        deadline: Instant,
        progress: &Progress,
    ) -> Result<(), Box<Failure>> {
        let known = find(options, deadline).await?;
        let index: u64 = self.index.parse().unwrap_or(u64::MAX);
        let members = &known.topology.members;
        progress.begin(members.len() as u64, "waiting for the nodes to apply it");
        loop {
            let mut behind = Vec::new();
            self.nodes.clear();
            for member in members {
                let turn = http::turn(deadline, members.len());
                let status = http::get::<Status>(&member.admin, "/v1/status", turn).await;
                match status {
                    Ok(status) if status.applied_index >= index => {
                        self.nodes.push(member.node.0.to_string());
                    }
                    Ok(status) => behind.push(format!(
                        "node {} has applied entry {}",
                        member.node.0, status.applied_index
                    )),
                    Err(error) => behind.push(format!("node {}: {error}", member.node.0)),
                }
            }
            progress.reached(self.nodes.len() as u64);
            if behind.is_empty() {
                break;
            }
            if Instant::now() + PAUSE >= deadline {
                let text = format!(
                    "{} {} is in force since entry {index}, and not yet everywhere: {}",
                    self.name,
                    self.version,
                    behind.join("; ")
                );
                let failure = Failure::new(Exit::UNHEALTHY, Slug::ModuleNotEverywhere, text);
                return Err(
                    failure.hint("they apply it once they come to it; nothing is to be repeated")
                );
            }
            sleep(PAUSE).await;
        }
        progress.end();
        Ok(())
    }

    pub(super) fn tell(&self, options: &Options) -> Result<Exit, Box<Failure>> {
        match options.output {
            Format::Json => print_json(self)?,
            Format::Text => {
                let Self {
                    name,
                    version,
                    state_version,
                    index,
                    ..
                } = self;
                let hash = short(&self.hash);
                let module = format!("{name} {version} ({hash}, state version {state_version})");
                print(&match &*self.outcome {
                    "already-in-force" => {
                        format!("{module} is already in force, since entry {index}")
                    }
                    "migration-given-up" => {
                        format!("the migration was given up; {module} stays in force")
                    }
                    _ => {
                        let nodes = self.nodes.len();
                        format!("{module} is in force since entry {index}, on {nodes} nodes")
                    }
                })?;
            }
        }
        Ok(Exit::OK)
    }
}

/// The beginning of a hash, by which people know it.
pub(super) fn short(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(code: &str, leader: Option<&str>) -> ErrorBody {
        ErrorBody {
            code: code.to_owned(),
            message: code.to_owned(),
            hint: None,
            leader: leader.map(str::to_owned),
        }
    }

    #[test]
    fn who_does_not_lead_is_left_for_who_does() {
        let named = ACTIVATE.refusal(answered("not-leader", Some("n2:3")));
        assert!(matches!(named, Next::Ask(admin) if admin == "n2:3"));
        for code in ["not-leader", "busy", "not-running"] {
            assert!(matches!(
                ACTIVATE.refusal(answered(code, None)),
                Next::Look(_)
            ));
        }
    }

    #[test]
    fn what_is_decided_is_told_under_its_own_slug() {
        for (code, exit, slug) in [
            ("module-name", Exit::REFUSED, Slug::ModuleName),
            (
                "module-rejected",
                Exit::MODULE_REJECTED,
                Slug::ModuleRejected,
            ),
            ("of-a-later-release", Exit::REFUSED, Slug::NotApplied),
        ] {
            let Next::Fail(failure) = ACTIVATE.refusal(answered(code, None)) else {
                panic!("{code} is tried again");
            };
            assert_eq!((failure.exit(), failure.slug()), (exit, slug));
        }
    }

    #[test]
    fn what_may_have_been_done_is_asked_for_again_and_not_called_undone() {
        let silent = || http::Error::NoAnswer("reset".to_owned());
        let slug = |next| match next {
            Next::Look(failure) => Some(failure.slug()),
            Next::Ask(_) | Next::Fail(_) => None,
        };
        assert_eq!(
            slug(ACTIVATE.after("n1:3", silent())),
            Some(Slug::OutcomeUnknown)
        );
        assert_eq!(slug(LOOK.after("n1:3", silent())), Some(Slug::Unreachable));
        for code in ["outcome-unknown", "timeout"] {
            let next = ACTIVATE.refusal(answered(code, None));
            assert_eq!(slug(next), Some(Slug::OutcomeUnknown));
        }
        let absent = http::Error::NotSent("refused".to_owned());
        assert_eq!(
            slug(ACTIVATE.after("n1:3", absent)),
            Some(Slug::Unreachable)
        );
    }
}
