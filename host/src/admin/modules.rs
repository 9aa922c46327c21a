//! What the admin listener tells of modules, and how one is put in force.

use futures::future::BoxFuture;
use quorate_core::module::ModuleHash;
use serde::{Deserialize, Serialize};

use super::api::text;
use crate::modules::{Error, Mode, Selection, Wish};

/// Longest argument of a migration or an init, in bytes.
pub const ARGUMENT_BYTES_MAX: usize = 64 << 10;

/// What the admin listener asks about modules: the node.
pub trait ModuleSource: Send + Sync {
    /// What is kept, in force, and was.
    fn overview(&self) -> BoxFuture<'_, Result<ModuleOverview, Error>>;

    /// Takes a module's bytes, checks them, and brings them to every node.
    fn upload(&self, code: Vec<u8>) -> BoxFuture<'_, Result<ModuleUploaded, Error>>;

    /// Puts a module in force that is kept.
    fn activate(&self, wish: Wish) -> BoxFuture<'_, Result<ModuleInForce, Error>>;

    /// Tries a module on copies of the state; changes nothing.
    fn plan(
        &self,
        code: Vec<u8>,
        mode: Mode,
        argument: Vec<u8>,
    ) -> BoxFuture<'_, Result<ModulePlan, Error>>;

    /// What modules said on this node; waits for something to be selected, at most so long.
    fn said(
        &self,
        selection: Selection,
        wait: std::time::Duration,
    ) -> BoxFuture<'_, Result<ModuleLines, Error>>;

    /// The longest module that is taken, in bytes.
    fn module_bytes_max(&self) -> u64;
}

/// The modules of the cluster, as a node sees them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ModuleOverview {
    /// The newest entry that the node had applied, or an older one.
    #[serde(with = "text")]
    pub applied_index: u64,
    /// Hash of the module in force; null before the first.
    pub in_force: Option<String>,
    /// Hash of the other module that was in force before: what a rollback goes back to.
    pub previous: Option<String>,
    /// A migration in steps that is under way: until it has ended, commands wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration: Option<ModuleMigration>,
    /// What was put in force, oldest first. The oldest are forgotten.
    pub history: Vec<ModuleActivation>,
    /// What is kept, in order of hash.
    pub kept: Vec<KeptModule>,
    /// What was not put in force, as far as this node saw it since its process began, oldest first.
    pub refused: Vec<ModuleRefused>,
}

/// A migration in steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ModuleMigration {
    /// SHA-256 of the module that is in force once it has succeeded.
    pub hash: String,
    /// The step that is next, those that take it back included.
    pub step: u32,
    /// Whether it failed, or was given up, and what it wrote is being taken back.
    pub undoing: bool,
}

/// A module that was put in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ModuleActivation {
    /// Index of the entry.
    #[serde(with = "text")]
    pub index: u64,
    /// Replicated time, RFC 3339.
    pub time: String,
    /// SHA-256 of the module.
    pub hash: String,
    /// From its manifest.
    pub name: String,
    /// From its manifest.
    pub version: String,
    /// From its manifest.
    pub state_version: u32,
    /// `install`, `change` or `reinstall`.
    pub manner: String,
    /// What was in force before.
    pub replaced: Option<String>,
    /// Whether its code is still kept, so that it can be put in force again.
    pub kept: bool,
}

/// A module that is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct KeptModule {
    /// SHA-256 of the module.
    pub hash: String,
    /// From its manifest; absent for one that was never in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// From its manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// From its manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_version: Option<u32>,
    /// Bytes that are here.
    pub bytes: u64,
    /// Chunks that are here.
    pub chunks: u32,
    /// Chunks that it has.
    pub chunks_total: u32,
    /// On this node: `ready`, `loaded-when-needed`, `incomplete`.
    pub readiness: String,
}

/// A module that was not put in force. The state is what it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ModuleRefused {
    /// Index of the entry.
    #[serde(with = "text")]
    pub index: u64,
    /// SHA-256 of the module.
    pub hash: String,
    /// A stable slug.
    pub code: String,
    /// Why.
    pub message: String,
    /// What this node saw of it: panics and traps.
    pub lines: Vec<ModuleLine>,
}

/// A module that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ModuleUploaded {
    /// SHA-256 of the module.
    pub hash: String,
    /// From its manifest.
    pub name: String,
    /// From its manifest.
    pub version: String,
    /// From its manifest.
    pub state_version: u32,
    /// Its chunks.
    pub chunks: u32,
    /// How many of them were not there before.
    pub stored: u32,
}

/// What is to be put in force, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ModuleWish {
    /// `auto` if absent.
    #[serde(default)]
    pub mode: Mode,
    /// The module in force when it was decided: with another one nothing is done. Absent: whatever is
    /// in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// Whether a majority of ready nodes suffices.
    #[serde(default)]
    pub force: bool,
    /// With `force`: whether nodes that still compile it in the end are to be waited for by another
    /// request, instead of going on without them.
    #[serde(default)]
    pub wait_on: bool,
    /// How long nodes may take to get ready; at most 30 s.
    #[serde(default)]
    pub wait_ms: u64,
    /// For `quorate_init` or `quorate_migrate`, hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub argument: Option<String>,
}

/// A module that is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ModuleInForce {
    /// SHA-256 of the module.
    pub hash: String,
    /// Index of the entry that put it in force.
    #[serde(with = "text")]
    pub index: u64,
    /// `activated`, or `already-in-force`.
    pub outcome: String,
}

/// What a module would do if it were put in force now.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ModulePlan {
    /// SHA-256 of the module.
    pub hash: String,
    /// From its manifest.
    pub name: String,
    /// From its manifest.
    pub version: String,
    /// From its manifest.
    pub state_version: u32,
    /// Its length.
    pub bytes: u64,
    /// Its chunks.
    pub chunks: u32,
    /// Those that are not in the log yet.
    pub chunks_missing: u32,
    /// Hash of the module in force.
    pub in_force: Option<String>,
    /// Its version.
    pub in_force_version: Option<String>,
    /// `none` (it is in force already), `install`, `unchanged` (both have the state alike), `migrate`,
    /// `migrate-down` or `reinstall`.
    pub way: String,
    /// What happened on a copy of the state.
    pub migration: Option<PlannedMigration>,
    /// The commands since the last fold, once more.
    pub replay: Option<PlannedReplay>,
}

/// A migration (or `quorate_init`) on a copy of the state.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PlannedMigration {
    /// The newest entry of that state.
    #[serde(with = "text")]
    pub as_of: u64,
    /// `success`, or the slug of the reason why not.
    pub outcome: String,
    /// Why not, and where in the module.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// How long it took here.
    pub milliseconds: f64,
    /// Fuel that it used.
    #[serde(with = "text")]
    pub fuel: u64,
    /// Fuel that it may use.
    #[serde(with = "text")]
    pub fuel_max: u64,
    /// Of the module's keys, those that it looked up or scanned.
    #[serde(with = "text")]
    pub keys_read: u64,
    /// Those that it set.
    #[serde(with = "text")]
    pub keys_written: u64,
    /// Those that it deleted.
    #[serde(with = "text")]
    pub keys_deleted: u64,
    /// Keys of the module before; null: they were too many to count.
    #[serde(with = "text::option")]
    pub keys_before: Option<u64>,
    /// Bytes of keys and values before.
    #[serde(with = "text::option")]
    pub bytes_before: Option<u64>,
    /// Keys of the module after.
    #[serde(with = "text::option")]
    pub keys_after: Option<u64>,
    /// Bytes of keys and values after.
    #[serde(with = "text::option")]
    pub bytes_after: Option<u64>,
}

/// The commands since the last fold, by the module in force and by the new one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PlannedReplay {
    /// The first entry after the fold.
    #[serde(with = "text")]
    pub from: u64,
    /// The last entry that was done again; before `from` if none was.
    #[serde(with = "text")]
    pub to: u64,
    /// Entries of operations among them.
    pub entries: u64,
    /// Commands in those.
    pub commands: u64,
    /// Entries after which the hash of the copy was compared with the state's.
    pub compared_hashes: u64,
    /// The entry after which it differed: this node, or the module in force, is not deterministic.
    #[serde(with = "text::option")]
    pub unfaithful: Option<u64>,
    /// Whether every command since the fold was done again, as it was done.
    pub complete: bool,
    /// Why not all of them were, if not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<String>,
    /// Results that the new module would have changed.
    pub differing: u64,
    /// The first of them.
    pub differences: Vec<Difference>,
    /// Fuel that they used.
    #[serde(with = "text")]
    pub fuel_was: u64,
    /// Fuel that they would have used.
    #[serde(with = "text")]
    pub fuel_would: u64,
    /// Traps.
    pub traps_was: u64,
    /// Traps that there would have been.
    pub traps_would: u64,
}

/// A result that would have been another.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Difference {
    /// The entry.
    #[serde(with = "text")]
    pub index: u64,
    /// The operation's place in it.
    pub position: u32,
    /// What was answered: as the module shows it, else in hexadecimal.
    pub was: String,
    /// What would have been answered.
    pub would: String,
}

/// What modules said on one node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ModuleLines {
    /// Which node.
    #[serde(with = "text")]
    pub node: u64,
    /// What `after` takes to go on from here.
    #[serde(with = "text")]
    pub next: u64,
    /// Oldest first.
    pub lines: Vec<ModuleLine>,
}

/// Something that a module said or did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ModuleLine {
    /// Its number on this node.
    #[serde(with = "text")]
    pub number: u64,
    /// The node's clock, RFC 3339.
    pub time: String,
    /// SHA-256 of the module.
    pub module: String,
    /// Which operation of the log, as `INDEX:POSITION`; absent outside of one, as in a query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<String>,
    /// `log`, `dropped`, `panic` or `trap`.
    pub kind: String,
    /// Of `log`: `error`, `warn`, `info`, `debug` or `trace`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// What was said; of `trap` its slug, of `dropped` how many lines.
    pub text: String,
    /// Of `panic`: where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Of `panic`: the line in that file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Of `trap`: the export.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export: Option<String>,
    /// Of `trap`: the module's functions, innermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backtrace: Vec<String>,
    /// Of `trap`: what the call used of its fuel; absent for a query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fuel: Option<u64>,
    /// Likewise: what it might use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fuel_max: Option<u64>,
}

/// A module's hash from 64 hexadecimal digits.
pub fn module_hash(text: &str) -> Option<ModuleHash> {
    let bytes = super::unhex(text)?;
    Some(ModuleHash(bytes.try_into().ok()?))
}
