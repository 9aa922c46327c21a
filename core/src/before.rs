//! The state as it was before a migration that is under way: what queries see meanwhile.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::context::MODULE_DATA;
use crate::keys;
use crate::records::{Before, Record};
use crate::state::{Fault, Order, Read, Value, Visit};

/// Undo records read at a time beside a scan.
const READ_AHEAD: usize = 64;

/// A state whose module data a migration has begun to change, seen without the changes. Scans show
/// them, unless they stay within the module's data.
#[derive(Debug)]
pub(crate) struct StateBefore(pub(crate) Arc<dyn Read>);

impl Read for StateBefore {
    fn get(&self, key: &[u8]) -> Result<Option<Value>, Fault> {
        if key.first() == Some(&MODULE_DATA)
            && let Some(kept) = self.0.get(&keys::undo(key))?
        {
            return before(key, &kept);
        }
        self.0.get(key)
    }

    fn scan(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        order: Order,
        visit: &mut dyn FnMut(&[u8], &Value) -> Visit,
    ) -> Result<(), Fault> {
        let is_data = start.first() == Some(&MODULE_DATA)
            && end.is_some_and(|end| end <= &[MODULE_DATA + 1][..]);
        let (true, Some(end)) = (is_data, end) else {
            return self.0.scan(start, end, order, visit);
        };
        let mut kept = Kept::new(&*self.0, start, end, order);
        let mut ended = Ok(Visit::More);
        self.0.scan(start, Some(end), order, &mut |key, value| {
            ended = kept.show_up_to(Some(key), visit).map(|shown| match shown {
                Shown::Stopped => Visit::Stop,
                Shown::Instead => Visit::More,
                Shown::Nothing => visit(key, value),
            });
            match ended {
                Ok(Visit::More) => Visit::More,
                _ => Visit::Stop,
            }
        })?;
        if ended? == Visit::More {
            kept.show_up_to(None, visit)?;
        }
        Ok(())
    }
}

fn before(key: &[u8], kept: &[u8]) -> Result<Option<Value>, Fault> {
    match Before::from_bytes(kept) {
        Ok(Before(value)) => Ok(value),
        Err(error) => Err(Fault::new(format!(
            "what key {key:02x?} held before the migration cannot be decoded: {error}"
        ))),
    }
}

/// What became of a key of the state.
enum Shown {
    /// Nobody wants more.
    Stopped,
    /// The undo table says what it held.
    Instead,
    /// It was not changed.
    Nothing,
}

/// A key of the module's data, and what it held.
type Held = (Vec<u8>, Option<Value>);

/// The undo records of a range, in the order of a scan, read piece by piece.
struct Kept<'a> {
    state: &'a dyn Read,
    /// What is not read yet: `[start, end)`.
    start: Vec<u8>,
    end: Vec<u8>,
    order: Order,
    is_all_read: bool,
    /// Keys of the module's data, with what they held.
    ahead: VecDeque<Held>,
}

impl<'a> Kept<'a> {
    fn new(state: &'a dyn Read, start: &[u8], end: &[u8], order: Order) -> Self {
        let is_open = end == [MODULE_DATA + 1];
        Self {
            state,
            start: keys::undo(start),
            end: match is_open {
                true => keys::undos().1,
                false => keys::undo(end),
            },
            order,
            is_all_read: false,
            ahead: VecDeque::new(),
        }
    }

    /// Shows what comes before `key` in the scan's order, and what `key` itself held.
    fn show_up_to(
        &mut self,
        key: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], &Value) -> Visit,
    ) -> Result<Shown, Fault> {
        while let Some((kept, value)) = self.next_up_to(key)? {
            if let Some(value) = value
                && visit(&kept, &value) == Visit::Stop
            {
                return Ok(Shown::Stopped);
            }
            if key == Some(&kept) {
                return Ok(Shown::Instead);
            }
        }
        Ok(Shown::Nothing)
    }

    fn next_up_to(&mut self, bound: Option<&[u8]>) -> Result<Option<Held>, Fault> {
        if self.ahead.is_empty() && !self.is_all_read {
            self.read_ahead()?;
        }
        let is_beyond = |key: &[u8]| bound.is_some_and(|bound| self.order.is_before(bound, key));
        match self.ahead.front() {
            Some((key, _)) if !is_beyond(key) => Ok(self.ahead.pop_front()),
            _ => Ok(None),
        }
    }

    fn read_ahead(&mut self) -> Result<(), Fault> {
        let mut read = Vec::with_capacity(READ_AHEAD);
        let (start, end) = (&self.start, Some(&self.end[..]));
        self.state.scan(start, end, self.order, &mut |key, value| {
            read.push((key.to_vec(), Value::clone(value)));
            match read.len() {
                READ_AHEAD => Visit::Stop,
                _ => Visit::More,
            }
        })?;
        self.is_all_read = read.len() < READ_AHEAD;
        if let Some((last, _)) = read.last() {
            match self.order {
                Order::Ascending => {
                    self.start = last.clone();
                    self.start.push(0);
                }
                Order::Descending => self.end = last.clone(),
            }
        }
        for (undo, kept) in read {
            let key = keys::undone(&undo);
            let held = before(&key, &kept)?;
            self.ahead.push_back((key, held));
        }
        Ok(())
    }
}
