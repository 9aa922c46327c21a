//! Folds that end exactly at one entry, so that nodes can compare what they have stored as of it.

use std::ops::Bound;
use std::sync::Arc;

use quorate_core::state::{Fault, Order};
use tokio::sync::oneshot;

use super::StateStore;
use super::database::Base;
use super::layer::Layer;
use super::marks::Header;
use crate::store::LogPosition;

/// What was frozen to end at one entry, and who waits for the file as of it.
#[derive(Debug)]
pub(super) struct Ending {
    pub(super) layer: Arc<Layer>,
    pub(super) header: Header,
    pub(super) folded: oneshot::Sender<Folded>,
}

/// The file as of one entry, with nothing of the layers. Held for long it makes the file grow.
#[derive(Debug)]
pub struct Folded(pub(super) Arc<Base>);

impl Folded {
    /// The entry.
    pub fn position(&self) -> Option<LogPosition> {
        self.0.progress().applied
    }

    /// BLAKE3 over the keys and values in `[start, end)`, to the end of all keys if `end` is empty.
    /// Blocks.
    ///
    /// # Errors
    /// A [`Fault`] if something cannot be read, or is damaged.
    pub fn digest(&self, start: &[u8], end: &[u8]) -> Result<[u8; 32], Fault> {
        let mut hasher = blake3::Hasher::new();
        let until = match end {
            [] => Bound::Unbounded,
            end if end < start => return Ok(*hasher.finalize().as_bytes()),
            end => Bound::Excluded(end),
        };
        let mut range = self
            .0
            .range(Bound::Included(start), until, Order::Ascending)?;
        while let Some((key, value)) = range.next()? {
            for field in [&key[..], &value[..]] {
                hasher.update(&(field.len() as u64).to_be_bytes());
                hasher.update(field);
            }
        }
        Ok(*hasher.finalize().as_bytes())
    }
}

impl StateStore {
    /// Ends the layer that is being written right behind the newest commit, and hands out the file once
    /// that layer is folded. `None` if another layer is being folded just now. To be called by
    /// whoever commits. Never waits.
    pub fn end_fold_here(&self) -> Option<oneshot::Receiver<Folded>> {
        let mut inner = self.shared.inner();
        if inner.layers.frozen.is_some() || inner.ending.is_some() {
            return None;
        }
        let (layer, header) = inner.freeze()?;
        let (folded, view) = oneshot::channel();
        inner.ending = Some(Ending {
            layer,
            header,
            folded,
        });
        drop(inner);
        self.shared.wake.notify_one();
        Some(view)
    }

    /// Where a range that begins with `start` and holds about `bytes` of the newest file ends; empty if
    /// that is the end of all keys. Blocks.
    ///
    /// # Errors
    /// A [`Fault`] if something cannot be read, or is damaged.
    pub fn end_of_range(&self, start: &[u8], bytes: usize) -> Result<Vec<u8>, Fault> {
        let base = self.shared.base();
        let mut range = base.range(Bound::Included(start), Bound::Unbounded, Order::Ascending)?;
        let mut found = 0;
        while let Some((key, value)) = range.next()? {
            found += key.len() + value.len();
            if found > bytes && key.as_slice() > start {
                return Ok(key);
            }
        }
        Ok(Vec::new())
    }
}
