//! Requests to clients: one sender per connection reads the outbox in order, with a cursor.

use std::time::Duration;

use quorate_core::query;
use quorate_protocol::SessionId;
use quorate_protocol::v2::ServerMessage;

use super::{Gateway, Role};

/// Unacknowledged requests are looked for at least this often.
const RESEND_ROUND_MAX: Duration = Duration::from_secs(1);

impl Gateway {
    /// Sends what the session's outbox holds, as far as its connection has room.
    pub(super) fn send_requests(&mut self, session: SessionId) {
        let now = self.parts.driver.now();
        let Role::Leading(leading) = &mut self.role else {
            return;
        };
        let Some(live) = leading.sessions.get_mut(&session) else {
            return;
        };
        let (Some(connection), Some((count, bytes))) = (live.connection, live.sender.room()) else {
            return;
        };
        let view = self.parts.state.view();
        let first = match live.sender.next {
            Some(next) => next,
            None => match query::session(&*view, session) {
                Ok(Some((_, progress))) => progress.first_unacknowledged(),
                Ok(None) => return,
                Err(fault) => return self.parts.consensus.fail(fault),
            },
        };
        let requests = match query::outbox(&*view, session, first, count, bytes) {
            Ok(requests) => requests,
            Err(fault) => return self.parts.consensus.fail(fault),
        };
        for request in &requests {
            live.sender.sent(request.id, request.payload.len(), now);
        }
        for request in requests {
            self.parts.metrics.server_requests_dispatched.inc();
            self.send(
                connection,
                ServerMessage::ServerRequest {
                    request: request.id,
                    created_at: i64::try_from(request.created_us / 1000).unwrap_or(i64::MAX),
                    payload: request.payload.to_vec(),
                },
            );
        }
    }

    /// Sends again, from the first unacknowledged, what was not acknowledged for the interval, and a
    /// random part of it more, so that clients do not ask in step.
    pub(super) fn resend_requests(&mut self) {
        let now = self.parts.driver.now();
        let interval = self.parts.options.request_retry_interval;
        let jitter = interval.mul_f64(f64::from(self.parts.driver.random::<1>()[0]) / 1024.0);
        let Role::Leading(leading) = &mut self.role else {
            return;
        };
        if now < leading.resend_at {
            return;
        }
        leading.resend_at = now + (interval / 4).min(RESEND_ROUND_MAX);
        let mut late = Vec::new();
        for (session, live) in &mut leading.sessions {
            if live
                .sender
                .oldest_sent
                .is_some_and(|sent| sent + interval + jitter <= now)
            {
                live.sender.restart();
                late.push(*session);
            }
        }
        for session in late {
            self.send_requests(session);
        }
    }
}
