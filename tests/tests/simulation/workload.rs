//! Clients that add to the counter and read it, each through a session, for as long as they may.

use std::time::Duration;

use quorate_client::{Answer, Applied, CallError, Client, ConnectError, SeededRandomness};
use rand_chacha::ChaCha12Rng;
use rand_core::Rng;
use tokio::sync::watch;

use crate::checks::Checks;
use crate::cluster::{NODES, SESSION_TIMEOUT};
use crate::edge::{ClientTransport, client_endpoint};
use crate::ledger::{Floor, Ledger};
use crate::network::Net;
use crate::randomness::generator;
use crate::trace::{Party, Trace};

/// Clients that work at the same time.
pub const CLIENTS: u64 = 4;

/// What a client works with.
#[derive(Clone)]
pub struct Surroundings {
    pub seed: u64,
    pub net: Net,
    pub trace: Trace,
    pub checks: Checks,
    pub ledger: Ledger,
}

/// A client, with the commands whose outcome it does not know yet.
pub struct Worker {
    around: Surroundings,
    id: u64,
    random: ChaCha12Rng,
    client: Client,
    pending: Vec<Pending>,
}

struct Pending {
    before: Floor,
    amount: u64,
    request: quorate_client::protocol::RequestId,
}

impl Worker {
    /// A client with a session.
    pub async fn connect(around: Surroundings, id: u64) -> Result<Self, ConnectError> {
        let mut random = generator(around.seed, 100 + id);
        let client = connect(&around, id, &mut random).await?;
        Ok(Self {
            around,
            id,
            random,
            client,
            pending: Vec::new(),
        })
    }

    /// Works until told to stop; then asks for every outcome that it does not know.
    pub async fn run(mut self, stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            let draw = self.random.next_u32();
            if draw.is_multiple_of(5) {
                self.read().await;
            } else {
                self.add().await;
            }
            let pause = Duration::from_millis(u64::from(self.random.next_u32() % 300));
            tokio::time::sleep(pause).await;
        }
        self.settle().await;
    }

    /// Adds an amount of its own to the counter.
    pub async fn add(&mut self) {
        // Sums of different amounts differ, and thousands of them fit in 64 bits.
        let amount = self.random.next_u64() >> 16;
        let before = self.around.ledger.floor();
        let command = format!("{{\"add\":{amount}}}").into_bytes();
        let outcome = self.client.call_bytes(command).await;
        match outcome {
            Ok(applied) => self.applied(before, amount, &applied),
            Err(error) => self.failed(before, amount, error).await,
        }
    }

    /// Reads the counter; `None` if there was no answer.
    pub async fn read(&mut self) -> Option<u64> {
        let before = self.around.ledger.floor();
        match self.client.query_bytes(b"null".to_vec()).await {
            Ok(Answer {
                applied_index,
                answer,
            }) => {
                let value = number(&answer);
                self.event(format_args!("read {value} at {applied_index}"));
                self.around.ledger.read(before, value, applied_index.0);
                Some(value)
            }
            Err(CallError::SessionExpired { end, .. }) => {
                self.event(format_args!("session has ended: {end}"));
                self.again().await;
                None
            }
            Err(error) => {
                self.event(format_args!("read failed: {error}"));
                None
            }
        }
    }

    fn event(&self, what: impl std::fmt::Display) {
        self.around.trace.event(Party::Client(self.id), what);
    }

    fn applied(&self, before: Floor, amount: u64, applied: &Applied) {
        let value = number(&applied.response);
        let (request, index) = (applied.request_id, applied.commit_index);
        self.event(format_args!(
            "added {amount}: {value}, request {request} at {index}"
        ));
        self.around.ledger.acked(before, amount, value, index.0);
    }

    async fn failed(&mut self, before: Floor, amount: u64, error: CallError) {
        self.event(format_args!("add {amount} failed: {error}"));
        match error {
            CallError::OutcomeUnknown { request_id } => self.pending.push(Pending {
                before,
                amount,
                request: request_id,
            }),
            CallError::SessionExpired { .. } => {
                if error.is_outcome_unknown() {
                    self.around.ledger.unknown(amount);
                }
                self.again().await;
            }
            CallError::NotApplied { .. } => {}
            other => self.around.trace.violation(format_args!("{other}")),
        }
    }

    /// The session is gone, and with it what was known of its commands.
    async fn again(&mut self) {
        for pending in self.pending.drain(..) {
            self.around.ledger.unknown(pending.amount);
        }
        loop {
            match connect(&self.around, self.id, &mut self.random).await {
                Ok(client) => {
                    self.client = client;
                    return;
                }
                Err(error) => self.event(format_args!("no session: {error}")),
            }
        }
    }

    async fn settle(&mut self) {
        for pending in std::mem::take(&mut self.pending) {
            match self.client.outcome(pending.request).await {
                Ok(applied) => self.applied(pending.before, pending.amount, &applied),
                Err(error) => {
                    self.event(format_args!("outcome of {}: {error}", pending.request));
                    self.around.ledger.unknown(pending.amount);
                }
            }
        }
    }
}

async fn connect(
    around: &Surroundings,
    id: u64,
    random: &mut ChaCha12Rng,
) -> Result<Client, ConnectError> {
    let client = Client::builder(NODES.map(client_endpoint))
        .session_timeout(SESSION_TIMEOUT)
        .request_timeout(Duration::from_secs(1))
        .attempt_timeout(Duration::from_secs(1))
        .call_timeout(Duration::from_secs(8))
        .connect_timeout(Duration::from_secs(60))
        .transport(ClientTransport {
            net: around.net.clone(),
            trace: around.trace.clone(),
            client: id,
        })
        .randomness(SeededRandomness(random.next_u64()))
        .connect()
        .await?;
    let session = client.session_id().expect("a connected client has one");
    around.checks.holds(id, session);
    around
        .trace
        .event(Party::Client(id), format_args!("has session {session}"));
    Ok(client)
}

/// The counter's JSON.
fn number(json: &[u8]) -> u64 {
    let text = std::str::from_utf8(json).expect("the module answers in JSON");
    text.parse().expect("the counter answers a number")
}
