//! Sessions: created, continued, closed and expired by log entries.

use std::collections::BTreeMap;

use quorate_protocol::{CreationKey, Generation, RequestId, SessionId};

use super::invoke::tag;
use super::{Applying, Notice};
use crate::entry::Sequence;
use crate::keys;
use crate::overlay::scan_through;
use crate::records::{OutboxEntry, Profile, Progress, References};
use crate::result::{EndReason, OperationResult, Refusal, Response};
use crate::state::{Fault, Order, Visit};

/// What a client asks of a new session.
pub(super) struct Asked {
    pub(super) timeout_ms: u32,
    pub(super) sequence: Sequence,
}

/// Bytes of an outbox entry that count against its limit beside the payload.
const OUTBOX_RECORD_BYTES: u64 = 64;

impl Applying<'_> {
    pub(super) fn create(
        &mut self,
        session: SessionId,
        creation_key: CreationKey,
        secret_hash: [u8; 32],
        asked: Asked,
        capabilities: &BTreeMap<String, String>,
    ) -> Result<OperationResult, Fault> {
        let has_key = creation_key.0 != [0; 16];
        if has_key
            && let Some(existing) = self.get::<SessionId>(&keys::creation_key(&creation_key))?
        {
            return self.create_again(existing, secret_hash);
        }
        if self.is_migrating() {
            // The module decides on each session, and there is none to ask.
            return Ok(OperationResult::Refused(Refusal::Migrating));
        }
        if self.meta.sessions >= self.limits.sessions_max {
            return Ok(OperationResult::Refused(Refusal::TooManySessions));
        }
        if self.is_budget_used() {
            return Ok(OperationResult::Refused(Refusal::Overloaded));
        }
        if self.progress(session)?.is_some() {
            // The leader drew an id that exists: it draws another one.
            return Ok(OperationResult::Refused(Refusal::Overloaded));
        }
        let timeout_ms = self.limits.session_timeout(asked.timeout_ms);
        let progress = Progress::new(asked.sequence);
        let generation = progress.generation;
        let profile = Profile {
            created_us: self.meta.time_us,
            timeout_ms,
            creation_key,
            secret_hash,
            capabilities: capabilities.clone(),
        };
        // The records come first, so that the hook can already send requests to the session.
        self.put(keys::profile(session), &profile);
        self.put_progress(session, progress);
        if has_key {
            self.put(keys::creation_key(&creation_key), &session);
        }
        self.meta.sessions += 1;
        let called = self.call_event(Some(session), tag::SESSION_CREATED, |input| {
            write_capabilities(input, capabilities);
        })?;
        if !matches!(called.response, Response::Success(_)) {
            self.forget(session, &profile, &progress)?;
            return Ok(OperationResult::Rejected(called.response));
        }
        self.settle(called)?;
        Ok(OperationResult::Created {
            session,
            generation,
            timeout_ms,
        })
    }

    /// The answer to the first create was lost: the same session, over a new connection. The secret
    /// was lost with it, so that of the new answer replaces it; the creation key proves the client.
    fn create_again(
        &mut self,
        session: SessionId,
        secret_hash: [u8; 32],
    ) -> Result<OperationResult, Fault> {
        let key = keys::profile(session);
        if let Some(mut profile) = self.get::<Profile>(&key)?
            && profile.secret_hash != secret_hash
        {
            profile.secret_hash = secret_hash;
            self.put(key, &profile);
        }
        match self.continue_session(session)? {
            OperationResult::Continued {
                generation,
                timeout_ms,
                ..
            } => Ok(OperationResult::Created {
                session,
                generation,
                timeout_ms,
            }),
            other => Ok(other),
        }
    }

    pub(super) fn continue_session(
        &mut self,
        session: SessionId,
    ) -> Result<OperationResult, Fault> {
        let (Some(mut progress), Some(profile)) = (
            self.progress(session)?,
            self.get::<Profile>(&keys::profile(session))?,
        ) else {
            return Ok(OperationResult::Refused(Refusal::NoSession));
        };
        progress.generation = Generation(progress.generation.0 + 1);
        self.put_progress(session, progress);
        Ok(OperationResult::Continued {
            generation: progress.generation,
            last_executed: progress.last_executed,
            lowest_pending: progress.lowest_pending,
            timeout_ms: profile.timeout_ms,
        })
    }

    /// Close and expire.
    pub(super) fn end(
        &mut self,
        session: SessionId,
        generation: Generation,
        reason: EndReason,
    ) -> Result<OperationResult, Fault> {
        if let Err(refusal) = self.unfenced(session, generation)? {
            return Ok(OperationResult::Refused(match (refusal, reason) {
                // The leader decided on a generation that has moved on: the session lives.
                (_, EndReason::Expired) => Refusal::Superseded,
                (refusal, _) => refusal,
            }));
        }
        if reason == EndReason::Expired && self.is_budget_used() {
            // Stays due: the leader sees it in the result.
            return Ok(OperationResult::Refused(Refusal::Overloaded));
        }
        self.end_now(session, reason)?;
        Ok(OperationResult::Ended(reason))
    }

    /// Ends a session, if it exists, and lets the module know. A hook that ends further sessions is
    /// followed by theirs, in order, without recursion.
    pub(super) fn end_now(&mut self, session: SessionId, reason: EndReason) -> Result<(), Fault> {
        self.ending.push_back((session, reason));
        if self.ending.len() > 1 {
            return Ok(());
        }
        // The session at the front stays there while its hook runs: that is what tells an outer
        // call from an inner one.
        while let Some((session, reason)) = self.ending.front().copied() {
            self.end_one(session, reason)?;
            self.ending.pop_front();
        }
        Ok(())
    }

    /// Core's writes stay when the hook fails; otherwise a failing hook would be called for ever.
    fn end_one(&mut self, session: SessionId, reason: EndReason) -> Result<(), Fault> {
        let (Some(progress), Some(profile)) = (
            self.progress(session)?,
            self.get::<Profile>(&keys::profile(session))?,
        ) else {
            return Ok(());
        };
        self.forget(session, &profile, &progress)?;
        self.notices.push(Notice::Ended(session, reason));
        self.hook(Some(session), tag::SESSION_EXPIRED, |input| {
            input.push(reason as u8);
            write_capabilities(input, &profile.capabilities);
        })
    }

    /// Removes everything that core keeps of a session.
    fn forget(
        &mut self,
        session: SessionId,
        profile: &Profile,
        progress: &Progress,
    ) -> Result<(), Fault> {
        self.own.delete(keys::profile(session));
        self.remove_progress(session);
        if profile.creation_key.0 != [0; 16] {
            self.own.delete(keys::creation_key(&profile.creation_key));
        }
        if progress.cached > 0 {
            let start = keys::response(session, RequestId(0));
            let end = keys::response(session, RequestId(u64::MAX));
            let mut responses = vec![end.clone()];
            scan_through(
                &[&self.own],
                &**self.base,
                &start,
                Some(&end),
                Order::Ascending,
                &mut |key, _| {
                    responses.push(key.to_vec());
                    Visit::More
                },
            )?;
            responses.into_iter().for_each(|key| self.own.delete(key));
        }
        self.trim_outbox(session, progress, progress.last_request)?;
        self.meta.sessions -= 1;
        Ok(())
    }

    pub(super) fn acknowledge(
        &mut self,
        session: SessionId,
        generation: Generation,
        up_to: RequestId,
    ) -> Result<OperationResult, Fault> {
        let mut progress = match self.unfenced(session, generation)? {
            Ok(progress) => progress,
            Err(refusal) => return Ok(OperationResult::Refused(refusal)),
        };
        let first = progress.first_unacknowledged();
        let up_to = up_to.min(progress.last_request);
        if up_to >= first {
            let (requests, bytes) = self.trim_outbox(session, &progress, up_to)?;
            progress.outbox -= requests;
            progress.outbox_bytes -= bytes;
            self.put_progress(session, progress);
            self.hook(Some(session), tag::REQUEST_ACKNOWLEDGED, |input| {
                input.extend_from_slice(&up_to.0.to_le_bytes());
            })?;
        }
        Ok(OperationResult::Acknowledged { up_to })
    }

    /// Removes the requests up to `up_to` from an outbox; returns how many and their bytes.
    fn trim_outbox(
        &mut self,
        session: SessionId,
        progress: &Progress,
        up_to: RequestId,
    ) -> Result<(u32, u64), Fault> {
        let (mut requests, mut bytes) = (0, 0);
        for request in progress.first_unacknowledged().0..=up_to.0 {
            let key = keys::outbox(session, RequestId(request));
            let Some(entry) = self.get::<OutboxEntry>(&key)? else {
                return Err(Fault::new(format!(
                    "request {request} of {session} is missing"
                )));
            };
            self.own.delete(key);
            self.release(entry.payload)?;
            requests += 1;
            bytes += u64::from(entry.bytes) + OUTBOX_RECORD_BYTES;
        }
        Ok((requests, bytes))
    }

    /// Drops one reference to a shared payload.
    fn release(&mut self, (index, position, number): (u64, u32, u32)) -> Result<(), Fault> {
        let count = keys::payload_references(index, position, number);
        match self.get::<References>(&count)? {
            // The last two: the count of one is the payload's being there.
            Some(References(2)) => self.own.delete(count),
            Some(References(references)) => self.put(count, &References(references - 1)),
            None => self.own.delete(keys::payload(index, position, number)),
        }
        Ok(())
    }

    /// Puts a request in a session's outbox. `false` if the session does not exist; one that is then
    /// over its limit must be ended by the caller.
    pub(super) fn enqueue(
        &mut self,
        session: SessionId,
        entry: &OutboxEntry,
    ) -> Result<Enqueued, Fault> {
        let Some(mut progress) = self.progress(session)? else {
            return Ok(Enqueued::NoSession);
        };
        progress.last_request = RequestId(progress.last_request.0 + 1);
        progress.outbox += 1;
        progress.outbox_bytes += u64::from(entry.bytes) + OUTBOX_RECORD_BYTES;
        self.put(keys::outbox(session, progress.last_request), entry);
        self.put_progress(session, progress);
        if progress.outbox > self.limits.outbox_requests_max
            || progress.outbox_bytes > self.limits.outbox_bytes_max
        {
            return Ok(Enqueued::OverLimit);
        }
        Ok(Enqueued::Queued)
    }
}

/// What became of a request to a session.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Enqueued {
    Queued,
    OverLimit,
    NoSession,
}

fn write_capabilities(input: &mut Vec<u8>, capabilities: &BTreeMap<String, String>) {
    // Lengths are limited far below 4 GiB where capabilities enter.
    input.extend_from_slice(&(capabilities.len() as u32).to_le_bytes());
    for text in capabilities.iter().flat_map(|(key, value)| [key, value]) {
        input.extend_from_slice(&(text.len() as u32).to_le_bytes());
        input.extend_from_slice(text.as_bytes());
    }
}
