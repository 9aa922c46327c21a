//! What applied entries tell the leader beside their results.

use quorate_core::apply::Notice;
use quorate_core::result::EndReason;
use quorate_protocol::SessionId;
use quorate_protocol::v2::SessionCloseReason;

use super::{Gateway, Role};
use crate::metrics::{Reason, Slug};

impl Gateway {
    pub(super) fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Requests(session) => self.send_requests(session),
            Notice::Ended(session, reason) => self.ended(session, reason),
            Notice::TimerSet { due_us } => {
                if let Role::Leading(leading) = &mut self.role {
                    leading.next_timer_us = Some(
                        leading
                            .next_timer_us
                            .map_or(due_us, |next| next.min(due_us)),
                    );
                }
            }
        }
    }

    fn ended(&mut self, session: SessionId, reason: EndReason) {
        let Role::Leading(leading) = &mut self.role else {
            return;
        };
        let live = leading.sessions.remove(&session);
        let by_administrator = live
            .as_ref()
            .is_some_and(|live| live.is_closed_by_administrator);
        let (slug, told) = match reason {
            // In the log it is a close like a client's.
            EndReason::ClosedByClient if by_administrator => (
                "closed-by-administrator",
                SessionCloseReason::ClosedByAdministrator,
            ),
            EndReason::ClosedByClient => ("closed-by-client", SessionCloseReason::ClosedByClient),
            EndReason::ClosedByModule => ("closed-by-module", SessionCloseReason::ClosedByModule),
            EndReason::Slow => ("slow", SessionCloseReason::Slow),
            EndReason::Expired => ("expired", SessionCloseReason::Expired),
        };
        if reason == EndReason::Expired {
            self.parts.metrics.sessions_expired.inc();
        } else {
            let label = Reason { reason: Slug(slug) };
            self.parts
                .metrics
                .sessions_closed
                .get_or_create(&label)
                .inc();
        }
        if let Some(id) = live.and_then(|live| live.connection) {
            self.close_session(id, told, None);
        }
    }
}
