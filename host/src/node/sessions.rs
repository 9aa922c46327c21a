//! What the node tells operators of sessions: from its state, and on the leader from its gateway.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use humantime_serde::re::humantime::format_rfc3339_millis;
use quorate_core::entry::Sequence;
use quorate_core::query;
use quorate_core::records::{Profile, Progress};
use quorate_core::state::Fault;
use quorate_protocol::SessionId;

use super::assembly::Assembly;
use crate::admin::{Live, Session, SessionError, SessionPage};
use crate::drive::Driver;
use crate::gateway::{self, CloseRefused, SessionStatus};
use crate::store::state::StateStore;

/// Bytes of profiles in one page, but for the last one's: capabilities may be long.
const PAGE_BYTES_MAX: usize = 1 << 20;

impl Assembly {
    /// The sessions after `after` in order of id, at most `limit` and a few megabytes.
    ///
    /// # Errors
    /// [`SessionError::Fault`].
    pub async fn sessions(
        &self,
        after: Option<SessionId>,
        limit: usize,
    ) -> Result<SessionPage, SessionError> {
        page(
            &self.driver,
            self.state(),
            Some(self.gateway()),
            after,
            limit,
        )
        .await
    }

    /// One session.
    ///
    /// # Errors
    /// [`SessionError::NoSession`], or [`SessionError::Fault`].
    pub async fn session(&self, session: SessionId) -> Result<Session, SessionError> {
        one(&self.driver, self.state(), Some(self.gateway()), session).await
    }

    /// Closes a session, as an administrator decides, and returns once it has ended.
    ///
    /// # Errors
    /// As [`SessionError`] says.
    pub async fn close_session(&self, session: SessionId) -> Result<(), SessionError> {
        let closed = self.gateway().close_session(session).await;
        closed.map_err(|refused| match refused {
            CloseRefused::NotLeader => self.not_leader(),
            CloseRefused::NoSession => SessionError::NoSession(session.to_string()),
            CloseRefused::Continued => SessionError::Continued,
            CloseRefused::Busy => SessionError::Busy,
            CloseRefused::Unknown => SessionError::OutcomeUnknown,
        })
    }

    fn not_leader(&self) -> SessionError {
        let (leader, admin) = self.consensus().other_leader();
        SessionError::NotLeader { leader, admin }
    }
}

/// A page of `state`, with what `gateway` knows if it leads.
pub(super) async fn page(
    driver: &Driver,
    state: &StateStore,
    gateway: Option<&gateway::Handle>,
    after: Option<SessionId>,
    limit: usize,
) -> Result<SessionPage, SessionError> {
    let store = state.clone();
    let read = driver.blocking(move || {
        // The index first: the view is then at least as new.
        let index = store.applied().map_or(0, |position| position.index);
        let page = query::sessions(&*store.view(), after, limit, PAGE_BYTES_MAX);
        page.map(|page| (index, page))
    });
    let (applied_index, page) = read.await.map_err(fault)?;
    let ids = page.sessions.iter().map(|(id, ..)| *id).collect();
    let mut live = live(gateway, ids).await;
    let sessions = page
        .sessions
        .into_iter()
        .map(|(id, profile, progress)| described(id, profile, progress, live.remove(&id)));
    Ok(SessionPage {
        applied_index,
        sessions: sessions.collect(),
        next: page.next.map(|next| next.to_string()),
    })
}

/// One session of `state`, with what `gateway` knows if it leads.
pub(super) async fn one(
    driver: &Driver,
    state: &StateStore,
    gateway: Option<&gateway::Handle>,
    session: SessionId,
) -> Result<Session, SessionError> {
    let store = state.clone();
    let read = driver.blocking(move || query::session(&*store.view(), session));
    let Some((profile, progress)) = read.await.map_err(fault)? else {
        return Err(SessionError::NoSession(session.to_string()));
    };
    let live = live(gateway, vec![session]).await.remove(&session);
    Ok(described(session, profile, progress, live))
}

async fn live(
    gateway: Option<&gateway::Handle>,
    sessions: Vec<SessionId>,
) -> BTreeMap<SessionId, SessionStatus> {
    let known = match gateway {
        Some(gateway) => gateway.sessions_among(sessions).await,
        None => None,
    };
    let known = known.unwrap_or_default().into_iter();
    known.map(|status| (status.session, status)).collect()
}

fn fault(fault: Fault) -> SessionError {
    SessionError::Fault(fault.message)
}

fn described(
    id: SessionId,
    profile: Profile,
    progress: Progress,
    live: Option<SessionStatus>,
) -> Session {
    Session {
        id: id.to_string(),
        capabilities: profile.capabilities,
        timeout_ms: profile.timeout_ms,
        generation: progress.generation.0,
        protocol_version: match progress.sequence {
            Sequence::Any => 1,
            Sequence::Consecutive => 2,
        },
        last_executed: progress.last_executed.0,
        lowest_pending: progress.lowest_pending.0,
        cached_responses: progress.cached,
        cached_bytes: progress.cached_bytes,
        pending_requests: progress.outbox,
        pending_request_bytes: progress.outbox_bytes,
        created_at: time(profile.created_us),
        live: live.map(|status| Live {
            connection: status.connection.map(|connection| connection.0),
            remote: status.remote,
            expires_in_ms: u64::try_from(status.expires_in.as_millis()).unwrap_or(u64::MAX),
            commands_in_flight: status.in_flight.commands,
            queries_in_flight: status.in_flight.queries,
            requests_in_flight: status.in_flight.requests,
        }),
    }
}

/// RFC 3339; years beyond 9999 are shown as the last.
pub(super) fn time(microseconds: u64) -> String {
    const LAST: u64 = 253_402_300_799_999_999;
    let since = Duration::from_micros(microseconds.min(LAST));
    format_rfc3339_millis(UNIX_EPOCH + since).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_times_are_shown() {
        assert_eq!(time(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(time(1_705_680_000_123_456), "2024-01-19T16:00:00.123Z");
        assert_eq!(time(u64::MAX), "9999-12-31T23:59:59.999Z");
    }
}
