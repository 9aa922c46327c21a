//! Snapshots for whoever asks the admin listener: those that other nodes would get.

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::oneshot;

use crate::admin::{SnapshotBegun, SnapshotError, SnapshotSource};
use crate::drive::Driver;
use crate::store::state::{self, SnapshotReader, StateStore};

pub(super) struct NodeSnapshots {
    pub(super) node: u64,
    pub(super) driver: Driver,
    pub(super) state: StateStore,
}

impl SnapshotSource for NodeSnapshots {
    fn begin(&self) -> BoxFuture<'_, Result<SnapshotBegun, SnapshotError>> {
        Box::pin(async move {
            let fault = |fault: quorate_core::state::Fault| SnapshotError::Fault(fault.message);
            self.state.fold().await.map_err(fault)?;
            let snapshot = self.state.current_snapshot();
            let snapshot = snapshot.ok_or(SnapshotError::Nothing)?;
            let (opened, open) = oneshot::channel();
            // Of a large state it takes longer than a request may; whoever asks again finds it done.
            drop(self.driver.task(async move {
                let _ = opened.send(snapshot.open().await);
            }));
            let reader = open.await.map_err(|_| SnapshotError::NotRunning)?;
            let reader = reader.map_err(told)?;
            let position = reader.snapshot().position();
            Ok(SnapshotBegun {
                node_id: self.node,
                id: reader.snapshot().id().to_owned(),
                index: position.index,
                term: position.term,
                chunks: reader.chunks(),
                bytes: reader.bytes(),
            })
        })
    }

    fn chunk(&self, id: String, number: u64) -> BoxFuture<'_, Result<Bytes, SnapshotError>> {
        Box::pin(async move {
            let current = self.state.current_snapshot();
            let snapshot = current.filter(|current| current.id() == id);
            let reader = snapshot.ok_or(SnapshotError::Gone)?.open().await;
            let reader: SnapshotReader = reader.map_err(told)?;
            // The reader counts as broken off each time: so the snapshot stays for the next chunk.
            let chunk = reader.chunk(number).await.map_err(told)?;
            chunk.ok_or(SnapshotError::NoChunk(number))
        })
    }
}

fn told(error: state::SnapshotError) -> SnapshotError {
    match error {
        state::SnapshotError::Expired { .. } => SnapshotError::Gone,
        other => SnapshotError::Fault(other.to_string()),
    }
}
