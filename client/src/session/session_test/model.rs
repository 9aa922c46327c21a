//! Random runs against a model of the cluster, on a network that loses, delays and duplicates.
//!
//! The model keeps the rules of docs/protocol.md; it is refused, redirected and forgotten at random.
//! Whatever happens, once the faults stop every call must end, each command must have been executed
//! at most once and in the order of the calls, and what the caller was told must be true.

use std::collections::{BTreeMap, VecDeque};

use super::*;

const SEEDS: u64 = 300;
const CALLS: u64 = 60;

#[test]
fn every_command_is_executed_once_and_in_order_whatever_is_lost() {
    for seed in 0..SEEDS {
        Run::new(seed).run();
    }
}

/// A frame on its way to the cluster, and the link it came by.
type Arriving = (u64, ClientMessage);

struct Run {
    seed: u64,
    randomness: SeededRandomness,
    rig: Rig,
    cluster: Cluster,
    calls: Vec<Call>,
    outcomes: BTreeMap<u64, Result<Applied, CallError>>,
    /// The link the client holds, if any; each has its own number.
    link: u64,
    open: bool,
    to_cluster: VecDeque<Arriving>,
    /// Accepted by a node, but applied later or never.
    limbo: Vec<Arriving>,
    to_client: VecDeque<ServerMessage>,
    faults: bool,
}

#[derive(Default)]
struct Cluster {
    key: Option<CreationKey>,
    generation: u64,
    /// The link that the newest generation came by.
    link: u64,
    last: u64,
    mark: u64,
    cache: BTreeMap<u64, (Option<Vec<u8>>, u64, Outcome)>,
    log: Vec<Vec<u8>>,
}

impl Cluster {
    fn apply(&mut self, link: u64, message: &ClientMessage) -> Option<ServerMessage> {
        match message {
            ClientMessage::CreateSession {
                nonce,
                creation_key,
                ..
            } => {
                assert_eq!(*self.key.get_or_insert(*creation_key), *creation_key);
                self.bind(link);
                Some(ServerMessage::SessionCreated {
                    nonce: *nonce,
                    session: SESSION,
                    secret: SECRET,
                    generation: Generation(self.generation),
                    timeout_ms: 3_600_000,
                })
            }
            ClientMessage::ContinueSession { nonce, .. } => {
                self.bind(link);
                Some(ServerMessage::SessionContinued {
                    nonce: *nonce,
                    generation: Generation(self.generation),
                    last_executed: RequestId(self.last),
                    highest_lowest_pending: RequestId(self.mark),
                    timeout_ms: 3_600_000,
                })
            }
            ClientMessage::KeepAlive { timestamp } => Some(ServerMessage::KeepAliveResponse {
                timestamp: *timestamp,
            }),
            ClientMessage::Command {
                request,
                lowest_pending,
                payload,
            } => self.execute(link, *request, *lowest_pending, Some(payload)),
            ClientMessage::Void {
                request,
                lowest_pending,
            } => self.execute(link, *request, *lowest_pending, None),
            other => panic!("{other:?} is not part of these runs"),
        }
    }

    fn bind(&mut self, link: u64) {
        self.generation += 1;
        self.link = link;
    }

    fn execute(
        &mut self,
        link: u64,
        request: RequestId,
        lowest_pending: RequestId,
        payload: Option<&Vec<u8>>,
    ) -> Option<ServerMessage> {
        if link != self.link {
            return None;
        }
        assert!(lowest_pending <= request);
        let refused = |outcome| {
            Some(ServerMessage::CommandResponse {
                request,
                commit_index: None,
                outcome,
            })
        };
        if let Some((first, index, outcome)) = self.cache.get(&request.0) {
            let same = payload.is_none() || first.is_none() || first.as_ref() == payload;
            assert!(same, "{request} came with two payloads");
            let commit_index = Some(LogIndex(*index));
            let outcome = outcome.clone();
            return Some(ServerMessage::CommandResponse {
                request,
                commit_index,
                outcome,
            });
        }
        if request.0 < self.mark {
            return refused(Outcome::Evicted);
        }
        if request.0 != self.last + 1 {
            return refused(Outcome::OutOfOrder {
                expected: RequestId(self.last + 1),
            });
        }
        self.last = request.0;
        self.mark = self.mark.max(lowest_pending.0);
        self.cache = self.cache.split_off(&self.mark);
        let outcome = match payload {
            Some(payload) => {
                self.log.push(payload.clone());
                Outcome::Success {
                    payload: payload.clone(),
                }
            }
            None => Outcome::Void,
        };
        let index = self.log.len() as u64;
        self.cache
            .insert(request.0, (payload.cloned(), index, outcome));
        self.execute(link, request, lowest_pending, payload)
    }
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut rig = Rig::new();
        rig.connect();
        Self {
            seed,
            randomness: SeededRandomness(seed),
            rig,
            cluster: Cluster::default(),
            calls: vec![],
            outcomes: BTreeMap::new(),
            link: 0,
            open: false,
            to_cluster: VecDeque::new(),
            limbo: vec![],
            to_client: VecDeque::new(),
            faults: true,
        }
    }

    fn below(&mut self, limit: u64) -> u64 {
        let mut bytes = [0; 8];
        self.randomness.fill(&mut bytes);
        u64::from_be_bytes(bytes) % limit
    }

    fn run(mut self) {
        while (self.calls.len() as u64) < CALLS {
            self.step();
        }
        self.faults = false;
        for _ in 0..20_000 {
            if self.outcomes.len() == self.calls.len() {
                return self.check();
            }
            self.step();
        }
        panic!(
            "seed {}: {} of {} calls ended; {:?}",
            self.seed,
            self.outcomes.len(),
            self.calls.len(),
            self.rig.session
        );
    }

    fn step(&mut self) {
        self.act();
        match self.below(if self.faults { 12 } else { 8 }) {
            0 | 1 => self.send(),
            2 | 3 => self.arrive(),
            4 | 5 => self.receive(),
            6 => {
                if let Some(wake_at) = self.rig.session.wake_at(self.rig.now) {
                    self.rig
                        .advance(wake_at.saturating_duration_since(self.rig.now));
                }
            }
            7 => self.apply_late(),
            8..10 => self.call(),
            10 => self.refuse(),
            _ => match self.below(8) {
                0 => self.break_link(),
                1 => drop(self.to_client.pop_front()),
                2 => self.duplicate(),
                _ => self.delay(),
            },
        }
        for (at, call) in self.calls.iter_mut().enumerate() {
            if let Ok(outcome) = call.try_recv() {
                assert!(self.outcomes.insert(at as u64, outcome).is_none());
            }
        }
    }

    fn act(&mut self) {
        for action in self.rig.actions() {
            self.drop_link();
            if let Action::Open(_) = action {
                self.link += 1;
                self.open = true;
                self.rig.event(Event::Linked);
            }
        }
    }

    /// What was on its way may still arrive.
    fn drop_link(&mut self) {
        self.open = false;
        self.limbo.extend(self.to_cluster.drain(..));
        self.to_client.clear();
    }

    fn break_link(&mut self) {
        if self.open {
            self.drop_link();
            self.rig.event(Event::LinkLost(None));
        }
    }

    fn call(&mut self) {
        if self.calls.len() as u64 == CALLS {
            return;
        }
        let (reply, call) = oneshot::channel();
        let payload = (self.calls.len() as u64).to_be_bytes().to_vec();
        let deadline = self.rig.now + Duration::from_secs(1_000_000);
        self.rig.event(Event::Call {
            payload,
            deadline,
            reply,
        });
        self.calls.push(call);
    }

    fn send(&mut self) {
        if self.open {
            let link = self.link;
            let sent = self.rig.sent();
            self.to_cluster
                .extend(sent.into_iter().map(|message| (link, message)));
        }
    }

    fn arrive(&mut self) {
        if let Some(arriving) = self.to_cluster.pop_front() {
            self.apply(arriving);
        }
    }

    fn apply(&mut self, (link, message): Arriving) {
        let before = self.cluster.link;
        let answer = self.cluster.apply(link, &message);
        if self.cluster.link != before && before == self.link && self.open {
            let reason = SessionCloseReason::Superseded;
            self.to_client.push_back(ServerMessage::SessionClosed {
                reason,
                leader: None,
            });
        }
        if link == self.link && self.open {
            self.to_client.extend(answer);
        }
    }

    fn apply_late(&mut self) {
        if !self.limbo.is_empty() {
            let at = self.below(self.limbo.len() as u64);
            let arriving = self.limbo.remove(usize::try_from(at).unwrap());
            self.apply(arriving);
        }
    }

    fn delay(&mut self) {
        self.limbo.extend(self.to_cluster.pop_front());
    }

    fn duplicate(&mut self) {
        self.to_client.extend(self.to_client.front().cloned());
    }

    fn receive(&mut self) {
        if let Some(message) = self.to_client.pop_front() {
            self.rig.receive(message);
        }
    }

    /// The node refuses what arrives next; an `Unknown` may have been accepted nonetheless.
    fn refuse(&mut self) {
        let Some((link, message)) = self.to_cluster.pop_front() else {
            return;
        };
        if link != self.link || !self.open {
            return;
        }
        let kind = self.below(6);
        let refusal = match &message {
            ClientMessage::Command { request, .. } => ServerMessage::CommandResponse {
                request: *request,
                commit_index: None,
                outcome: match kind {
                    0 => Outcome::Overloaded { retry_after_ms: 10 },
                    1 => Outcome::Migrating,
                    2 => Outcome::NotLeader {
                        leader: Some(member(B)),
                    },
                    3 => Outcome::NoModule,
                    4 => Outcome::NoSession,
                    _ => Outcome::Unknown,
                },
            },
            ClientMessage::CreateSession { nonce, .. }
            | ClientMessage::ContinueSession { nonce, .. } => ServerMessage::SessionRejected {
                nonce: *nonce,
                reason: if kind < 3 {
                    RejectReason::NotLeader
                } else {
                    RejectReason::Overloaded
                },
                leader: None,
                message: String::new(),
            },
            _ => return,
        };
        if kind == 5 {
            self.limbo.push((link, message));
        }
        self.to_client.push_back(refusal);
    }

    fn check(mut self) {
        let seed = self.seed;
        let log: Vec<u64> = self
            .cluster
            .log
            .drain(..)
            .map(|payload| u64::from_be_bytes(payload.try_into().unwrap()))
            .collect();
        assert!(
            log.is_sorted_by(|a, b| a < b),
            "seed {seed}: executed {log:?}"
        );
        for (call, outcome) in self.outcomes {
            let executed = log.iter().position(|executed| *executed == call);
            match outcome {
                Ok(applied) => {
                    assert_eq!(applied.response, call.to_be_bytes(), "seed {seed}");
                    let index = executed.map(|at| LogIndex(at as u64 + 1));
                    assert_eq!(
                        index,
                        Some(applied.commit_index),
                        "seed {seed}: call {call}"
                    );
                }
                Err(CallError::NotApplied {
                    reason: NotApplied::NoModule,
                }) => {
                    assert_eq!(executed, None, "seed {seed}: call {call}");
                }
                Err(other) => panic!("seed {seed}: call {call} ended with {other:?}"),
            }
        }
    }
}
