//! From a client without a session to one with it: creating and continuing.

use quorate_core::entry::{Operation, Sequence};
use quorate_core::query;
use quorate_protocol::v2::{RejectReason, ServerMessage};
use quorate_protocol::{Capabilities, CreationKey, Nonce, SessionId, SessionSecret};

use super::edge::ConnectionId;
use super::queue::{Origin, Queued};
use super::reads::Read;
use super::{Gateway, Role, wire};
use crate::metrics::{Reason, Slug};

/// Sessions that are not there, or not the asker's, for which a leader may be asked in a second; who asks
/// beyond that is told to try again later.
pub(super) const GUESSES_PER_SECOND: u64 = 1000;

/// What a client asks of a new session.
pub(super) struct Asked {
    pub(super) creation_key: CreationKey,
    pub(super) timeout_ms: u32,
    pub(super) sequence: Sequence,
    pub(super) capabilities: Capabilities,
}

/// What the state keeps of a secret; zeros for none.
fn hash_of(secret: &SessionSecret) -> [u8; 32] {
    if secret.is_none() {
        return [0; 32];
    }
    *blake3::hash(&secret.0).as_bytes()
}

impl Gateway {
    pub(super) fn create_session(&mut self, id: ConnectionId, nonce: Nonce, asked: Asked) {
        if self.refuses_opening(id, nonce) {
            return;
        }
        if let Err(error) = asked.capabilities.check() {
            let message = error.to_string();
            return self.reject(id, nonce, RejectReason::InvalidCapabilities, message);
        }
        if self.parts.reserve.is_low() {
            return self.reject(id, nonce, RejectReason::Overloaded, String::new());
        }
        let secret = self.new_secret(asked.sequence);
        let random = uuid::Builder::from_random_bytes(self.parts.driver.random());
        let operation = Operation::CreateSession {
            session: SessionId(random.into_uuid().into_bytes()),
            creation_key: asked.creation_key,
            secret_hash: hash_of(&secret),
            timeout_ms: asked.timeout_ms,
            sequence: asked.sequence,
            capabilities: asked.capabilities.0,
        };
        let origin = Origin::Create {
            connection: id,
            nonce,
            secret,
        };
        self.open(id, operation, origin);
    }

    /// What a client of version 2 proves with that a session is its own.
    fn new_secret(&self, sequence: Sequence) -> SessionSecret {
        match sequence {
            Sequence::Any => SessionSecret::NONE,
            Sequence::Consecutive => SessionSecret(self.parts.driver.random()),
        }
    }

    /// Whether a create or continue must be refused at once; its client is told.
    fn refuses_opening(&mut self, id: ConnectionId, nonce: Nonce) -> bool {
        if !matches!(self.role, Role::Leading(_)) {
            self.send_away(id, nonce);
            return true;
        }
        // A second create on one connection before the first is answered: the answer will come.
        self.connections
            .get(&id)
            .is_none_or(|connection| connection.is_opening)
    }

    pub(super) fn reject(
        &self,
        id: ConnectionId,
        nonce: Nonce,
        reason: RejectReason,
        message: String,
    ) {
        let label = Reason {
            reason: Slug(wire::reject_slug(reason)),
        };
        let rejected = &self.parts.metrics.sessions_rejected;
        rejected.get_or_create(&label).inc();
        let leader = match reason {
            RejectReason::NotLeader if self.leadership.is_leader => None,
            RejectReason::NotLeader => self.leader(),
            _ => None,
        };
        self.send(
            id,
            ServerMessage::SessionRejected {
                nonce,
                reason,
                leader,
                message,
            },
        );
    }

    pub(super) fn continue_session(
        &mut self,
        id: ConnectionId,
        session: Option<SessionId>,
        secret: SessionSecret,
        nonce: Nonce,
    ) {
        if self.refuses_opening(id, nonce) {
            return;
        }
        match self.may_continue(session, &secret) {
            Some(session) => self.open_again(id, session, nonce),
            // Certainty first: a leader that was deposed and does not know it must not tell a
            // client that its session is gone.
            None => {
                let now = self.parts.driver.now();
                if self.guess_limit.admit(now).is_none() {
                    self.reject(id, nonce, RejectReason::Overloaded, String::new());
                    return;
                }
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.is_opening = true;
                }
                self.read(Read::Continue {
                    connection: id,
                    session,
                    secret,
                    nonce,
                });
            }
        }
    }

    pub(super) fn open_again(&mut self, id: ConnectionId, session: SessionId, nonce: Nonce) {
        let origin = Origin::Continue {
            connection: id,
            nonce,
            session,
        };
        self.open(id, Operation::ContinueSession { session }, origin);
    }

    /// The session, if it exists here and the secret is its own. A session without a secret was
    /// made by a client of version 1.
    pub(super) fn may_continue(
        &self,
        session: Option<SessionId>,
        secret: &SessionSecret,
    ) -> Option<SessionId> {
        let Role::Leading(leading) = &self.role else {
            return None;
        };
        let session = session.filter(|session| leading.sessions.contains_key(session))?;
        match query::session(&*self.parts.state.view(), session) {
            Ok(Some((profile, _))) => {
                // Compared as a secret is: in the same time wherever the two differ.
                let own = SessionSecret(profile.secret_hash);
                (own.is_none() || own == SessionSecret(hash_of(secret))).then_some(session)
            }
            Ok(None) => None,
            Err(fault) => {
                self.parts.consensus.fail(fault);
                None
            }
        }
    }

    pub(super) fn open(&mut self, id: ConnectionId, operation: Operation, origin: Origin) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.is_opening = true;
            self.enqueue(id, Queued { operation, origin });
        }
    }
}
