//! Nodes with engines of their own.

use std::sync::Arc;

use quorate_engine::Engine;
use quorate_host::genesis::Genesis;
use quorate_host::modules::ModuleLog;

use super::tally::Tally;
use super::{Prepared, limits};

/// Has a node begin with version 1 of the tally, with an engine and a log of modules of its own.
pub fn first_tally(prepared: &mut Prepared) {
    let environment = &mut prepared.environment;
    let log = ModuleLog::new(environment.driver.clone());
    let engine = Engine::new(quorate_engine::Config::default()).unwrap();
    let engine = Arc::new(engine.with_diagnostics(Arc::new(log.clone())));
    environment.module_log = log;
    environment.modules = engine.clone();
    environment.engine = engine;
    let module = Tally::new(1, 1).wasm();
    environment.genesis = Arc::new(Genesis::new(limits(), module));
}
