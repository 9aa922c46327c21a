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

/// Scans `[start, end)` through `layers`, newest first, over `base`. Returns how many keys it walked:
/// those shown to `visit`, and those that a layer deletes or overwrites. Its work is proportional to
/// that, whatever the layers hold elsewhere in the range.
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
) -> Result<u64, Fault> {
    let mut written = Merge::new(layers, start, end, order);
    let mut walked = 0;
    let mut stopped = false;
    base.scan(start, end, order, &mut |key, value| {
        let mut shown = Some(value);
        while let Some((written_key, written_value)) = written.next_up_to(Some(key)) {
            walked += 1;
            if written_key == key {
                shown = written_value;
                break;
            }
            if let Some(written_value) = written_value
                && visit(written_key, written_value) == Visit::Stop
            {
                stopped = true;
                return Visit::Stop;
            }
        }
        walked += 1;
        match shown {
            Some(shown) if visit(key, shown) == Visit::Stop => {
                stopped = true;
                Visit::Stop
            }
            _ => Visit::More,
        }
    })?;
    while !stopped && let Some((key, value)) = written.next_up_to(None) {
        walked += 1;
        if let Some(value) = value {
            stopped = visit(key, value) == Visit::Stop;
        }
    }
    Ok(walked)
}

type Write<'a> = (&'a [u8], Option<&'a Value>);

/// The writes of several layers in one order; of equal keys the newest layer's.
struct Merge<'a> {
    layers: Vec<Peekable<Box<dyn Iterator<Item = Write<'a>> + 'a>>>,
    order: Order,
}

impl<'a> Merge<'a> {
    fn new(layers: &[&'a Overlay], start: &[u8], end: Option<&[u8]>, order: Order) -> Self {
        let layers = layers
            .iter()
            .filter(|layer| !layer.is_empty())
            .map(|layer| {
                let range = layer.range(start, end);
                let range: Box<dyn Iterator<Item = Write<'a>> + 'a> = match order {
                    Order::Ascending => Box::new(range),
                    Order::Descending => Box::new(range.rev()),
                };
                range.peekable()
            })
            .collect();
        Self { layers, order }
    }

    /// The next write, unless it comes after `bound`.
    fn next_up_to(&mut self, bound: Option<&[u8]>) -> Option<Write<'a>> {
        let order = self.order;
        let mut first: Option<Write<'a>> = None;
        for layer in &mut self.layers {
            if let Some(write) = layer.peek()
                && first.is_none_or(|(key, _)| order.is_before(write.0, key))
            {
                first = Some(*write);
            }
        }
        let (key, _) = first?;
        if bound.is_some_and(|bound| order.is_before(bound, key)) {
            return None;
        }
        for layer in &mut self.layers {
            layer.next_if(|(other, _)| *other == key);
        }
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Map(BTreeMap<Vec<u8>, Value>);

    impl Read for Map {
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
            let inside = |key: &[u8]| key >= start && end.is_none_or(|end| key < end);
            let mut found: Vec<_> = self.0.iter().filter(|(key, _)| inside(key)).collect();
            if order == Order::Descending {
                found.reverse();
            }
            for (key, value) in found {
                if visit(key, value) == Visit::Stop {
                    break;
                }
            }
            Ok(())
        }
    }

    /// Five keys, each absent, put or deleted in each of three layers as the digits of `number` say.
    fn layers(mut number: usize) -> (Map, Overlay, Overlay) {
        let mut base = Map(BTreeMap::new());
        let mut layers = [Overlay::new(), Overlay::new()];
        for key in 0..5_u8 {
            if number % 2 == 1 {
                base.0.insert(vec![key], Value::from([key, 0]));
            }
            number /= 2;
            for (layer, name) in layers.iter_mut().zip(1..) {
                match number % 3 {
                    0 => {}
                    1 => layer.put(vec![key], [key, name]),
                    _ => layer.delete(vec![key]),
                }
                number /= 3;
            }
        }
        let [entry, operation] = layers;
        (base, entry, operation)
    }

    /// Against the same layers merged into one map first.
    #[test]
    fn scan_shows_the_newest_of_every_key() {
        // A stride prime to the count of combinations (18 to the 5th) reaches all kinds of them.
        for number in (0..1_889_568).step_by(997) {
            let (base, entry, operation) = layers(number);
            let mut merged = base.0.clone();
            for layer in [&entry, &operation] {
                for (key, value) in layer.iter() {
                    match value {
                        Some(value) => merged.insert(key.to_vec(), value.clone()),
                        None => merged.remove(key),
                    };
                }
            }
            for (start, end) in [(0, None), (1, Some(4)), (3, Some(2))] {
                let (start, end) = ([start], end.map(|end| [end]));
                let end = end.as_ref().map(<[u8; 1]>::as_slice);
                for order in [Order::Ascending, Order::Descending] {
                    for limit in [1, 2, 9] {
                        let shown = |read: &dyn Read, layers: &[&Overlay]| {
                            let mut shown = Vec::new();
                            let mut visit = |key: &[u8], value: &Value| {
                                shown.push((key.to_vec(), value.clone()));
                                if shown.len() == limit {
                                    Visit::Stop
                                } else {
                                    Visit::More
                                }
                            };
                            let walked = scan_through(layers, read, &start, end, order, &mut visit)
                                .expect("a map does not fail");
                            assert!(walked >= shown.len() as u64);
                            shown
                        };
                        assert_eq!(
                            shown(&base, &[&operation, &entry]),
                            shown(&Map(merged.clone()), &[]),
                            "{number} {start:?} {end:?} {order:?} {limit}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn scan_counts_what_it_walks_and_no_more() {
        let base = Map((0..100).map(|key| (vec![key], Value::from([]))).collect());
        let mut overlay = Overlay::new();
        for key in 0..50 {
            overlay.delete(vec![key]);
        }
        for key in 60..200 {
            overlay.put(vec![key], []);
        }
        let mut visit = |_: &[u8], _: &Value| Visit::Stop;
        let walked = scan_through(&[&overlay], &base, &[0], None, Order::Ascending, &mut visit);
        assert_eq!(walked, Ok(101));
        let walked = scan_through(
            &[&overlay],
            &base,
            &[50],
            None,
            Order::Ascending,
            &mut visit,
        );
        assert_eq!(walked, Ok(1));
    }
}
