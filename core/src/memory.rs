//! The replicated state as a map in memory: for whoever applies entries without a disk.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::state::{Fault, Order, Read, Value, Visit};

/// Every key and value, the module's under the prefix [`MODULE_DATA`](crate::context::MODULE_DATA). As
/// large as they are, and without a limit of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory(pub BTreeMap<Vec<u8>, Value>);

impl Memory {
    /// Puts what an entry wrote into it; `None` deletes.
    pub fn write(&mut self, writes: impl IntoIterator<Item = (Vec<u8>, Option<Value>)>) {
        for (key, value) in writes {
            match value {
                Some(value) => self.0.insert(key, value),
                None => self.0.remove(&key),
            };
        }
    }
}

impl Read for Memory {
    fn get(&self, key: &[u8]) -> Result<Option<Value>, Fault> {
        Ok(self.0.get(key).cloned())
    }

    fn scan(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        order: Order,
        visit: &mut dyn FnMut(&[u8], &Value) -> Visit,
    ) -> Result<(), Fault> {
        if end.is_some_and(|end| end < start) {
            return Ok(());
        }
        let end = end.map_or(Bound::Unbounded, Bound::Excluded);
        let range = self.0.range::<[u8], _>((Bound::Included(start), end));
        let in_order: Box<dyn Iterator<Item = _>> = match order {
            Order::Ascending => Box::new(range),
            Order::Descending => Box::new(range.rev()),
        };
        for (key, value) in in_order {
            if visit(key, value) == Visit::Stop {
                break;
            }
        }
        Ok(())
    }
}
