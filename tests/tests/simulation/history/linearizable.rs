//! Each object is linearizable, without a look at any index: some order of its operations that keeps
//! the order of those that did not overlap explains every answer (Wing and Gong's search, with
//! Lowe's memory of what was tried). A command of unknown outcome may have taken effect at any time
//! after it was asked for, or never.

use std::collections::{BTreeMap, BTreeSet};

use super::{Events, Outcome};
use crate::model::{Action, Query};

/// Steps of the search for one object; beyond, there is no verdict, and that is not a pass.
const STEPS_MAX: usize = 2_000_000;

/// What an operation does to its object: a number that is 0 in the beginning.
#[derive(Debug, Clone, Copy)]
enum Effect {
    Add(u64),
    Put(u64),
    Swap(u64, u64),
    Read,
}

#[derive(Debug, Clone, Copy)]
struct Operation {
    effect: Effect,
    invoked: u64,
    returned: u64,
    /// `None`: not known, and then it need not have taken effect.
    answer: Option<u64>,
}

impl Effect {
    /// The object's next value, and the answer.
    fn apply(self, value: u64) -> (u64, u64) {
        match self {
            Self::Add(amount) => (value + amount, value + amount),
            Self::Put(next) => (next, value),
            Self::Swap(expected, next) if value == expected => (next, value),
            Self::Swap(..) | Self::Read => (value, value),
        }
    }
}

pub(super) fn check(events: &Events) -> Result<(), String> {
    for (object, mut operations) in objects(events) {
        operations.sort_unstable_by_key(|operation| operation.invoked);
        match search(&operations) {
            Some(true) => {}
            Some(false) => {
                return Err(format!(
                    "linearizability: no order of its {} operations explains {object:?}",
                    operations.len()
                ));
            }
            None => {
                return Err(format!(
                    "linearizability: no verdict on {object:?} with {} operations",
                    operations.len()
                ));
            }
        }
    }
    Ok(())
}

fn objects(events: &Events) -> BTreeMap<Option<u32>, Vec<Operation>> {
    let mut objects: BTreeMap<Option<u32>, Vec<Operation>> = BTreeMap::new();
    for command in events.commands.values() {
        let (object, effect) = match command.action {
            Action::Add(amount) => (None, Effect::Add(amount)),
            Action::Put(register, value) => (Some(register), Effect::Put(value)),
            Action::Swap(register, expected, value) => {
                (Some(register), Effect::Swap(expected, value))
            }
            _ => continue,
        };
        let answer = match command.outcome {
            Outcome::Applied { response, .. } => Some(response),
            Outcome::Unknown => None,
            Outcome::Rejected { .. } | Outcome::NotApplied => continue,
        };
        objects.entry(object).or_default().push(Operation {
            effect,
            invoked: command.invoked,
            returned: command.returned,
            answer,
        });
    }
    for read in &events.reads {
        let object = match read.query {
            Query::Total => None,
            Query::Register(register) => Some(register),
        };
        objects.entry(object).or_default().push(Operation {
            effect: Effect::Read,
            invoked: read.invoked,
            returned: read.returned,
            answer: Some(read.value),
        });
    }
    objects
}

/// Where the search is: the operations before `first` are all taken, of the later ones those in
/// `taken`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    first: usize,
    taken: BTreeSet<usize>,
    value: u64,
}

/// Whether there is an order; `None` if that would take too long to find out. The operations are in
/// the order in which they were asked for.
fn search(operations: &[Operation]) -> Option<bool> {
    let begin = Place {
        first: 0,
        taken: BTreeSet::new(),
        value: 0,
    };
    let mut tried = BTreeSet::from([begin.clone()]);
    let mut places = vec![begin];
    let mut steps = 0;
    while let Some(place) = places.pop() {
        let left = || (place.first..operations.len()).filter(|at| !place.taken.contains(at));
        if left().all(|at| operations[at].answer.is_none()) {
            return Some(true);
        }
        // Whatever comes next was asked for before any of the others was answered.
        let returned = left().map(|at| operations[at].returned).min();
        let returned = returned.expect("some are left");
        for at in left().take_while(|at| operations[*at].invoked < returned) {
            steps += 1;
            if steps > STEPS_MAX {
                return None;
            }
            let operation = &operations[at];
            let (value, answer) = operation.effect.apply(place.value);
            if operation.answer.is_some_and(|told| told != answer) {
                continue;
            }
            let next = place.clone().take(at, value);
            if tried.insert(next.clone()) {
                places.push(next);
            }
        }
    }
    Some(false)
}

impl Place {
    fn take(mut self, at: usize, value: u64) -> Self {
        self.value = value;
        self.taken.insert(at);
        while self.taken.remove(&self.first) {
            self.first += 1;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(effect: Effect, invoked: u64, returned: u64, answer: Option<u64>) -> Operation {
        Operation {
            effect,
            invoked,
            returned,
            answer,
        }
    }

    #[test]
    fn overlapping_operations_may_be_in_either_order() {
        let put = operation(Effect::Put(7), 1, 4, Some(0));
        let early = operation(Effect::Read, 2, 3, Some(7));
        assert_eq!(search(&[put, early]), Some(true));
        let late = operation(Effect::Read, 2, 3, Some(0));
        assert_eq!(search(&[put, late]), Some(true));
    }

    #[test]
    fn stale_read_is_not_linearizable() {
        let put = operation(Effect::Put(7), 1, 2, Some(0));
        let read = operation(Effect::Read, 3, 4, Some(0));
        assert_eq!(search(&[put, read]), Some(false));
    }

    #[test]
    fn unknown_command_takes_effect_late_or_never() {
        let unknown = operation(Effect::Add(5), 1, u64::MAX, None);
        let before = operation(Effect::Read, 2, 3, Some(0));
        let after = operation(Effect::Read, 4, 5, Some(5));
        assert_eq!(search(&[unknown, before, after]), Some(true));
        let again = operation(Effect::Read, 6, 7, Some(0));
        assert_eq!(search(&[unknown, before, after, again]), Some(false));
        assert_eq!(search(&[unknown, before]), Some(true));
    }

    #[test]
    fn command_that_took_effect_twice_is_not_linearizable() {
        let add = operation(Effect::Add(5), 1, 2, Some(5));
        let read = operation(Effect::Read, 3, 4, Some(10));
        assert_eq!(search(&[add, read]), Some(false));
    }
}
