//! Commands: exactly once per (session, request id), by the rules of Raft's dissertation, section
//! 6.3, with bounds.

use quorate_protocol::{Generation, RequestId, SessionId};

use super::Applying;
use super::invoke::tag;
use crate::entry::Sequence;
use crate::keys;
use crate::overlay::scan_through;
use crate::records::{CachedResponse, Progress, Record};
use crate::result::{OperationResult, Refusal, Response};
use crate::state::{Fault, Order, Visit};

/// A command's place in its session.
#[derive(Clone, Copy)]
pub(super) struct Id {
    pub(super) session: SessionId,
    pub(super) generation: Generation,
    pub(super) request: RequestId,
    pub(super) lowest_pending: RequestId,
}

/// Responses that leave the cache.
#[derive(Default)]
struct Eviction {
    requests: Vec<RequestId>,
    bytes: u64,
}

/// Up to this distance evicted ids are looked up one by one; beyond, by a scan.
const POINT_EVICTIONS_MAX: u64 = 64;

impl Applying<'_> {
    pub(super) fn command(&mut self, id: Id, payload: &[u8]) -> Result<OperationResult, Fault> {
        let progress = match self.unfenced(id.session, id.generation)? {
            Ok(progress) => progress,
            Err(refusal) => return Ok(OperationResult::Refused(refusal)),
        };
        let payload_hash = payload_hash(payload);
        if let Some(cached) = self.cached(id, &progress)? {
            if cached.response != Response::Void && cached.payload_hash != payload_hash {
                return Ok(OperationResult::Refused(Refusal::Conflict));
            }
            return Ok(self.answer_again(cached));
        }
        let eviction = match self.admit(id, &progress, Some(payload.len()))? {
            Ok(eviction) => eviction,
            Err(refusal) => return Ok(OperationResult::Refused(refusal)),
        };
        self.begin_execution(id, progress, eviction);
        let called = self.call_event(Some(id.session), tag::COMMAND, |input| {
            input.extend_from_slice(payload);
        })?;
        // Before the effects: one of them may end this very session, and its records with it.
        self.cache(id, payload_hash, &called.response)?;
        let response = self.settle(called)?;
        Ok(OperationResult::Responded {
            index: self.index,
            response,
        })
    }

    pub(super) fn void(&mut self, id: Id) -> Result<OperationResult, Fault> {
        let progress = match self.unfenced(id.session, id.generation)? {
            Ok(progress) => progress,
            Err(refusal) => return Ok(OperationResult::Refused(refusal)),
        };
        if let Some(cached) = self.cached(id, &progress)? {
            return Ok(self.answer_again(cached));
        }
        let eviction = match self.admit(id, &progress, None)? {
            Ok(eviction) => eviction,
            Err(refusal) => return Ok(OperationResult::Refused(refusal)),
        };
        self.begin_execution(id, progress, eviction);
        self.cache(id, [0; 16], &Response::Void)?;
        Ok(OperationResult::Responded {
            index: self.index,
            response: Response::Void,
        })
    }

    fn answer_again(&mut self, cached: CachedResponse) -> OperationResult {
        if self.are_responses_used() {
            return OperationResult::Refused(Refusal::Overloaded);
        }
        self.count_response(&cached.response);
        self.stats.cache_hits += 1;
        OperationResult::Responded {
            index: cached.index,
            response: cached.response,
        }
    }

    /// The session's progress, unless the session is gone or this connection is an older one.
    pub(super) fn unfenced(
        &mut self,
        session: SessionId,
        generation: Generation,
    ) -> Result<Result<Progress, Refusal>, Fault> {
        let Some(progress) = self.progress(session)? else {
            return Ok(Err(Refusal::NoSession));
        };
        if progress.generation != generation {
            return Ok(Err(Refusal::Fenced));
        }
        Ok(Ok(progress))
    }

    fn cached(&self, id: Id, progress: &Progress) -> Result<Option<CachedResponse>, Fault> {
        // What was never executed cannot be cached: spares the common case a look into the store.
        let is_new = progress.cached == 0
            || (progress.sequence == Sequence::Consecutive && id.request > progress.last_executed);
        if is_new {
            return Ok(None);
        }
        self.get(&keys::response(id.session, id.request))
    }

    /// The checks of a command that is not in the cache, in their order; an id that is given up has
    /// no payload. Changes nothing.
    fn admit(
        &self,
        id: Id,
        progress: &Progress,
        payload_bytes: Option<usize>,
    ) -> Result<Result<Eviction, Refusal>, Fault> {
        if id.request < progress.lowest_pending {
            return Ok(Err(Refusal::Evicted));
        }
        let next = RequestId(progress.last_executed.0.saturating_add(1));
        if progress.sequence == Sequence::Consecutive && id.request != next {
            return Ok(Err(Refusal::OutOfOrder { expected: next }));
        }
        if payload_bytes.is_some() && self.is_migrating() {
            return Ok(Err(Refusal::Migrating));
        }
        let bytes_max = self.limits.command_bytes_max;
        if payload_bytes.unwrap_or_default() as u64 > bytes_max {
            return Ok(Err(Refusal::TooLarge { bytes_max }));
        }
        if self.is_budget_used() {
            return Ok(Err(Refusal::Overloaded));
        }
        let eviction = self.eviction(id, progress)?;
        let cached = u64::from(progress.cached) - eviction.requests.len() as u64;
        let cached_bytes = progress.cached_bytes - eviction.bytes;
        if cached >= u64::from(self.limits.cached_responses_max)
            || cached_bytes >= self.limits.cached_bytes_max
        {
            return Ok(Err(Refusal::Overloaded));
        }
        Ok(Ok(eviction))
    }

    /// What leaves the cache if this command is executed: everything below the new mark.
    fn eviction(&self, id: Id, progress: &Progress) -> Result<Eviction, Fault> {
        let mut eviction = Eviction::default();
        let mark = id.lowest_pending.min(id.request);
        if progress.cached == 0 || mark <= progress.lowest_pending {
            return Ok(eviction);
        }
        if mark.0 - progress.lowest_pending.0 <= POINT_EVICTIONS_MAX {
            for request in (progress.lowest_pending.0..mark.0).map(RequestId) {
                let key = keys::response(id.session, request);
                if let Some(cached) = self.get::<CachedResponse>(&key)? {
                    eviction.requests.push(request);
                    eviction.bytes += cached.response.bytes();
                }
            }
            return Ok(eviction);
        }
        let start = keys::response(id.session, progress.lowest_pending);
        let end = keys::response(id.session, mark);
        let mut damaged = None;
        scan_through(
            &[&self.own],
            &**self.base,
            &start,
            Some(&end),
            Order::Ascending,
            &mut |key, value| match (keys::request_of(key), CachedResponse::from_bytes(value)) {
                (Some(request), Ok(cached)) => {
                    eviction.requests.push(request);
                    eviction.bytes += cached.response.bytes();
                    Visit::More
                }
                _ => {
                    damaged = Some(Fault::new(format!(
                        "the cached response under key {key:02x?} cannot be decoded"
                    )));
                    Visit::Stop
                }
            },
        )?;
        damaged.map_or(Ok(eviction), Err)
    }

    fn begin_execution(&mut self, id: Id, mut progress: Progress, eviction: Eviction) {
        progress.cached -= u32::try_from(eviction.requests.len()).unwrap_or(progress.cached);
        progress.cached_bytes -= eviction.bytes;
        self.stats.evictions += u32::try_from(eviction.requests.len()).unwrap_or(u32::MAX);
        for request in eviction.requests {
            self.own.delete(keys::response(id.session, request));
        }
        progress.lowest_pending = progress
            .lowest_pending
            .max(id.lowest_pending.min(id.request));
        progress.last_executed = progress.last_executed.max(id.request);
        self.put_progress(id.session, progress);
    }

    fn cache(&mut self, id: Id, payload_hash: [u8; 16], response: &Response) -> Result<(), Fault> {
        let Some(mut progress) = self.progress(id.session)? else {
            return Ok(());
        };
        progress.cached += 1;
        progress.cached_bytes += response.bytes();
        self.put_progress(id.session, progress);
        let cached = CachedResponse {
            payload_hash,
            index: self.index,
            response: response.clone(),
        };
        self.put(keys::response(id.session, id.request), &cached);
        Ok(())
    }
}

fn payload_hash(payload: &[u8]) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&blake3::hash(payload).as_bytes()[..16]);
    half
}
