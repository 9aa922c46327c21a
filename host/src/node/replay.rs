//! What a node does before it takes part.

use std::sync::Arc;

use quorate_core::module::Modules;
use quorate_core::query;
use quorate_core::state::Fault;
use tokio::sync::oneshot;

use super::assembly::Error;
use crate::THREAD_STACK_BYTES;
use crate::consensus::machine::Applier;
use crate::drive::Driver;
use crate::store::log::LogStore;
use crate::store::state::StateStore;

/// Loads the module in force and applies what was committed, in pieces, so that openraft has nothing
/// left to replay.
pub(super) async fn replay(
    driver: &Driver,
    log: &LogStore,
    state: &StateStore,
    applier: Applier,
    modules: Arc<dyn Modules>,
) -> Result<(), Error> {
    let range = log.replay_range(state.applied().map(|position| position.index))?;
    let (ended, end) = oneshot::channel();
    let (log, state) = (log.clone(), state.clone());
    let replaying = async move {
        let result = async {
            query::load_active(&*state.view(), &*modules)?;
            let mut next = range.start;
            while next < range.end {
                let read = log.read_piece(next..range.end).await;
                let piece = read.map_err(|error| Fault::new(error.to_string()))?;
                for entry in &piece {
                    applier.apply(entry)?;
                }
                if piece.is_empty() {
                    return Err(Fault::new(format!("entry {next} is missing in the log")));
                }
                next += piece.len() as u64;
                state.room().await?;
            }
            Ok(())
        };
        // The assembly may have been dropped while it started.
        let _ = ended.send(result.await);
    };
    let running = driver.thread("quorate-replay", THREAD_STACK_BYTES, replaying)?;
    let replayed = end
        .await
        .unwrap_or_else(|_| Err(Fault::new("replay panicked")));
    running.ended().await;
    replayed.map_err(Error::Replay)
}
