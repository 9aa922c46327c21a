//! Writes not yet in the state: an ordered map of puts and deletes over something readable.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::ops::Bound;

use crate::state::{Fault, Order, Read, Value, Visit};

/// Writes in key order; `None` is a deletion.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Overlay {
    writes: BTreeMap<Vec<u8>, Option<Value>>,
}

impl Overlay {
    /// No writes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `key`.
    pub fn put(&mut self, key: Vec<u8>, value: impl Into<Value>) {
        self.writes.insert(key, Some(value.into()));
    }

    /// Deletes `key`.
    pub fn delete(&mut self, key: Vec<u8>) {
        self.writes.insert(key, None);
    }

    /// `None`: this overlay says nothing of `key`. `Some(None)`: it deletes it.
    pub fn get(&self, key: &[u8]) -> Option<Option<&Value>> {
        self.writes.get(key).map(Option::as_ref)
    }

    /// Whether there are no writes.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// How many keys are written.
    pub fn len(&self) -> usize {
        self.writes.len()
    }

    /// The writes, in key order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&[u8], Option<&Value>)> {
        self.writes
            .iter()
            .map(|(key, value)| (key.as_slice(), value.as_ref()))
    }

    /// The writes in `[start, end)`, in key order.
    pub fn range<'a>(
        &'a self,
        start: &[u8],
        end: Option<&[u8]>,
    ) -> impl DoubleEndedIterator<Item = (&'a [u8], Option<&'a Value>)> + use<'a> {
        // BTreeMap::range panics on an inverted range; an inverted range holds nothing.
        let end = match end {
            Some(end) if end < start => Some(start),
            other => other,
        };
        let end = end.map_or(Bound::Unbounded, Bound::Excluded);
        self.writes
            .range::<[u8], _>((Bound::Included(start), end))
            .map(|(key, value)| (key.as_slice(), value.as_ref()))
    }

    /// Lays `newer` over this.
    pub fn merge(&mut self, newer: Self) {
        if self.writes.is_empty() {
            self.writes = newer.writes;
        } else {
            self.writes.extend(newer.writes);
        }
    }

    /// Removes every write.
    pub fn clear(&mut self) {
        self.writes.clear();
    }

    /// The writes, in key order, by value.
    pub fn into_writes(self) -> BTreeMap<Vec<u8>, Option<Value>> {
        self.writes
    }
}

/// Reads `key` through `layers`, newest first, down to `base`.
///
/// # Errors
/// As [`Read::get`].
pub fn get_through(
    layers: &[&Overlay],
    base: &dyn Read,
    key: &[u8],
) -> Result<Option<Value>, Fault> {
    for layer in layers {
        if let Some(written) = layer.get(key) {
            return Ok(written.cloned());
        }
    }
    base.get(key)
}

/// Scans `[start, end)` through `layers`, newest first, over `base`.
///
/// # Errors
/// As [`Read::scan`].
pub fn scan_through(
    layers: &[&Overlay],
    base: &dyn Read,
    start: &[u8],
    end: Option<&[u8]>,
    order: Order,
    visit: &mut dyn FnMut(&[u8], &Value) -> Visit,
) -> Result<(), Fault> {
    let mut written = Written::new(layers, start, end, order);
    let mut next = written.next();
    if next.is_none() {
        return base.scan(start, end, order, visit);
    }
    let mut stopped = false;
    base.scan(start, end, order, &mut |key, value| {
        while let Some((written_key, written_value)) = next {
            if !order.is_before(written_key, key) {
                break;
            }
            next = written.next();
            if let Some(written_value) = written_value
                && visit(written_key, written_value) == Visit::Stop
            {
                stopped = true;
                return Visit::Stop;
            }
        }
        let shown = match next {
            Some((written_key, written_value)) if written_key == key => {
                next = written.next();
                written_value
            }
            _ => Some(value),
        };
        match shown {
            Some(shown) if visit(key, shown) == Visit::Stop => {
                stopped = true;
                Visit::Stop
            }
            _ => Visit::More,
        }
    })?;
    while !stopped && let Some((key, value)) = next {
        next = written.next();
        if let Some(value) = value {
            stopped = visit(key, value) == Visit::Stop;
        }
    }
    Ok(())
}

type Writes<'a> = Box<dyn Iterator<Item = (&'a [u8], Option<&'a Value>)> + 'a>;

/// The writes of several layers in one range, in order; under one key, the newest layer's. Lazy: a
/// scan of one key does not walk the layers.
struct Written<'a> {
    layers: Vec<Peekable<Writes<'a>>>,
    order: Order,
}

impl<'a> Written<'a> {
    fn new(layers: &[&'a Overlay], start: &[u8], end: Option<&[u8]>, order: Order) -> Self {
        let in_order = |layer: &&'a Overlay| -> Writes<'a> {
            match order {
                Order::Ascending => Box::new(layer.range(start, end)),
                Order::Descending => Box::new(layer.range(start, end).rev()),
            }
        };
        Self {
            layers: layers
                .iter()
                .map(in_order)
                .map(Iterator::peekable)
                .collect(),
            order,
        }
    }
}

impl<'a> Iterator for Written<'a> {
    type Item = (&'a [u8], Option<&'a Value>);

    fn next(&mut self) -> Option<Self::Item> {
        let order = self.order;
        let key = self
            .layers
            .iter_mut()
            .filter_map(|layer| layer.peek().map(|(key, _)| *key))
            .reduce(|a, b| if order.is_before(b, a) { b } else { a })?;
        let mut newest = None;
        for layer in &mut self.layers {
            let written = layer.next_if(|(other, _)| *other == key);
            newest = newest.or(written);
        }
        newest
    }
}
