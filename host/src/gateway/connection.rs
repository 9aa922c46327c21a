//! One connection of a client.

use std::collections::VecDeque;

use quorate_protocol::{Generation, RequestId, SessionId, Version, limits};

use super::queue::Queued;
use crate::drive::Instant;

/// What the gateway knows of a connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) remote: String,
    /// When it last said something, or was made.
    pub(super) heard_at: Instant,
    /// Known from the first message on.
    pub(super) version: Option<Version>,
    pub(super) bound: Option<Bound>,
    /// A create or continue is under way.
    pub(super) is_opening: bool,
    /// Its client, of version 1, was told who leads. If it asks here again, it cannot follow.
    pub(super) is_sent_away: bool,
    /// Its client has asked to close its session.
    pub(super) is_closing: bool,
    /// Operations waiting for a batch.
    pub(super) queue: VecDeque<Queued>,
    /// Whether it stands in the round of connections with something queued.
    pub(super) in_round: bool,
    /// Commands queued or in the log and not yet answered.
    pub(super) commands: Load,
    /// Queries not yet answered.
    pub(super) queries: Load,
    /// Version 2: the first command that was refused; later ones are refused until it comes again,
    /// so that no command overtakes another.
    refused_from: Option<RequestId>,
}

/// The session of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bound {
    pub(super) session: SessionId,
    pub(super) generation: Generation,
}

/// What one connection may have queued or in the log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Share {
    count: usize,
    bytes: usize,
}

impl Share {
    /// Its own limits.
    pub(super) const WHOLE: Self = Self {
        count: limits::SESSION_PENDING_MAX,
        bytes: limits::SESSION_PENDING_BYTES_MAX,
    };
    /// While all connections together have as much as they may: a little for each, so that a few
    /// that flood do not keep out the others.
    pub(super) const CROWDED: Self = Self {
        count: 16,
        bytes: 16 << 10,
    };
}

/// How many requests wait for their answers, and their bytes.
#[derive(Debug, Default)]
pub(super) struct Load {
    count: usize,
    bytes: usize,
}

impl Load {
    pub(super) fn has_room(&self, bytes: usize, count_max: usize, bytes_max: usize) -> bool {
        self.count < count_max && self.bytes + bytes <= bytes_max
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn add(&mut self, bytes: usize) {
        self.count += 1;
        self.bytes += bytes;
    }

    pub(super) fn remove(&mut self, bytes: usize) {
        self.count = self.count.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

impl Connection {
    pub(super) fn new(remote: String, now: Instant) -> Self {
        Self {
            remote,
            heard_at: now,
            version: None,
            bound: None,
            is_opening: false,
            is_sent_away: false,
            is_closing: false,
            queue: VecDeque::new(),
            in_round: false,
            commands: Load::default(),
            queries: Load::default(),
            refused_from: None,
        }
    }

    /// Whether it has neither a session nor asked for one, and said nothing since `since`.
    pub(super) fn is_idle_since(&self, since: Instant) -> bool {
        self.bound.is_none() && !self.is_opening && self.heard_at <= since
    }

    /// Whether a command of `bytes`, or the giving up of one, may be queued within `share`. A `false`
    /// is remembered.
    pub(super) fn admits(&mut self, request: RequestId, bytes: usize, share: Share) -> bool {
        let keeps_order = self.version == Some(Version::V2);
        if keeps_order && self.refused_from.is_some_and(|first| request > first) {
            return false;
        }
        let has_room = self.commands.has_room(bytes, share.count, share.bytes);
        if has_room {
            self.refused_from = None;
        } else if keeps_order {
            self.refuse_from(request);
        }
        has_room
    }

    /// Refuses later commands until this one comes again.
    pub(super) fn refuse_from(&mut self, request: RequestId) {
        self.refused_from = Some(
            self.refused_from
                .map_or(request, |first| first.min(request)),
        );
    }

    pub(super) fn count_command(&mut self, bytes: usize) {
        self.commands.add(bytes);
    }

    pub(super) fn discount_command(&mut self, bytes: usize) {
        self.commands.remove(bytes);
    }

    /// Whether a query of `bytes` may wait for its answer.
    pub(super) fn admits_query(&self, bytes: usize) -> bool {
        self.queries.has_room(
            bytes,
            limits::SESSION_PENDING_MAX,
            limits::SESSION_PENDING_BYTES_MAX,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_refusal_later_commands_wait_for_the_refused_one() {
        let mut connection =
            Connection::new(String::new(), crate::drive::Driver::simulation(0, 0).now());
        connection.version = Some(Version::V2);
        assert!(connection.admits(RequestId(1), 10, Share::WHOLE));
        connection.count_command(limits::SESSION_PENDING_BYTES_MAX);
        assert!(!connection.admits(RequestId(2), 10, Share::WHOLE));
        connection.discount_command(limits::SESSION_PENDING_BYTES_MAX);
        assert!(!connection.admits(RequestId(3), 10, Share::WHOLE));
        assert!(connection.admits(RequestId(2), 10, Share::WHOLE));
        assert!(connection.admits(RequestId(3), 10, Share::WHOLE));
    }

    #[test]
    fn version_1_promises_no_order() {
        let mut connection =
            Connection::new(String::new(), crate::drive::Driver::simulation(0, 0).now());
        connection.version = Some(Version::V1);
        connection.count_command(limits::SESSION_PENDING_BYTES_MAX);
        assert!(!connection.admits(RequestId(2), 10, Share::WHOLE));
        connection.discount_command(limits::SESSION_PENDING_BYTES_MAX);
        assert!(connection.admits(RequestId(3), 10, Share::WHOLE));
    }
}
