//! The replicated state as a map in memory.

use std::collections::BTreeMap;
use std::ops::Bound;

use quorate_core::state::{Fault, Order, Read, Value, Visit};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Memory(pub(crate) BTreeMap<Vec<u8>, Value>);

impl Memory {
    pub(crate) fn write(&mut self, writes: &BTreeMap<Vec<u8>, Option<Value>>) {
        for (key, value) in writes {
            match value {
                Some(value) => self.0.insert(key.clone(), value.clone()),
                None => self.0.remove(key),
            };
        }
    }

    /// Every key and value with their lengths, as a snapshot would hold them.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for field in self.0.iter().flat_map(|(key, value)| [&key[..], value]) {
            bytes.extend_from_slice(&(field.len() as u32).to_be_bytes());
            bytes.extend_from_slice(field);
        }
        bytes
    }

    pub(crate) fn from_bytes(mut bytes: &[u8]) -> Self {
        let mut take = || -> Option<Vec<u8>> {
            let (length, rest) = bytes.split_first_chunk()?;
            let (field, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
            bytes = rest;
            Some(field.to_vec())
        };
        let mut map = BTreeMap::new();
        while let Some(key) = take() {
            map.insert(key, take().unwrap().into());
        }
        Self(map)
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
