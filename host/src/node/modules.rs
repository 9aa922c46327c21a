//! What the node tells operators of modules: from its state, and on the leader by its library.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use quorate_core::library;
use quorate_core::module::{Manifest, ModuleHash};
use quorate_core::query;
use quorate_core::records::{Activation, Manner, MigrationPhase};
use quorate_engine::LogLevel;

use super::assembly::Assembly;
use super::sessions::time;
use crate::admin::{
    KeptModule, ModuleActivation, ModuleInForce, ModuleLine, ModuleLines, ModuleMigration,
    ModuleOverview, ModulePlan, ModuleRefused, ModuleSource, ModuleUploaded,
};
use crate::drive::Driver;
use crate::modules::{
    Error, Line, Mode, ModuleLog, Outcome, Refused, Said, Selection, Wish, export_name,
};
use crate::store::state::StateStore;

/// The modules, as this node sees them now.
#[derive(Clone)]
pub(super) struct NodeModules {
    pub(super) node: u64,
    pub(super) driver: Driver,
    pub(super) state: StateStore,
    pub(super) said: ModuleLog,
    /// `None`: the node takes no part just now.
    pub(super) assembly: Option<Arc<Assembly>>,
}

impl NodeModules {
    fn assembly(&self) -> Result<&Assembly, Error> {
        self.assembly.as_deref().ok_or(Error::NotRunning)
    }

    fn look(&self) -> Result<ModuleOverview, Error> {
        // The index first: the view is then at least as new.
        let applied = self.state.applied();
        let view = self.state.view();
        let activations = library::activations(&*view)?;
        let modules = library::modules(&*view)?;
        let in_force = query::active_module(&*view)?;
        let migration = query::migration(&*view)?;
        drop(view);
        let manifests: BTreeMap<ModuleHash, &Manifest> = activations
            .iter()
            .map(|(_, activation)| (activation.hash, &activation.manifest))
            .collect();
        let kept = modules.iter().map(|(hash, record)| {
            let manifest = manifests.get(hash);
            KeptModule {
                hash: hash.to_string(),
                name: manifest.map(|manifest| manifest.name.clone()),
                version: manifest.map(|manifest| manifest.version.clone()),
                state_version: manifest.map(|manifest| manifest.state_version),
                bytes: record.bytes,
                chunks: record.present,
                chunks_total: record.total,
                readiness: match record.present == record.total {
                    true => self.readiness(*hash),
                    false => "incomplete".to_owned(),
                },
            }
        });
        let is_kept = |hash| modules.iter().any(|(kept, _)| *kept == hash);
        let history = activations.iter();
        Ok(ModuleOverview {
            applied_index: applied.map_or(0, |position| position.index),
            in_force: in_force.map(|active| active.hash.to_string()),
            previous: library::previous(&activations).map(|hash| hash.to_string()),
            migration: migration.map(|migration| ModuleMigration {
                hash: migration.next.hash.to_string(),
                step: migration.number,
                undoing: migration.phase == MigrationPhase::Undoing,
            }),
            history: history
                .map(|(index, activation)| described(*index, activation, is_kept(activation.hash)))
                .collect(),
            kept: kept.collect(),
            refused: self.said.all_refused().into_iter().map(refused).collect(),
        })
    }

    fn readiness(&self, hash: ModuleHash) -> String {
        let loader = self
            .assembly
            .as_ref()
            .map(|assembly| assembly.library().loader());
        match loader.is_some_and(|loader| loader.is_ready(hash)) {
            true => "ready".to_owned(),
            false => "loaded-when-needed".to_owned(),
        }
    }
}

impl ModuleSource for NodeModules {
    fn overview(&self) -> BoxFuture<'_, Result<ModuleOverview, Error>> {
        let source = self.clone();
        Box::pin(self.driver.blocking(move || source.look()))
    }

    fn upload(&self, code: Vec<u8>) -> BoxFuture<'_, Result<ModuleUploaded, Error>> {
        Box::pin(async move {
            let uploaded = self.assembly()?.library().upload(code).await?;
            Ok(ModuleUploaded {
                hash: uploaded.hash.to_string(),
                name: uploaded.manifest.name,
                version: uploaded.manifest.version,
                state_version: uploaded.manifest.state_version,
                chunks: uploaded.chunks,
                stored: uploaded.stored,
            })
        })
    }

    fn activate(&self, wish: Wish) -> BoxFuture<'_, Result<ModuleInForce, Error>> {
        Box::pin(async move {
            let in_force = self.assembly()?.library().activate(&wish).await?;
            Ok(ModuleInForce {
                hash: in_force.hash.to_string(),
                index: in_force.index,
                outcome: match in_force.outcome {
                    Outcome::Activated => "activated",
                    Outcome::AlreadyInForce => "already-in-force",
                    Outcome::MigrationGivenUp => "migration-given-up",
                }
                .to_owned(),
            })
        })
    }

    fn plan(
        &self,
        code: Vec<u8>,
        mode: Mode,
        argument: Vec<u8>,
    ) -> BoxFuture<'_, Result<ModulePlan, Error>> {
        Box::pin(async move {
            let assembly = self.assembly()?;
            assembly.library().plan(code, mode, argument).await
        })
    }

    fn said(
        &self,
        mut selection: Selection,
        wait: Duration,
    ) -> BoxFuture<'_, Result<ModuleLines, Error>> {
        Box::pin(async move {
            let mut newest = self.said.newest();
            // Numbers begin again with the process: whoever followed the one before sees all of this.
            if selection.after > *newest.borrow() {
                selection.after = 0;
            }
            let late = self.driver.sleep(wait);
            tokio::pin!(late);
            loop {
                let seen = *newest.borrow_and_update();
                let lines = self.said.select(&selection);
                let last = lines.last().map_or(0, |last| last.number);
                let next = match lines.len() == selection.limit {
                    true => last,
                    false => seen.max(last).max(selection.after),
                };
                let is_late = tokio::select! {
                    biased;
                    () = async {}, if !lines.is_empty() => true,
                    () = &mut late => true,
                    changed = newest.changed() => changed.is_err(),
                };
                if is_late {
                    return Ok(ModuleLines {
                        node: self.node,
                        next,
                        lines: lines.into_iter().map(told).collect(),
                    });
                }
            }
        })
    }

    fn module_bytes_max(&self) -> u64 {
        let limits = query::limits(&*self.state.view());
        // Who cannot read its state takes no module either, and says so there.
        limits.unwrap_or_default().module.module_bytes_max
    }
}

fn described(index: u64, activation: &Activation, kept: bool) -> ModuleActivation {
    ModuleActivation {
        index,
        time: time(activation.time_us),
        hash: activation.hash.to_string(),
        name: activation.manifest.name.clone(),
        version: activation.manifest.version.clone(),
        state_version: activation.manifest.state_version,
        manner: match activation.manner {
            Manner::Install => "install",
            Manner::Change => "change",
            Manner::Reinstall => "reinstall",
        }
        .to_owned(),
        replaced: activation.replaced.map(|hash| hash.to_string()),
        kept,
    }
}

fn refused(refused: Refused) -> ModuleRefused {
    ModuleRefused {
        index: refused.index,
        hash: refused.module.to_string(),
        code: refused.code.to_owned(),
        message: refused.message,
        lines: refused.lines.into_iter().map(told).collect(),
    }
}

fn told(line: Line) -> ModuleLine {
    let common = ModuleLine {
        number: line.number,
        time: time(line.time_us),
        module: line.module.to_string(),
        entry: line
            .place
            .map(|place| format!("{}:{}", place.index, place.position)),
        ..ModuleLine::default()
    };
    match line.said {
        Said::Logged { level, text } => ModuleLine {
            kind: "log".to_owned(),
            level: Some(level_name(level).to_owned()),
            text,
            ..common
        },
        Said::Dropped { lines } => ModuleLine {
            kind: "dropped".to_owned(),
            text: lines.to_string(),
            ..common
        },
        Said::Panicked {
            message,
            file,
            line,
        } => ModuleLine {
            kind: "panic".to_owned(),
            text: message,
            file: Some(file),
            line: Some(line),
            ..common
        },
        Said::Trapped {
            trap,
            export,
            backtrace,
            fuel,
        } => ModuleLine {
            kind: "trap".to_owned(),
            text: trap.slug().to_owned(),
            export: Some(export_name(export).to_owned()),
            backtrace,
            fuel: fuel.map(|fuel| fuel.used),
            fuel_max: fuel.map(|fuel| fuel.max),
            ..common
        },
    }
}

fn level_name(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    }
}
