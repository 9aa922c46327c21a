//! A module's bytes into the log, chunk by chunk; what is there already is not sent again.

use std::collections::BTreeSet;

use quorate_core::entry::Operation;
use quorate_core::library;
use quorate_core::limits::Limits;
use quorate_core::module::{Manifest, ModuleHash};
use quorate_core::query;
use quorate_core::records::ModuleRecord;
use quorate_core::result::{OperationResult, Refusal};

use super::{Error, Library};

/// A module that is in the log, complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uploaded {
    /// What names it.
    pub hash: ModuleHash,
    /// What it says of itself.
    pub manifest: Manifest,
    /// Its chunks.
    pub chunks: u32,
    /// How many of them were not there before.
    pub stored: u32,
}

/// How often what was removed meanwhile is stored again.
const ROUNDS_MAX: usize = 3;

impl Library {
    /// Checks a module by the rules of admission, and brings it to every node. It is in force nowhere
    /// by that. Repeated, it goes on where it was interrupted.
    ///
    /// # Errors
    /// As [`Error`] says; what was stored stays, until room is needed.
    pub async fn upload(&self, code: Vec<u8>) -> Result<Uploaded, Error> {
        self.confirm_leader().await?;
        let limits = query::limits(&*self.0.state.view())?;
        let (code, manifest) = self.admit(code, &limits).await?;
        let hash = library::hash_of(&code);
        self.uses(hash);
        let total = u32::try_from(library::chunks(&code).len()).unwrap_or(u32::MAX);
        let mut stored = 0;
        for _ in 0..ROUNDS_MAX {
            let missing = self.prepare(hash, total, &limits).await?;
            if missing.is_empty() {
                return Ok(Uploaded {
                    hash,
                    manifest,
                    chunks: total,
                    stored,
                });
            }
            self.store(hash, &code, &missing).await?;
            stored += u32::try_from(missing.len()).unwrap_or(u32::MAX);
        }
        // It is removed as fast as it comes.
        Err(Error::Busy)
    }

    async fn store(&self, hash: ModuleHash, code: &[u8], missing: &[u32]) -> Result<(), Error> {
        for number in missing {
            let Some(chunk) = library::store_chunk(hash, code, *number) else {
                continue;
            };
            match self.propose(chunk).await?.result {
                OperationResult::Stored => {}
                // Another upload was faster with what room there was.
                OperationResult::Refused(Refusal::TooLarge { .. }) => return Err(Error::NoRoom),
                _ => return Err(Error::Busy),
            }
        }
        Ok(())
    }

    /// By the rules of admission, without compiling.
    pub(super) async fn admit(
        &self,
        code: Vec<u8>,
        limits: &Limits,
    ) -> Result<(Vec<u8>, Manifest), Error> {
        let (engine, limits) = (self.0.engine.clone(), limits.module.clone());
        let check = move || {
            let verdict = engine.check(&code, &limits);
            (code, verdict)
        };
        let (code, verdict) = self.0.driver.blocking(check).await;
        match verdict {
            Ok(manifest) => Ok((code, manifest)),
            Err(rejected) => Err(Error::Rejected {
                code: rejected.code.to_owned(),
                detail: rejected.detail,
            }),
        }
    }

    /// Which chunks are missing, once there is room for them.
    async fn prepare(
        &self,
        hash: ModuleHash,
        total: u32,
        limits: &Limits,
    ) -> Result<Vec<u32>, Error> {
        let view = self.0.state.view();
        let record = library::module(&*view, hash)?;
        if let Some(record) = &record {
            let missing = library::missing_chunks(&*view, hash, total)?;
            drop(view);
            let is_it = record.total == total;
            if is_it && !(missing.is_empty() && self.is_damaged(hash).await?) {
                return Ok(missing);
            }
            // Somebody called other bytes by this hash.
            self.remove(hash).await?;
        } else {
            drop(view);
        }
        self.make_room(hash, total, limits).await?;
        Ok((0..total).collect())
    }

    async fn is_damaged(&self, hash: ModuleHash) -> Result<bool, Error> {
        let code = self.code(hash).await?;
        let is_other = move || library::hash_of(&code) != hash;
        Ok(self.0.driver.blocking(is_other).await)
    }

    /// Removes modules until another one may be kept.
    async fn make_room(&self, hash: ModuleHash, total: u32, limits: &Limits) -> Result<(), Error> {
        let mut stays = BTreeSet::new();
        loop {
            let view = self.0.state.view();
            let mut kept = library::modules(&*view)?;
            let chunks: u64 = kept.iter().map(|(_, record)| u64::from(record.total)).sum();
            let chunks = chunks + u64::from(total);
            if library::may_keep(kept.len() + 1, chunks, &limits.module) {
                return Ok(());
            }
            let coming = query::migration(&*view)?.map(|migration| migration.next.hash);
            kept.retain(|(kept, _)| {
                let is_wanted = *kept == hash || Some(*kept) == coming || self.is_used(*kept);
                !is_wanted && !stays.contains(kept)
            });
            let oldest = oldest_unused(&kept, &library::activations(&*view)?);
            drop(view);
            let Some(oldest) = oldest else {
                return Err(Error::NoRoom);
            };
            tracing::info!(module = %oldest, "removes a module to make room for another");
            self.remove(oldest).await?;
            // If it was refused, it is refused again.
            stays.insert(oldest);
        }
    }

    async fn remove(&self, hash: ModuleHash) -> Result<(), Error> {
        match self.propose(Operation::RemoveModule { hash }).await?.result {
            // Superseded: it is gone already, or is needed meanwhile.
            OperationResult::Done | OperationResult::Refused(Refusal::Superseded) => Ok(()),
            _ => Err(Error::Busy),
        }
    }
}

/// What is removed first: what was never in force, then what was not for longest. Neither what is in
/// force nor what was before it.
fn oldest_unused(
    kept: &[(ModuleHash, ModuleRecord)],
    activations: &[(u64, quorate_core::records::Activation)],
) -> Option<ModuleHash> {
    let in_force = activations.last().map(|(_, newest)| newest.hash);
    let previous = library::previous(activations);
    let last_in_force = |hash: ModuleHash| {
        let mut known = activations.iter().rev();
        known
            .find(|(_, activation)| activation.hash == hash)
            .map(|(index, _)| *index)
    };
    kept.iter()
        .map(|(hash, _)| *hash)
        .filter(|hash| Some(*hash) != in_force && Some(*hash) != previous)
        .min_by_key(|hash| last_in_force(*hash))
}

#[cfg(test)]
mod tests {
    use quorate_core::records::{Activation, Manner};

    use super::*;

    fn activation(hash: u8, replaced: Option<u8>) -> Activation {
        Activation {
            hash: ModuleHash([hash; 32]),
            time_us: 0,
            manner: Manner::Change,
            replaced: replaced.map(|hash| ModuleHash([hash; 32])),
            manifest: Manifest {
                name: "m".to_owned(),
                version: "1.0.0".to_owned(),
                state_version: 1,
                migrates_from: Vec::new(),
                migrates_down_to: Vec::new(),
                codec: "raw".to_owned(),
            },
        }
    }

    #[test]
    fn the_oldest_goes_first_and_never_what_is_in_force_or_was_before_it() {
        let record = ModuleRecord {
            total: 1,
            present: 1,
            bytes: 1,
        };
        let kept = |hashes: &[u8]| -> Vec<_> {
            let hashes = hashes.iter().map(|hash| ModuleHash([*hash; 32]));
            hashes.map(|hash| (hash, record.clone())).collect()
        };
        // 1, then 2, back to 1, then 3 and 4.
        let known = [
            (1, activation(1, None)),
            (5, activation(2, Some(1))),
            (6, activation(1, Some(2))),
            (7, activation(3, Some(1))),
            (9, activation(4, Some(3))),
        ];
        let oldest = |hashes: &[u8]| oldest_unused(&kept(hashes), &known).map(|hash| hash.0[0]);
        assert_eq!(oldest(&[1, 2, 3, 4, 9]), Some(9), "never in force");
        assert_eq!(oldest(&[1, 2, 3, 4]), Some(2));
        assert_eq!(oldest(&[1, 3, 4]), Some(1));
        assert_eq!(oldest(&[3, 4]), None);
    }
}
