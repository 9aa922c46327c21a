//! Asking without a session: works on any node, also while none leads.

use std::{sync::Arc, time::Duration};

use quorate_protocol::v2::{ClientMessage, Consistency, ServerMessage};
use tokio::time::timeout;

use crate::{
    Answer, AttemptError, ConnectError, Link, Randomness, StaleQueryError, Topology, Transport,
    randomness, session::told,
};

/// Where and how to ask.
pub(crate) struct Asker {
    pub(crate) endpoints: Vec<String>,
    /// For each endpoint.
    pub(crate) attempt_timeout: Duration,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) randomness: Box<dyn Randomness>,
}

impl Asker {
    /// Who leads and where the members are, from the first node that answers.
    pub(crate) async fn topology(mut self) -> Result<Topology, ConnectError> {
        let asked = randomness::nonce(&mut *self.randomness);
        let request = ClientMessage::TopologyRequest { nonce: asked };
        let topology = self.ask(&request, |message| match message {
            ServerMessage::Topology {
                nonce,
                leader,
                members,
            } if nonce == asked => Some(Topology { leader, members }),
            _ => None,
        });
        topology
            .await
            .map_err(|last| ConnectError::TimedOut { last })
    }

    /// A query over what the first node that answers has applied.
    pub(crate) async fn query(self, payload: Vec<u8>) -> Result<Answer, StaleQueryError> {
        const ASKED: u64 = 1;
        let bytes = payload.len();
        let request = ClientMessage::Query {
            correlation: ASKED,
            consistency: Consistency::Stale,
            payload,
        };
        let answer = self.ask(&request, |message| match message {
            ServerMessage::QueryResponse {
                correlation: ASKED,
                applied_index,
                outcome,
            } => told(applied_index, outcome, bytes),
            // A node that is too busy now says so once; the next may not be.
            _ => None,
        });
        Ok(answer.await??)
    }

    /// Asks one node after the other until one gives an answer that `take` takes.
    async fn ask<T>(
        &self,
        request: &ClientMessage,
        take: impl Fn(ServerMessage) -> Option<T>,
    ) -> Result<T, AttemptError> {
        let mut last = AttemptError::Pending;
        for endpoint in &self.endpoints {
            let attempt = self.ask_one(endpoint.clone(), request, &take);
            match timeout(self.attempt_timeout, attempt).await {
                Ok(Ok(Some(answer))) => return Ok(answer),
                Ok(Err(error)) => last = error,
                Ok(Ok(None)) | Err(_) => {
                    let endpoint = endpoint.clone();
                    last = AttemptError::NoAnswer { endpoint };
                }
            }
        }
        Err(last)
    }

    /// `None` if the link ends without an answer.
    async fn ask_one<T>(
        &self,
        endpoint: String,
        request: &ClientMessage,
        take: impl Fn(ServerMessage) -> Option<T>,
    ) -> Result<Option<T>, AttemptError> {
        let Ok(frame) = request.encode() else {
            // Only a query can be too long, and then the node's word would be the same.
            return Ok(None);
        };
        let Link {
            outgoing,
            mut incoming,
        } = self.transport.connect(endpoint).await?;
        if outgoing.send(frame).await.is_err() {
            return Ok(None);
        }
        while let Some(frame) = incoming.recv().await {
            match ServerMessage::decode(&frame) {
                Ok(message) => {
                    if let Some(answer) = take(message) {
                        return Ok(Some(answer));
                    }
                }
                Err(error) => tracing::warn!(%error, "a node sent what cannot be read"),
            }
        }
        Ok(None)
    }
}
