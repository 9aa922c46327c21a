//! Clients that work through a session each for as long as they may, and note what they are told.

use std::time::Duration;

use quorate_client::protocol::RequestId;
use quorate_client::{
    Answer, Applied, Builder, CallError, Client, ConnectError, Rejection, SeededRandomness,
    SessionEnd,
};
use rand_chacha::ChaCha12Rng;
use rand_core::Rng;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::cluster::SESSION_TIMEOUT;
use crate::deliveries::Deliveries;
use crate::edge::{ClientTransport, client_endpoint};
use crate::history::{Execution, History, Outcome, Truth};
use crate::invariants::Invariants;
use crate::model::{Action, Query};
use crate::network::Net;
use crate::randomness::generator;
use crate::trace::{Party, Trace};

/// Clients that work at the same time.
pub const CLIENTS: u64 = 6;
/// Of these, some only read, and often: nothing but an answer tells them of a new leader.
const READERS: [u64; 2] = [4, 5];
/// This one hardly asks for anything: it keeps its session alive.
const IDLE: u64 = 6;
/// Registers.
const REGISTERS: u32 = 3;

/// What a client works with.
#[derive(Clone)]
pub struct Surroundings {
    pub seed: u64,
    pub nodes: Vec<u64>,
    pub net: Net,
    pub trace: Trace,
    pub invariants: Invariants,
    pub history: History,
}

/// A client, with the commands whose outcome it does not know yet.
pub struct Worker {
    around: Surroundings,
    id: u64,
    random: ChaCha12Rng,
    client: Client,
    deliveries: Deliveries,
    pending: Vec<(u64, RequestId)>,
    /// Whether another process had the session before, which may use the same request ids.
    is_continued: bool,
}

impl Worker {
    /// A client with a session.
    pub async fn connect(around: Surroundings, id: u64) -> Result<Self, ConnectError> {
        let mut random = generator(around.seed, 100 + id);
        let (client, deliveries) = connect(&around, id, &mut random).await?;
        Ok(Self {
            around,
            id,
            random,
            client,
            deliveries,
            pending: Vec::new(),
            is_continued: false,
        })
    }

    /// Works until told to stop; then asks for every outcome that it does not know.
    pub async fn run(mut self, stop: watch::Receiver<bool>) -> Self {
        let only_reads = READERS.contains(&self.id);
        if !only_reads && self.id != IDLE {
            self.command(Action::Subscribe).await;
        }
        while !*stop.borrow() {
            let draw = self.random.next_u32() % 100;
            let pause_ms_max = if self.id == IDLE {
                self.read_something().await;
                20_000
            } else if only_reads {
                self.read_something().await;
                120
            } else {
                self.work(draw).await;
                300
            };
            let pause = Duration::from_millis(u64::from(self.random.next_u32() % pause_ms_max));
            let mut stopped = stop.clone();
            tokio::select! {
                biased;
                _ = stopped.wait_for(|stopped| *stopped) => break,
                () = tokio::time::sleep(pause) => {}
            }
        }
        self.settle().await;
        self
    }

    async fn work(&mut self, draw: u32) {
        let number = self.random.next_u64() >> 16;
        let register = self.random.next_u32() % REGISTERS;
        let action = match draw {
            0..20 => return self.read_something().await,
            20..24 => return self.burst().await,
            24 => return self.restart().await,
            25..45 => Action::Add(number),
            45..60 => Action::Put(register, number),
            60..70 => match self.read(Query::Register(register)).await {
                Some(expected) => Action::Swap(register, expected, number),
                None => return,
            },
            70..82 => Action::Broadcast,
            82..88 => Action::Timer(number % 4_000),
            88..92 => Action::Trap,
            92..96 => Action::Fail,
            _ => Action::Fill(1 + (number % 6_000) as u32),
        };
        self.command(action).await;
    }

    async fn read_something(&mut self) {
        let query = match self.random.next_u32() % (REGISTERS + 1) {
            REGISTERS.. => Query::Total,
            register => Query::Register(register),
        };
        self.read(query).await;
    }

    /// Several commands at once.
    async fn burst(&mut self) {
        let count = 2 + self.random.next_u32() % 4;
        let calls: Vec<_> = (0..count)
            .map(|_| {
                let action = Action::Add(self.random.next_u64() >> 16);
                let number = self.around.history.invoke(action);
                let client = self.client.clone();
                async move { (number, client.call_bytes(action.encode(number)).await) }
            })
            .collect();
        self.around.trace.count("burst of commands");
        let mut is_over = false;
        for (number, outcome) in futures::future::join_all(calls).await {
            is_over |= self.told(number, outcome);
        }
        if is_over {
            self.again().await;
        }
    }

    /// Another process goes on with the session, while commands of the first are under way: their
    /// outcomes stay unknown, and they must not be in the way of the other's.
    async fn restart(&mut self) {
        let Some((session, secret)) = self.client.session() else {
            return;
        };
        for _ in 0..3 {
            let action = Action::Add(self.random.next_u64() >> 16);
            let number = self.around.history.invoke(action);
            let client = self.client.clone();
            tokio::spawn(async move { drop(client.call_bytes(action.encode(number)).await) });
        }
        let under_way_ms = u64::from(self.random.next_u32() % 8);
        tokio::time::sleep(Duration::from_millis(under_way_ms)).await;
        self.pending.clear();
        self.event("goes on with its session in another process");
        let resumed = builder(&self.around, self.id, &mut self.random).resume(session, secret);
        match resumed.connect().await {
            Ok(client) => {
                self.around
                    .trace
                    .count("session continued by another process");
                // The first process may go on for a while; it must not be heard any more.
                self.client = client;
                self.is_continued = true;
                let random = generator(self.random.next_u64(), 1);
                self.deliveries.take_from(&self.client, random);
            }
            Err(error) => {
                self.event(format_args!("not continued: {error}"));
                self.again().await;
                Box::pin(self.command(Action::Subscribe)).await;
            }
        }
    }

    /// Has a command executed.
    pub async fn command(&mut self, action: Action) -> Option<u64> {
        let number = self.around.history.invoke(action);
        let outcome = self.client.call_bytes(action.encode(number)).await;
        let response = outcome.as_ref().ok().map(response);
        if let (Action::Subscribe, Some(broadcasts)) = (action, response) {
            self.deliveries.subscribed_after(broadcasts);
        }
        if self.told(number, outcome) {
            self.again().await;
            if action == Action::Subscribe {
                return None;
            }
            Box::pin(self.command(Action::Subscribe)).await;
        }
        response
    }

    /// Reads; `None` if there was no answer.
    pub async fn read(&mut self, query: Query) -> Option<u64> {
        let invoked = self.around.trace.tick();
        let (answer, index) = self.ask(query.encode()).await?;
        let value = answer["number"].as_u64().expect("a number");
        self.event(format_args!("read {query:?}: {value} at {index}"));
        self.around.history.read(query, invoked, value, index);
        Some(value)
    }

    /// Asks a query; the answer, and the index of what it has seen.
    async fn ask(&mut self, query: Vec<u8>) -> Option<(Value, u64)> {
        match self.client.query_bytes(query).await {
            Ok(Answer {
                applied_index,
                answer,
            }) => {
                let answer = serde_json::from_slice(&answer).expect("the module answers in JSON");
                Some((answer, applied_index.0))
            }
            Err(CallError::SessionExpired { end, .. }) => {
                self.event(format_args!("session has ended: {end}"));
                self.ended(&end);
                self.again().await;
                None
            }
            Err(error) => {
                self.event(format_args!("read failed: {error}"));
                None
            }
        }
    }

    /// Everything that took effect and every timer that fired, by the module's account.
    pub async fn truth(&mut self) -> Option<Truth> {
        let (layout, _) = self.ask(b"\"layout\"".to_vec()).await?;
        let mut truth = Truth {
            layout: number(&layout["number"]),
            ..Truth::default()
        };
        let mut from = 0;
        loop {
            let query = json!({"executed": from});
            let (page, index) = self.ask(serde_json::to_vec(&query).ok()?).await?;
            truth.index = index;
            let page = page["executed"].as_array().expect("a page").clone();
            let Some(last) = page.last() else { break };
            from = number(&last[0]) + 1;
            for entry in &page {
                let execution = Execution {
                    times: number(&entry[1]["times"]),
                    index: number(&entry[1]["index"]),
                    position: number(&entry[1]["position"]),
                    layout: number(&entry[1]["layout"]),
                };
                truth.executed.insert(number(&entry[0]), execution);
            }
        }
        let (fired, _) = self.ask(b"\"fired\"".to_vec()).await?;
        for entry in fired["fired"].as_array().expect("firings") {
            let firing = &entry[1];
            let firing = (
                number(&firing["due"]),
                number(&firing["at"]),
                number(&firing["times"]),
            );
            truth.fired.insert(number(&entry[0]), firing);
        }
        Some(truth)
    }

    /// The process that the session was continued from may have come back for it: then there is
    /// nothing to wait for, and this client opens another one.
    pub async fn see_whether_superseded(&mut self) {
        if self.is_continued {
            self.read_something().await;
        }
    }

    /// Whether everything was delivered that had to be, when there were this many broadcasts.
    pub fn is_delivered(&self, broadcasts: u64) -> bool {
        self.deliveries.is_complete(broadcasts)
    }

    /// For people.
    pub fn name(&self) -> Party {
        Party::Client(self.id)
    }

    fn event(&self, what: impl std::fmt::Display) {
        self.around.trace.event(Party::Client(self.id), what);
    }

    /// Notes what became of a command. Whether the session is gone.
    fn told(&mut self, number: u64, outcome: Result<Applied, CallError>) -> bool {
        let history = &self.around.history;
        match outcome {
            Ok(applied) => {
                let (value, index) = (response(&applied), applied.commit_index);
                self.event(format_args!("command {number}: {value} at {index}"));
                let (response, index) = (value, index.0);
                history.outcome(number, Outcome::Applied { response, index });
                false
            }
            Err(error) => {
                self.event(format_args!("command {number}: {error}"));
                match error {
                    CallError::OutcomeUnknown { request_id } => {
                        self.around.trace.count("outcome unknown in time");
                        self.pending.push((number, request_id));
                    }
                    // The process that it was continued from came back and used the id first.
                    CallError::Rejected {
                        rejection: Rejection::Conflict,
                        ..
                    } if self.is_continued => {
                        self.around.trace.count("request id used by both processes");
                        history.outcome(number, Outcome::NotApplied);
                    }
                    CallError::Rejected { commit_index, .. } if !error.is_outcome_unknown() => {
                        let index = commit_index.map(|index| index.0);
                        history.outcome(number, Outcome::Rejected { index });
                    }
                    CallError::SessionExpired { end, request_id } => {
                        self.ended(&end);
                        if request_id.is_none() {
                            history.outcome(number, Outcome::NotApplied);
                        }
                        return true;
                    }
                    CallError::NotApplied { .. } => {
                        history.outcome(number, Outcome::NotApplied);
                    }
                    other => self.around.trace.violation(format_args!("{other}")),
                }
                false
            }
        }
    }

    /// This client is told that its session has ended.
    fn ended(&self, end: &SessionEnd) {
        match (end, self.client.session_id()) {
            (SessionEnd::Expired, Some(session)) => {
                self.around.invariants.told_expired(self.id, session);
            }
            // The process that it was continued from may have come back once more.
            (SessionEnd::Superseded, _) => self.around.trace.count("session superseded"),
            (SessionEnd::Expired, None) => {}
            (other, _) => self.around.trace.violation(format_args!(
                "sessions: client {} is told that its session has ended: {other}",
                self.id
            )),
        }
    }

    /// The session is gone, and with it what was known of its commands.
    async fn again(&mut self) {
        self.pending.clear();
        loop {
            match connect(&self.around, self.id, &mut self.random).await {
                Ok((client, deliveries)) => {
                    self.client = client;
                    self.is_continued = false;
                    self.deliveries = deliveries;
                    return;
                }
                Err(error) => self.event(format_args!("no session: {error}")),
            }
        }
    }

    async fn settle(&mut self) {
        for (number, request) in std::mem::take(&mut self.pending) {
            let outcome = self.client.outcome(request).await;
            self.around.trace.count("unknown outcome asked for");
            if self.told(number, outcome) {
                return self.again().await;
            }
        }
    }
}

fn builder(around: &Surroundings, id: u64, random: &mut ChaCha12Rng) -> Builder {
    let endpoints: Vec<String> = around
        .nodes
        .iter()
        .map(|node| client_endpoint(*node))
        .collect();
    Client::builder(endpoints)
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
}

async fn connect(
    around: &Surroundings,
    id: u64,
    random: &mut ChaCha12Rng,
) -> Result<(Client, Deliveries), ConnectError> {
    let client = builder(around, id, random).connect().await?;
    let session = client.session_id().expect("a connected client has one");
    around.net.new_session(id);
    around.invariants.holds(id, session);
    around
        .trace
        .event(Party::Client(id), format_args!("has session {session}"));
    let deliveries = Deliveries::new(id, &around.trace);
    deliveries.take_from(&client, generator(random.next_u64(), 1));
    Ok((client, deliveries))
}

fn response(applied: &Applied) -> u64 {
    let response: Value = serde_json::from_slice(&applied.response).expect("JSON");
    number(&response)
}

fn number(value: &Value) -> u64 {
    value.as_u64().expect("the module answers with a number")
}
