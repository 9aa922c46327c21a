//! Requests to a client: at least once, in order, none left out from the subscription on, and none
//! of a command that failed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quorate_client::{Client, ServerRequest};
use rand_chacha::ChaCha12Rng;
use rand_core::Rng;
use serde_json::Value;

use crate::trace::{Party, Trace};

/// What came in one session. Cheap to clone.
#[derive(Clone)]
pub struct Deliveries {
    trace: Trace,
    client: u64,
    came: Arc<Mutex<Came>>,
}

#[derive(Default)]
struct Came {
    /// The broadcast that each request brought: request n at n - 1.
    broadcasts: Vec<u64>,
    /// How many broadcasts there were before this client was subscribed; `None` until it is known.
    subscribed_after: Option<u64>,
}

/// Longest that a request is worked on.
const WORK_MS_MAX: u64 = 200;

impl Deliveries {
    /// Of a new session.
    pub fn new(client: u64, trace: &Trace) -> Self {
        Self {
            trace: trace.clone(),
            client,
            came: Arc::default(),
        }
    }

    /// Takes the requests that come to this client, until it ends.
    pub fn take_from(&self, client: &Client, mut random: ChaCha12Rng) {
        let deliveries = self.clone();
        let mut requests = client.requests().expect("nobody took them");
        tokio::spawn(async move {
            while let Some(request) = requests.next().await {
                deliveries.take(&request);
                let draw = random.next_u64();
                tokio::time::sleep(Duration::from_millis(draw % WORK_MS_MAX)).await;
                // One that is dropped comes again.
                if !(draw >> 32).is_multiple_of(5) {
                    request.ack();
                }
            }
        });
    }

    fn came(&self) -> MutexGuard<'_, Came> {
        self.came.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, request: &ServerRequest) {
        let id = request.id.0;
        let name = Party::Client(self.client);
        let payload: Value = serde_json::from_slice(&request.payload).expect("JSON");
        let Some(broadcast) = payload.get("broadcast").and_then(Value::as_u64) else {
            return self.trace.violation(format_args!(
                "requests: {name} is told {payload} by a command that failed"
            ));
        };
        self.trace.event(
            name,
            format_args!("takes request {id}: broadcast {broadcast}"),
        );
        self.trace.count("request delivered");
        let mut came = self.came();
        let expected = came.broadcasts.len() as u64 + 1;
        let before = id
            .checked_sub(2)
            .and_then(|at| came.broadcasts.get(at as usize));
        let follows = before.is_none_or(|before| broadcast == before + 1);
        let known = id
            .checked_sub(1)
            .and_then(|at| came.broadcasts.get(at as usize));
        let is_right = match known {
            Some(known) => *known == broadcast,
            None => id == expected && follows,
        };
        if known.is_some() {
            self.trace.count("request delivered again");
        } else {
            came.broadcasts.push(broadcast);
        }
        drop(came);
        if !is_right {
            self.trace.violation(format_args!(
                "requests: {name} takes request {id}, broadcast {broadcast}, where {expected} was \
                 to come next"
            ));
        }
    }

    /// The client was subscribed after so many broadcasts.
    pub fn subscribed_after(&self, broadcasts: u64) {
        self.came().subscribed_after.get_or_insert(broadcasts);
    }

    /// Whether everything came that had to, when there were this many broadcasts.
    pub fn is_complete(&self, broadcasts: u64) -> bool {
        let came = self.came();
        let Some(after) = came.subscribed_after else {
            return true;
        };
        let first = came
            .broadcasts
            .first()
            .is_none_or(|first| *first <= after + 1);
        let last = came.broadcasts.last().copied().unwrap_or(after);
        first && last >= broadcasts
    }
}
