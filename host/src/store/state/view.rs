//! A view of the state as of one commit: the layers of that moment over the file of that moment.

use std::ops::Bound;
use std::sync::Arc;

use quorate_core::state::{Fault, Order, Read, Value, Visit};

use super::Shared;
use super::database::{Base, BaseRange};
use super::dead::{Dead, MARKS_MIN, after};
use super::layer::{Layer, LayerRange, Write};

/// What a view reads through, newest first.
#[derive(Debug, Clone)]
pub(super) struct Layers {
    /// Apply writes here.
    pub(super) active: Arc<Layer>,
    /// What is being folded into the file.
    pub(super) frozen: Option<Arc<Layer>>,
    pub(super) base: Arc<Base>,
    /// What scans need not walk over.
    pub(super) dead: Arc<Dead>,
}

impl Layers {
    /// A file and nothing else, as version `version` of the state.
    pub(super) fn over(base: Arc<Base>, version: u64) -> Self {
        Self {
            active: Arc::default(),
            frozen: None,
            base,
            dead: Arc::new(Dead::at(version)),
        }
    }

    /// Takes the file out. Returns what it was read through.
    pub(super) fn close(&mut self) -> Arc<Base> {
        let closed = Arc::new(self.base.without_file());
        std::mem::replace(&mut self.base, closed)
    }

    fn stack(&self) -> impl Iterator<Item = &Layer> {
        std::iter::once(&*self.active).chain(self.frozen.as_deref())
    }
}

/// One commit's view, registered so that what it sees is kept.
#[derive(Debug)]
pub(super) struct View {
    pub(super) shared: Arc<Shared>,
    pub(super) layers: Layers,
    pub(super) at: u64,
}

impl Drop for View {
    fn drop(&mut self) {
        self.shared.forget_view(self.at);
    }
}

impl Read for View {
    fn get(&self, key: &[u8]) -> Result<Option<Value>, Fault> {
        for layer in self.layers.stack() {
            if let Some(write) = layer.get(key, self.at) {
                return Ok(write);
            }
        }
        self.layers.base.get(key)
    }

    fn scan(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        order: Order,
        visit: &mut dyn FnMut(&[u8], &Value) -> Visit,
    ) -> Result<(), Fault> {
        let mut left = Left {
            start: start.to_vec(),
            end: end.map(<[u8]>::to_vec),
            order,
            alive: None,
        };
        while self.scan_on(&mut left, visit)? == Went::OverDead {}
        Ok(())
    }
}

/// How a part of a scan ended.
#[derive(Debug, PartialEq, Eq)]
enum Went {
    /// At the end of what is left, or where the visitor stopped.
    ToEnd,
    /// At a range that is known to be dead, which is not left any more.
    OverDead,
}

impl View {
    fn scan_on(
        &self,
        left: &mut Left,
        visit: &mut dyn FnMut(&[u8], &Value) -> Visit,
    ) -> Result<Went, Fault> {
        let dead = &self.layers.dead;
        if let Some(to) = dead.jump(self.at, left.next(), left.order) {
            left.go_to(to);
        }
        if left.is_empty() {
            return Ok(Went::ToEnd);
        }
        let mut merge = Merge::new(self, &left.start, left.end.as_deref(), left.order)?;
        let mut marks = 0;
        while let Some((key, write)) = merge.next()? {
            let Some(value) = write else {
                marks += 1;
                if marks == MARKS_MIN
                    && let Some(to) = dead.jump(self.at, Some(&key), left.order)
                {
                    // What is known becomes longer by what was walked over.
                    let (start, end) = left.until(to.as_deref());
                    dead.found(self.at, start, end);
                    left.go_to(to);
                    return Ok(Went::OverDead);
                }
                continue;
            };
            if marks >= MARKS_MIN {
                let (start, end) = left.until_alive(&key);
                dead.found(self.at, start, end);
            }
            marks = 0;
            if visit(&key, &value) == Visit::Stop {
                return Ok(Went::ToEnd);
            }
            left.alive = Some(key);
        }
        if marks >= MARKS_MIN {
            dead.found(self.at, left.lower(), left.upper());
        }
        Ok(Went::ToEnd)
    }
}

/// What a scan has not seen yet.
struct Left {
    start: Vec<u8>,
    end: Option<Vec<u8>>,
    order: Order,
    /// The last key that was visited.
    alive: Option<Vec<u8>>,
}

impl Left {
    fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }

    /// Where the scan begins.
    fn next(&self) -> Option<&[u8]> {
        match self.order {
            Order::Ascending => Some(&self.start),
            Order::Descending => self.end.as_deref(),
        }
    }

    /// Over a dead range, whose other end may be outside.
    fn go_to(&mut self, to: Option<Vec<u8>>) {
        self.alive = None;
        match (self.order, to) {
            (Order::Ascending, Some(to)) => self.start = to,
            (Order::Ascending, None) => self.end = Some(self.start.clone()),
            (Order::Descending, to) => self.end = to,
        }
    }

    /// From where the scan is to the other end of a dead range.
    fn until(&self, to: Option<&[u8]>) -> (Vec<u8>, Option<Vec<u8>>) {
        let to = to.map(<[u8]>::to_vec);
        match self.order {
            Order::Ascending => (self.lower(), to),
            Order::Descending => (to.unwrap_or_default(), self.upper()),
        }
    }

    /// From where the scan is to before a key that is alive.
    fn until_alive(&self, key: &[u8]) -> (Vec<u8>, Option<Vec<u8>>) {
        match self.order {
            Order::Ascending => (self.lower(), Some(key.to_vec())),
            Order::Descending => (after(key), self.upper()),
        }
    }

    fn lower(&self) -> Vec<u8> {
        match (self.order, &self.alive) {
            (Order::Ascending, Some(alive)) => after(alive),
            _ => self.start.clone(),
        }
    }

    fn upper(&self) -> Option<Vec<u8>> {
        match (self.order, &self.alive) {
            (Order::Descending, Some(alive)) => Some(alive.clone()),
            _ => self.end.clone(),
        }
    }
}

enum Source<'a> {
    Layer(LayerRange<'a>),
    Base(BaseRange),
}

/// A source and its next write.
struct Head<'a> {
    source: Source<'a>,
    next: Option<(Vec<u8>, Write)>,
}

impl<'a> Head<'a> {
    fn first(source: Source<'a>) -> Result<Self, Fault> {
        let mut head = Self { source, next: None };
        head.advance()?;
        Ok(head)
    }

    fn advance(&mut self) -> Result<Option<(Vec<u8>, Write)>, Fault> {
        let next = match &mut self.source {
            Source::Layer(range) => range.next(),
            Source::Base(range) => range.next()?.map(|(key, value)| (key, Some(value))),
        };
        Ok(std::mem::replace(&mut self.next, next))
    }

    fn key(&self) -> Option<&[u8]> {
        self.next.as_ref().map(|(key, _)| key.as_slice())
    }
}

/// Merges a view's sources: of equal keys the newest source's write counts.
struct Merge<'a> {
    /// Newest first.
    heads: Vec<Head<'a>>,
    order: Order,
}

impl<'a> Merge<'a> {
    fn new(view: &'a View, start: &[u8], end: Option<&[u8]>, order: Order) -> Result<Self, Fault> {
        let bounds = (
            Bound::Included(start),
            end.map_or(Bound::Unbounded, Bound::Excluded),
        );
        let mut heads = Vec::with_capacity(3);
        for layer in view.layers.stack().filter(|layer| layer.touches(bounds)) {
            let (start, end) = (bounds.0.map(<[u8]>::to_vec), bounds.1.map(<[u8]>::to_vec));
            let source = Source::Layer(LayerRange::new(layer, view.at, order, start, end));
            heads.push(Head::first(source)?);
        }
        let base = &view.layers.base;
        if !base.is_known_empty(start, end) {
            let head = Head::first(Source::Base(base.range(bounds.0, bounds.1, order)?))?;
            if head.next.is_none() {
                base.found_empty(start, end)?;
            }
            heads.push(head);
        }
        Ok(Self { heads, order })
    }

    fn next(&mut self) -> Result<Option<(Vec<u8>, Write)>, Fault> {
        let Some(first) = self.first() else {
            return Ok(None);
        };
        let Some((key, write)) = self.heads[first].advance()? else {
            return Ok(None);
        };
        // Sources before `first` have no such key: it would have been taken from them.
        for older in &mut self.heads[first + 1..] {
            if older.key() == Some(&key) {
                older.advance()?;
            }
        }
        Ok(Some((key, write)))
    }

    /// The newest source among those whose next key comes first.
    fn first(&self) -> Option<usize> {
        let mut first: Option<(usize, &[u8])> = None;
        for (position, head) in self.heads.iter().enumerate() {
            let Some(key) = head.key() else {
                continue;
            };
            let comes_first = first.is_none_or(|(_, least)| match self.order {
                Order::Ascending => key < least,
                Order::Descending => key > least,
            });
            if comes_first {
                first = Some((position, key));
            }
        }
        first.map(|(position, _)| position)
    }
}

/// A view of a file without layers.
#[derive(Debug)]
pub(super) struct Fixed(pub(super) Arc<Base>);

impl Read for Fixed {
    fn get(&self, key: &[u8]) -> Result<Option<Value>, Fault> {
        self.0.get(key)
    }

    fn scan(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        order: Order,
        visit: &mut dyn FnMut(&[u8], &Value) -> Visit,
    ) -> Result<(), Fault> {
        if end.is_some_and(|end| end <= start) {
            return Ok(());
        }
        let end = end.map_or(Bound::Unbounded, Bound::Excluded);
        let mut range = self.0.range(Bound::Included(start), end, order)?;
        while let Some((key, value)) = range.next()? {
            if visit(&key, &value) == Visit::Stop {
                break;
            }
        }
        Ok(())
    }
}
