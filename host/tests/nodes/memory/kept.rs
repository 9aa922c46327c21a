//! Nodes that begin anew after what they could not go on with, and trouble for them.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use quorate_core::apply::{Extent, Skip};
use quorate_core::context::Context;
use quorate_core::module::{
    Export, Instance, Manifest, ModuleHash, ModuleLimits, Modules, Ran, Rejected,
};
use quorate_core::state::{Fault, Poison};
use quorate_host::consensus::types::NodeId;
use quorate_host::metrics::Metrics;
use quorate_host::node::keeper::{Keeper, Phase};
use quorate_host::store::memory_disk::MemoryDisk;
use quorate_host::store::skips::Skipped;
use tokio::sync::mpsc;

use super::{EdgeEvent, MemoryEdge, Peer, Prepared, Wires, connect, prepare, until};

/// What goes wrong on one node when it runs modules.
#[derive(Debug, Default)]
pub struct Trouble {
    /// A call with this text in its input panics.
    pub panics_at: Mutex<Option<&'static [u8]>>,
    /// A call with the first of these as its input gets the other one.
    pub mistakes: Mutex<Option<[&'static [u8]; 2]>>,
    /// So many instances cannot be made.
    pub faults: AtomicU32,
    /// So many modules cannot be compiled.
    pub compile_faults: AtomicU32,
    /// The newest engine level that it knows; 0: the engine's own.
    pub level_max: AtomicU32,
    /// Every call waits while this is set.
    is_stuck: Mutex<bool>,
    unstuck: Condvar,
}

impl Trouble {
    fn takes_one(of: &AtomicU32) -> bool {
        let less = |left: u32| left.checked_sub(1);
        of.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .is_ok()
    }

    /// Whether calls wait.
    pub fn stick(&self, is_stuck: bool) {
        *self.is_stuck.lock().unwrap() = is_stuck;
        self.unstuck.notify_all();
    }
}

/// Modules of a node that has trouble.
#[derive(Debug)]
pub struct Troubled {
    pub modules: Arc<dyn Modules>,
    pub trouble: Arc<Trouble>,
}

impl Modules for Troubled {
    fn load(
        &self,
        hash: ModuleHash,
        code: &[u8],
        limits: &ModuleLimits,
    ) -> Result<Result<Manifest, Rejected>, Fault> {
        match Trouble::takes_one(&self.trouble.compile_faults) {
            true => Err(Fault::new("out of memory for the compiler")),
            false => self.modules.load(hash, code, limits),
        }
    }

    fn is_loaded(&self, hash: ModuleHash) -> bool {
        // One that was compiled before could not fail to be.
        self.trouble.compile_faults.load(Ordering::Relaxed) == 0 && self.modules.is_loaded(hash)
    }

    fn level_max(&self) -> u32 {
        match self.trouble.level_max.load(Ordering::Relaxed) {
            0 => self.modules.level_max(),
            level => level,
        }
    }

    fn instantiate(
        &self,
        hash: ModuleHash,
        limits: &ModuleLimits,
    ) -> Result<Box<dyn Instance>, Fault> {
        if Trouble::takes_one(&self.trouble.faults) {
            return Err(Fault::new("out of memory for an instance"));
        }
        Ok(Box::new(TroubledInstance {
            instance: self.modules.instantiate(hash, limits)?,
            trouble: Arc::clone(&self.trouble),
        }))
    }
}

#[derive(Debug)]
struct TroubledInstance {
    instance: Box<dyn Instance>,
    trouble: Arc<Trouble>,
}

impl Instance for TroubledInstance {
    fn call(
        &mut self,
        export: Export,
        input: &[u8],
        fuel: u64,
        context: &mut Context,
    ) -> Result<Ran, Fault> {
        let panics_at = *self.trouble.panics_at.lock().unwrap();
        if let Some(text) = panics_at {
            assert!(
                !input.windows(text.len()).any(|window| window == text),
                "the engine is broken"
            );
        }
        let stuck = self.trouble.is_stuck.lock().unwrap();
        drop(self.trouble.unstuck.wait_while(stuck, |stuck| *stuck));
        let mistakes = *self.trouble.mistakes.lock().unwrap();
        let input = match mistakes {
            Some([said, heard]) if input.ends_with(said) => {
                let start = &input[..input.len() - said.len()];
                &[start, heard].concat()
            }
            _ => input,
        };
        self.instance.call(export, input, fuel, context)
    }
}

/// A node with its keeper.
pub struct Kept {
    pub keeper: Keeper,
    pub disk: MemoryDisk,
    pub metrics: Arc<Metrics>,
    edge: Arc<MemoryEdge>,
    events: mpsc::Sender<EdgeEvent>,
    next: AtomicU64,
}

impl Kept {
    /// Starts one of `nodes` nodes, which has this trouble.
    pub async fn start(
        disk: MemoryDisk,
        node: NodeId,
        nodes: NodeId,
        wires: &Wires,
        trouble: &Arc<Trouble>,
    ) -> Self {
        let prepared = prepare(&disk, node, nodes, wires, 1 << 30);
        Self::run(disk, node, wires, trouble, prepared).await
    }

    /// Starts what is prepared.
    pub async fn run(
        disk: MemoryDisk,
        node: NodeId,
        wires: &Wires,
        trouble: &Arc<Trouble>,
        prepared: Prepared,
    ) -> Self {
        let Prepared {
            settings,
            mut environment,
            edge,
            events,
        } = prepared;
        let metrics = Arc::clone(&environment.metrics);
        environment.modules = Arc::new(Troubled {
            modules: Arc::clone(&environment.modules),
            trouble: Arc::clone(trouble),
        });
        let keeper = Keeper::start(settings, environment).await.unwrap();
        wires.serve(node, keeper.service());
        Self {
            keeper,
            disk,
            metrics,
            edge,
            events,
            next: AtomicU64::new(1),
        }
    }

    pub fn is_running(&self) -> bool {
        self.keeper.assembly().is_some()
    }

    /// Whether it leads and serves.
    pub fn is_serving(&self) -> bool {
        let assembly = self.keeper.assembly();
        assembly.is_some_and(|assembly| assembly.gateway().is_serving())
    }

    /// Waits until it takes part, or no part.
    pub async fn until_running(&self, is_running: bool) {
        let why = match is_running {
            true => "the node takes part",
            false => "the node takes no part",
        };
        until(why, || self.is_running() == is_running).await;
    }

    /// Why it takes no part.
    pub fn fault(&self) -> Fault {
        match self.keeper.phase() {
            Phase::Down(fault) | Phase::Ended(fault) => fault,
            Phase::Running(_) => panic!("the node goes on"),
        }
    }

    /// The rolling hash, and the index of the newest entry applied.
    pub fn state(&self) -> (u64, [u8; 32]) {
        let state = &self.keeper.stores().state;
        let meta = quorate_core::query::meta(&*state.view()).unwrap();
        let applied = state.applied();
        (applied.map_or(0, |position| position.index), meta.hash)
    }

    pub async fn connect(&self) -> Peer {
        connect(&self.edge, &self.events, &self.next).await
    }

    /// Has an operation skipped without its module.
    pub fn skip(&self, poison: Poison) {
        let skipped = Skipped {
            index: poison.index,
            entry: poison.entry,
            skip: Skip {
                position: poison.position,
                extent: Extent::Module,
            },
        };
        let applied = self.state().0;
        let skips = &self.keeper.stores().skips;
        skips.tell(skipped, applied, 0).unwrap();
    }
}
