//! Taking an operator's word that an operation is to be skipped.

use openraft::entry::EntryPayload;
use quorate_core::apply;
use quorate_core::state::Poison;

use super::stores::Stores;
use crate::admin::{Extent, Skip, SkipRefused, hex, unhex};
use crate::drive::Driver;
use crate::store::skips::{SkipError, Skipped};

/// Has `skip` skipped by the node of `stores`, which stands still at `poison`, if at all. Durable when
/// this returns.
pub(super) async fn skip(
    driver: &Driver,
    stores: &Stores,
    poison: Option<Poison>,
    skip: Skip,
) -> Result<Skip, SkipRefused> {
    let entry = named_entry(stores, poison, &skip).await?;
    let told = Skipped {
        index: skip.index,
        entry,
        skip: apply::Skip {
            position: skip.position,
            extent: match skip.extent {
                Extent::Module => apply::Extent::Module,
                Extent::Operation => apply::Extent::Operation,
            },
        },
    };
    let first = stores.log.bounds().first;
    let (skips, state) = (stores.skips.clone(), stores.state.clone());
    let telling = move || {
        let applied = state.applied().map_or(0, |position| position.index);
        skips.tell(told, applied, first)
    };
    driver.blocking(telling).await.map_err(|error| {
        let message = error.to_string();
        match error {
            SkipError::Applied { .. } => SkipRefused::Applied { message },
            SkipError::OtherEntry { .. } => SkipRefused::OtherEntry { message },
            SkipError::TooMany | SkipError::Io(_) => SkipRefused::Fault { message },
        }
    })?;
    tracing::warn!(
        index = skip.index,
        position = skip.position,
        extent = ?skip.extent,
        "an operator has this operation skipped"
    );
    let entry = Some(hex(&entry));
    Ok(Skip { entry, ..skip })
}

/// The entry that is meant: the one at which this node stands still, or the one that the operator
/// names, unless this node has another one there.
async fn named_entry(
    stores: &Stores,
    poison: Option<Poison>,
    skip: &Skip,
) -> Result<[u8; 32], SkipRefused> {
    let (index, position) = (skip.index, skip.position);
    let named = skip.entry.as_deref().map(|entry| {
        let bytes = unhex(entry).and_then(|bytes| bytes.try_into().ok());
        bytes.ok_or_else(|| SkipRefused::OtherEntry {
            message: "the entry's hash is not 64 hexadecimal digits".to_owned(),
        })
    });
    let named: Option<[u8; 32]> = named.transpose()?;
    let here = poison.filter(|poison| (poison.index, poison.position) == (index, position));
    let own = match here {
        Some(poison) => Some(poison.entry),
        None => entry_in_log(stores, index).await?,
    };
    match (named, own) {
        (Some(named), Some(own)) if named != own => Err(SkipRefused::OtherEntry {
            message: format!("this node has another entry {index} than the one that is named"),
        }),
        (Some(named), _) => Ok(named),
        (None, Some(own)) if here.is_some() => Ok(own),
        (None, _) => Err(SkipRefused::NotPoisoned {
            index,
            position,
            instead: match poison {
                Some(poison) => format!("it stands still at {poison}"),
                None => "it is not stopped by a panic".to_owned(),
            },
        }),
    }
}

async fn entry_in_log(stores: &Stores, index: u64) -> Result<Option<[u8; 32]>, SkipRefused> {
    let read = stores.log.read(index..index.saturating_add(1)).await;
    let entries = read.map_err(|error| SkipRefused::Fault {
        message: error.to_string(),
    })?;
    Ok(entries.first().map(|entry| match &entry.payload {
        EntryPayload::Normal(bytes) => *blake3::hash(&bytes.0).as_bytes(),
        // Has no operations, and no bytes of ours: like no entry that can be named.
        EntryPayload::Blank | EntryPayload::Membership(_) => [0; 32],
    }))
}
