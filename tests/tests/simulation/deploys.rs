//! Modules that are put in force while everything else happens: versions of the one module, which all
//! answer alike, but for the version that each entry of the state was last migrated to.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quorate_core::library;
use quorate_core::module::ModuleHash;
use quorate_core::query;
use quorate_core::state::Read;
use quorate_engine::{CodeCache, CodeKey};
use quorate_host::modules::{Error, InForce, Library, Mode, Outcome, Quorum, Wish};
use serde_json::{Value, json};

use crate::tally::{with_manifest, with_version};
use crate::trace::{Party, Trace};

/// The module of every simulation.
pub const PROBE: &[u8] = include_bytes!("../../../modules/prebuilt/probe.wasm");
/// Versions beside the first: so few that some are put in force again. All but the first of them have a state of
/// their own, and the migration to the last one fails.
pub const VERSIONS: u64 = 4;
/// What a migration that must fail is handed.
const FAILS: &[u8] = b"fails";
/// Long enough for nodes that are well.
const WAIT: Duration = Duration::from_secs(3);

/// What was put in force, as whoever asked for it was told.
#[derive(Debug, Clone, Default)]
pub struct Deploys(Arc<Mutex<BTreeMap<u64, ModuleHash>>>);

impl Deploys {
    /// Deploys a version by way of node `id`, and notes what that came to.
    pub async fn run(&self, library: &Library, id: u64, version: u64, trace: &Trace) {
        let name = Party::Node(id);
        trace.event(name, format_args!("deploys version {version}"));
        match deploy(library, version).await {
            Ok(in_force) => {
                let (index, outcome) = (in_force.index, in_force.outcome);
                trace.event(
                    name,
                    format_args!("{outcome:?}: version {version} at {index}"),
                );
                if outcome == Outcome::Activated {
                    trace.count("module put in force");
                    trace.count(format!("version {version} put in force"));
                    self.0.lock().unwrap().insert(index, in_force.hash);
                }
            }
            Err(error) => {
                trace.event(name, format_args!("does not deploy: {}", error.code()));
                trace.count(format!("deploy: {}", error.code()));
            }
        }
    }

    /// What was acknowledged is in the history of a node that has applied everything, and the data is of
    /// the state version of the module in force: `layout`, as that module tells it.
    pub fn check(&self, id: u64, view: &dyn Read, layout: u64, trace: &Trace) {
        let active = query::active_module(view).expect("the state can be read");
        let state_version = active.map_or(0, |active| active.manifest.state_version);
        // What was never migrated is of the first version.
        if u64::from(state_version) != layout.max(1) {
            let name = Party::Node(id);
            trace.violation(format_args!(
                "modules: {name} has one of state version {state_version} in force over data of {layout}"
            ));
        }
        let known = library::activations(view).expect("the state can be read");
        for (index, hash) in &*self.0.lock().unwrap() {
            let found = known.iter().find(|(known, _)| known == index);
            if found.map(|(_, activation)| activation.hash) != Some(*hash) {
                let name = Party::Node(id);
                trace.violation(format_args!(
                    "modules: {hash} was put in force at {index}, and {name} does not know it"
                ));
            }
        }
    }
}

async fn deploy(library: &Library, version: u64) -> Result<InForce, Error> {
    let hash = library.upload(module(version)).await?.hash;
    let quorum = match version % 2 {
        0 => Quorum::All,
        _ => Quorum::Majority,
    };
    let wish = Wish {
        hash,
        mode: Mode::Upgrade,
        expected: None,
        quorum,
        wait: WAIT,
        argument: match version + 1 {
            VERSIONS => FAILS.to_vec(),
            _ => Vec::new(),
        },
    };
    library.activate(&wish).await
}

/// From each version there is a way to every later one, and to the first.
fn module(version: u64) -> Vec<u8> {
    let earlier: Vec<u64> = (1..=version).collect();
    let down: &[u64] = if version == 0 { &[] } else { &[1] };
    let code = with_version(PROBE, &format!("9.0.{version}"));
    with_manifest(&code, |manifest| {
        let mut manifest: Value = serde_json::from_str(manifest).expect("a manifest is JSON");
        manifest["state-version"] = json!(version + 1);
        manifest["migrates-from"] = json!(earlier);
        manifest["migrates-down-to"] = json!(down);
        manifest.to_string()
    })
}

/// Compiled code, kept for all nodes and all runs: the same module is compiled once.
#[derive(Debug, Clone, Default)]
pub struct Compiled(Arc<Mutex<BTreeMap<CodeKey, Vec<u8>>>>);

impl Compiled {
    fn path(key: CodeKey) -> PathBuf {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("simulated-code");
        folder.join(key.to_string())
    }
}

impl CodeCache for Compiled {
    fn get(&self, key: CodeKey) -> io::Result<Option<Vec<u8>>> {
        let mut kept = self.0.lock().unwrap();
        if let Some(code) = kept.get(&key) {
            return Ok(Some(code.clone()));
        }
        let Ok(code) = fs::read(Self::path(key)) else {
            return Ok(None);
        };
        kept.insert(key, code.clone());
        Ok(Some(code))
    }

    fn put(&self, key: CodeKey, bytes: &[u8]) -> io::Result<()> {
        self.0.lock().unwrap().insert(key, bytes.to_vec());
        // Other runs may do the same just now: what has the name is whole.
        let path = Self::path(key);
        let partial = path.with_extension(std::process::id().to_string());
        fs::create_dir_all(path.parent().expect("it has a folder"))?;
        fs::write(&partial, bytes)?;
        fs::rename(partial, path)
    }
}
