//! Asking for the topology without a session: works while no node leads.

use std::{sync::Arc, time::Duration};

use quorate_protocol::v2::{ClientMessage, ServerMessage};
use tokio::time::timeout;

use crate::{AttemptError, ConnectError, Link, Randomness, Topology, Transport, randomness};

/// Asks one node after the other until one answers.
pub(crate) async fn ask(
    endpoints: Vec<String>,
    attempt_timeout: Duration,
    transport: Arc<dyn Transport>,
    mut randomness: Box<dyn Randomness>,
) -> Result<Topology, ConnectError> {
    let mut last = AttemptError::Pending;
    for endpoint in endpoints {
        let attempt = ask_one(endpoint.clone(), &*transport, &mut *randomness);
        match timeout(attempt_timeout, attempt).await {
            Ok(Ok(Some(topology))) => return Ok(topology),
            Ok(Err(error)) => last = error,
            Ok(Ok(None)) | Err(_) => last = AttemptError::NoAnswer { endpoint },
        }
    }
    Err(ConnectError::TimedOut { last })
}

/// `None` if the link ends without an answer.
async fn ask_one(
    endpoint: String,
    transport: &dyn Transport,
    randomness: &mut dyn Randomness,
) -> Result<Option<Topology>, AttemptError> {
    let asked = randomness::nonce(randomness);
    let request = ClientMessage::TopologyRequest { nonce: asked };
    let frame = request.encode().expect("a nonce always has an encoding");
    let Link {
        outgoing,
        mut incoming,
    } = transport.connect(endpoint).await?;
    if outgoing.send(frame).await.is_err() {
        return Ok(None);
    }
    while let Some(frame) = incoming.recv().await {
        match ServerMessage::decode(&frame) {
            Ok(ServerMessage::Topology {
                nonce,
                leader,
                members,
            }) if nonce == asked => {
                return Ok(Some(Topology { leader, members }));
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "a node sent what cannot be read"),
        }
    }
    Ok(None)
}
