//! What a module would do if it were put in force now, found out on copies: nothing is proposed.
//!
//! First its migration, over the state as it is. Then the commands since the last fold once more, from
//! the state of that fold on: by the module in force, which must do exactly what it did, and by the new
//! one, whose answers are compared with those.

use std::sync::Arc;
use std::time::Duration;

use quorate_core::entry::Drops;
use quorate_core::library;
use quorate_core::limits::Limits;
use quorate_core::module::{Manifest, ModuleHash};
use quorate_core::query;
use quorate_core::records::{ActiveModule, MigrationDirection};
use tokio::sync::oneshot;

use super::activation::{Manner, Mode};
use super::rehearsal::{Bounds, Rehearsal, Subject};
use super::{Error, Library};
use crate::admin::{ModulePlan, PlannedReplay};
use crate::consensus::types::Payload;

/// Longest that the migration is tried, and what it may write meanwhile, in bytes: the copy is in
/// memory.
const MIGRATION_TIME_MAX: Duration = Duration::from_secs(20);
const MIGRATION_BYTES_MAX: u64 = 256 << 20;
/// Longest that commands are done once more.
const REPLAY_TIME_MAX: Duration = Duration::from_secs(10);
/// Stack of the thread: as that of apply.
const STACK_BYTES: usize = 16 << 20;

/// Where the plan is sent; closed once nobody waits for it.
pub(super) type Answer = oneshot::Sender<Result<ModulePlan, Error>>;

impl Library {
    /// Tries a module on copies of the state. One at a time. Cancel-safe: it is given up within a step
    /// of the migration, or an entry.
    ///
    /// # Errors
    /// As [`Library::activate`], for what would be refused before it is proposed, [`Error::Migrating`]
    /// while data is on its way to another module; [`Error::Busy`] if another plan is being made.
    pub async fn plan(
        &self,
        code: Vec<u8>,
        mode: Mode,
        argument: Vec<u8>,
    ) -> Result<ModulePlan, Error> {
        let turn = Arc::clone(&self.0.planning).try_lock_owned();
        let turn = turn.map_err(|_| Error::Busy)?;
        self.confirm_leader().await?;
        let limits = query::limits(&*self.0.state.view())?;
        let (code, manifest) = self.admit(code, &limits).await?;
        let hash = library::hash_of(&code);
        let current = self.in_force()?;
        let is_in_force = current.as_ref().is_some_and(|current| current.hash == hash);
        let manner = match is_in_force {
            true => Manner::Change,
            false => self.decide(mode, current.as_ref(), &manifest)?,
        };
        let mut plan = self.describe(hash, &code, &manifest, current.as_ref(), manner)?;
        if is_in_force {
            "none".clone_into(&mut plan.way);
            return Ok(plan);
        }
        let expected = current.as_ref().map(|current| current.hash);
        let subject = Subject {
            hash,
            code,
            operation: manner.operation(expected, hash, argument),
            current,
        };
        let (answer, answered) = oneshot::channel();
        let library = self.clone();
        let rehearsing = async move {
            // Nobody else begins as long as this thread runs.
            let _turn = turn;
            let rehearsed = library.rehearse(subject, limits, &mut plan, &answer).await;
            // Whoever asked may have given up.
            let _ = answer.send(rehearsed.map(|()| plan));
        };
        let driver = &self.0.driver;
        let started = driver.thread("quorate-plan", STACK_BYTES, rehearsing);
        let running = started.map_err(|error| {
            Error::Fault(quorate_core::state::Fault::new(format!(
                "no thread: {error}"
            )))
        })?;
        let plan = answered.await.unwrap_or(Err(Error::Busy));
        running.ended().await;
        plan
    }

    fn describe(
        &self,
        hash: ModuleHash,
        code: &[u8],
        manifest: &Manifest,
        current: Option<&ActiveModule>,
        manner: Manner,
    ) -> Result<ModulePlan, Error> {
        let view = self.0.state.view();
        let total = u32::try_from(library::chunks(code).len()).unwrap_or(u32::MAX);
        let missing = library::missing_chunks(&*view, hash, total)?;
        let way = match (manner, current) {
            (Manner::Reinstall(Drops::Data), _) => "reinstall",
            (Manner::Reinstall(Drops::Nothing), _) | (_, None) => "install",
            (_, Some(current)) => match MigrationDirection::between(&current.manifest, manifest) {
                Ok(Some(MigrationDirection::Up)) => "migrate",
                Ok(Some(MigrationDirection::Down)) => "migrate-down",
                _ => "unchanged",
            },
        };
        Ok(ModulePlan {
            hash: hash.to_string(),
            name: manifest.name.clone(),
            version: manifest.version.clone(),
            state_version: manifest.state_version,
            bytes: code.len() as u64,
            chunks: total,
            chunks_missing: u32::try_from(missing.len()).unwrap_or(u32::MAX),
            in_force: current.map(|current| current.hash.to_string()),
            in_force_version: current.map(|current| current.manifest.version.clone()),
            way: way.to_owned(),
            migration: None,
            replay: None,
        })
    }

    async fn rehearse(
        &self,
        subject: Subject,
        limits: Limits,
        plan: &mut ModulePlan,
        answer: &Answer,
    ) -> Result<(), Error> {
        let bounds = Bounds {
            time_max: MIGRATION_TIME_MAX,
            bytes_max: MIGRATION_BYTES_MAX,
            answer,
        };
        let rehearsal = Rehearsal::new(&self.0, &subject, &limits, bounds).await?;
        let applied = self.0.state.applied();
        let index = applied.map_or(0, |position| position.index);
        let migration = rehearsal.migrate(self.0.state.view(), index).await?;
        let is_success = migration.outcome == "success";
        plan.migration = Some(migration);
        if is_success && subject.current.is_some() {
            plan.replay = Some(self.replay(&rehearsal, &subject, answer).await?);
        }
        Ok(())
    }

    async fn replay(
        &self,
        rehearsal: &Rehearsal<'_>,
        subject: &Subject,
        answer: &Answer,
    ) -> Result<PlannedReplay, Error> {
        let (folded, position) = self.0.state.folded();
        let from = position.map_or(0, |position| position.index + 1);
        let end = self
            .0
            .state
            .applied()
            .map_or(0, |position| position.index + 1);
        let begun_at = subject.current.as_ref().map_or(0, |current| current.index);
        let mut replay = PlannedReplay {
            from,
            to: from.saturating_sub(1),
            ..PlannedReplay::default()
        };
        if begun_at >= from {
            replay.cut = Some(format!(
                "the module in force is newer than the fold: since entry {begun_at}"
            ));
            return Ok(replay);
        }
        if self
            .0
            .skips
            .newest(u64::MAX)
            .is_some_and(|skipped| skipped >= from)
        {
            replay.cut = Some("operations were skipped since the fold".to_owned());
            return Ok(replay);
        }
        let mut stages = match rehearsal.stages(folded).await? {
            Ok(stages) => stages,
            Err(why) => {
                replay.cut = Some(format!("on the state of the fold {why}"));
                return Ok(replay);
            }
        };
        let deadline = self.0.driver.now() + REPLAY_TIME_MAX;
        let hashes = self.0.recent.all();
        let mut next = from;
        'all: while next < end {
            let piece = self.0.log.read_piece(next..end).await;
            let piece =
                piece.map_err(|error| quorate_core::state::Fault::new(error.to_string()))?;
            if piece.is_empty() {
                replay.cut = Some(format!("the log was purged beyond entry {next} meanwhile"));
                break;
            }
            for entry in piece {
                if answer.is_closed() {
                    return Err(Error::Busy);
                }
                if self.0.driver.now() >= deadline {
                    replay.cut = Some(format!("{REPLAY_TIME_MAX:?} were over"));
                    break 'all;
                }
                next = entry.log_id.index + 1;
                if let Payload::Normal(bytes) = &entry.payload {
                    let index = entry.log_id.index;
                    let known = hashes.binary_search_by_key(&index, |(index, _)| *index);
                    let known = known
                        .ok()
                        .and_then(|at| hashes.get(at))
                        .map(|(_, hash)| *hash);
                    if !stages.apply(index, &bytes.0, known, &mut replay)? {
                        break 'all;
                    }
                }
                replay.to = entry.log_id.index;
            }
        }
        stages.settle(&mut replay);
        Ok(replay)
    }
}
