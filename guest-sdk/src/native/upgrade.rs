//! One version of a module after another, over the same state.

use std::marker::PhantomData;

use super::{Failure, Native};
use crate::error::Error;
use crate::module::Module;

impl<M: Module> Native<M> {
    /// Puts `N` in force over this state, as a cluster does with a new version: where the state versions differ, by
    /// [`Module::migrate`] of `N`, or else by [`Module::migrate_down`] of `M`. [`Map::migrate_values`](crate::Map) has an
    /// example.
    ///
    /// # Errors
    /// If there is no such migration, or it fails; then with this host as it was.
    #[expect(
        clippy::result_large_err,
        reason = "whoever fails goes on with the host"
    )]
    pub fn upgrade<N: Module>(mut self, argument: &[u8]) -> Result<Native<N>, (Self, Failure)> {
        let (from, to) = (M::STATE_VERSION, N::STATE_VERSION);
        if from == to {
            return Ok(self.with_module());
        }
        if N::MIGRATES_FROM.contains(&from) {
            let mut next = self.with_module::<N>();
            return match next.migrate(from, argument) {
                Ok(_) => Ok(next),
                Err(failure) => Err((next.with_module(), failure)),
            };
        }
        let downgraded = match M::MIGRATES_DOWN_TO.contains(&to) {
            true => self.migrate_down(to, argument),
            false => Err(Failure::Error(Error::reserved(
                Error::NO_MIGRATION,
                format!("no migration leads from state version {from} to {to}"),
            ))),
        };
        match downgraded {
            Ok(_) => Ok(self.with_module()),
            Err(failure) => Err((self, failure)),
        }
    }

    fn with_module<N>(self) -> Native<N> {
        Native {
            state: self.state,
            sessions: self.sessions,
            timers: self.timers,
            time: self.time,
            index: self.index,
            logged: self.logged,
            failed_hooks: self.failed_hooks,
            module: PhantomData,
        }
    }
}
