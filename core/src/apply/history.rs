//! What was in force, and the way to begin anew without it.

use super::activation::check;
use super::invoke::tag;
use super::{Applying, skip};
use crate::entry::Drops;
use crate::keys;
use crate::library::{self, ACTIVATIONS_MAX, REINSTALL_KEYS_MAX};
use crate::module::{Export, ModuleHash};
use crate::overlay::Overlay;
use crate::records::{Activation, ActiveModule, Manner, NotActivated};
use crate::result::{OperationResult, Refusal};
use crate::state::{Fault, Order, Visit};

impl Applying<'_> {
    /// From the next entry on `next` is in force; that it was is remembered.
    pub(super) fn put_in_force(&mut self, next: ActiveModule, manner: Manner) -> Result<(), Fault> {
        // An activation is alone in its entry: no record of this entry is in its overlay.
        let known = library::activations(&**self.base)?;
        let too_many = (known.len() + 1).saturating_sub(ACTIVATIONS_MAX);
        for (index, _) in &known[..too_many] {
            self.own.delete(keys::activation(*index));
        }
        let activation = Activation {
            hash: next.hash,
            time_us: self.meta.time_us,
            manner,
            replaced: self.active.as_ref().map(|active| active.hash),
            manifest: next.manifest.clone(),
        };
        self.put(keys::activation(self.index), &activation);
        self.put(keys::ACTIVE.to_vec(), &next);
        self.active = Some(next);
        self.instance = None;
        Ok(())
    }

    /// Installs another module, of whatever name, over no data: what there is is dropped, with the
    /// timers, or, unless `drops` allows that, nothing is done. Sessions, what they were answered, and
    /// requests that wait for them stay.
    pub(super) fn reinstall(
        &mut self,
        expected: ModuleHash,
        hash: ModuleHash,
        drops: Drops,
        argument: &[u8],
    ) -> Result<OperationResult, Fault> {
        let not = |why| Ok(OperationResult::NotActivated(why));
        if self.skipped.is_some() {
            return Ok(skip::not_activated());
        }
        if self.active.as_ref().map(|active| active.hash) != Some(expected) {
            return not(NotActivated::NotExpected);
        }
        if self.migration.is_some() {
            return Ok(OperationResult::Refused(Refusal::Superseded));
        }
        let manifest = match check(&**self.base, self.modules, hash, &self.limits)? {
            Ok(manifest) => manifest,
            Err(why) => return not(why),
        };
        // Decided here: commands may have come in after whoever proposed this looked.
        if drops == Drops::Nothing && !library::is_empty(&**self.base)? {
            return not(NotActivated::NotEmpty);
        }
        let (mut data, mut timers) = (Vec::new(), Vec::new());
        let mut room = REINSTALL_KEYS_MAX;
        let has_room = self.collect(keys::module_data(), &mut room, &mut data)?
            && self.collect(keys::timers(), &mut room, &mut timers)?;
        if !has_room {
            let keys_max = REINSTALL_KEYS_MAX;
            return not(NotActivated::DataTooLarge { keys_max });
        }
        data.into_iter().for_each(|key| self.data.delete(key));
        let next = ActiveModule {
            hash,
            index: self.index,
            manifest,
        };
        let called = match self.run_as(&next, Export::Init, tag::INIT, argument)? {
            Ok(called) => called,
            Err(why) => {
                // Alone in its entry: nothing else is in there.
                self.data = Overlay::new();
                return not(why);
            }
        };
        timers.into_iter().for_each(|key| self.own.delete(key));
        self.put_in_force(next, Manner::Reinstall)?;
        if let Some(called) = called {
            self.settle(called)?;
        }
        Ok(OperationResult::Activated { hash })
    }

    /// The keys before the entry, while there is `room` for them; whether there was.
    fn collect(
        &self,
        (start, end): (Vec<u8>, Vec<u8>),
        room: &mut u64,
        keys: &mut Vec<Vec<u8>>,
    ) -> Result<bool, Fault> {
        let mut has_room = true;
        let mut visit = |key: &[u8], _: &_| {
            match room.checked_sub(1) {
                Some(less) => *room = less,
                None => {
                    has_room = false;
                    return Visit::Stop;
                }
            }
            keys.push(key.to_vec());
            Visit::More
        };
        self.base
            .scan(&start, Some(&end), Order::Ascending, &mut visit)?;
        Ok(has_room)
    }
}
