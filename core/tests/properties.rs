//! Random histories: core agrees with the model after every entry, on every node, however the
//! operations were batched and wherever the node started again.

use proptest::collection::vec;
use proptest::prelude::*;
use quorate_core::apply::Notice;
use quorate_core::entry::{Operation, Sequence};
use quorate_core::limits::Limits;
use quorate_core::query;
use quorate_core::records::Timer;
use quorate_core::result::{OperationResult, Refusal};
use quorate_protocol::{Generation, RequestId};

use crate::model::Model;
use crate::support::memory;
use crate::support::script::any_script;
use crate::support::*;

const SESSIONS: u8 = 6;

/// What a client or the leader is up to; ids and generations are chosen by the state it meets.
#[derive(Debug, Clone)]
pub(crate) enum Intent {
    Create {
        session: u8,
        key: u8,
        is_consecutive: bool,
    },
    Continue(u8),
    Close(u8, Stale),
    Expire(u8, Stale),
    Command {
        session: u8,
        stale: Stale,
        id: Which,
        pending: u64,
        actions: Option<Vec<Action>>,
    },
    Acknowledge(u8, Stale, u64),
    Fire(usize, Stale),
}

/// How far behind what is said of a generation or a due time; mostly not at all.
pub(crate) type Stale = u64;

/// Which command id.
#[derive(Debug, Clone)]
pub(crate) enum Which {
    Next,
    /// This many before the next one, with the payload that was sent under it.
    Again(u64),
    /// This many before the next one, with a new payload.
    Reused(u64),
    Exactly(u64),
}

pub(crate) fn any_intent() -> impl Strategy<Value = Intent> {
    let session = || prop_oneof![5 => 0u8..3, 2 => 0..SESSIONS];
    let stale = || prop_oneof![9 => Just(0_u64), 1 => Just(1)];
    let which = prop_oneof![
        6 => Just(Which::Next),
        3 => (1u64..5).prop_map(Which::Again),
        1 => (1u64..5).prop_map(Which::Reused),
        1 => (0u64..12).prop_map(Which::Exactly),
    ];
    let actions = prop_oneof![9 => any_script().prop_map(Some), 1 => Just(None)];
    prop_oneof![
        4 => (session(), 0u8..6, any::<bool>()).prop_map(|(session, key, is_consecutive)| {
            Intent::Create { session, key, is_consecutive }
        }),
        1 => session().prop_map(Intent::Continue),
        1 => (session(), stale()).prop_map(|(session, stale)| Intent::Close(session, stale)),
        1 => (session(), stale()).prop_map(|(session, stale)| Intent::Expire(session, stale)),
        14 => (session(), stale(), which, 0u64..6, actions).prop_map(
            |(session, stale, id, pending, actions)| {
                Intent::Command { session, stale, id, pending, actions }
            }
        ),
        3 => (session(), stale(), 0u64..8)
            .prop_map(|(session, stale, up_to)| Intent::Acknowledge(session, stale, up_to)),
        2 => (0usize..6, stale()).prop_map(|(which, stale)| Intent::Fire(which, stale)),
    ]
}

/// Begins with a few sessions, so that not everything is refused for want of one.
pub(crate) fn any_history() -> impl Strategy<Value = Vec<Vec<Intent>>> {
    let entries = vec(vec(any_intent(), 1..9), 1..14);
    (entries, vec(any::<bool>(), 4)).prop_map(|(mut entries, sequences)| {
        let create = |(session, is_consecutive)| Intent::Create {
            session,
            key: session,
            is_consecutive,
        };
        entries.insert(0, (0..3).zip(sequences).map(create).collect());
        entries
    })
}

/// So small that every limit is met.
pub(crate) fn tight() -> Limits {
    let mut limits = Limits {
        sessions_max: 4,
        cached_responses_max: 5,
        cached_bytes_max: 400,
        outbox_requests_max: 4,
        outbox_bytes_max: 270,
        ..Limits::default()
    };
    limits.module.fuel_per_command = 80;
    limits.module.response_bytes_max = 120;
    limits
}

/// Turns intents into operations by what the model knows.
#[derive(Default)]
pub(crate) struct Clients {
    sent: std::collections::BTreeMap<(u8, u64), Vec<u8>>,
}

impl Clients {
    pub(crate) fn operation(&mut self, model: &Model, intent: &Intent) -> Operation {
        let generation = |session: u8, stale: Stale| {
            let current = model
                .sessions
                .get(&session)
                .map_or(1, |found| found.generation);
            Generation(current.saturating_sub(stale))
        };
        match intent {
            Intent::Create {
                session,
                key,
                is_consecutive,
            } => {
                let sequence = match is_consecutive {
                    true => Sequence::Consecutive,
                    false => Sequence::Any,
                };
                create_as(*session, sequence, [*key; 16], &[])
            }
            Intent::Continue(session) => continue_session(*session),
            Intent::Close(session, stale) => close(*session, generation(*session, *stale).0),
            Intent::Expire(session, stale) => expire(*session, generation(*session, *stale).0),
            Intent::Acknowledge(session, stale, up_to) => Operation::Acknowledge {
                session: id(*session),
                generation: generation(*session, *stale),
                up_to: RequestId(*up_to),
            },
            Intent::Fire(which, stale) => {
                let timer = model.timers.iter().cycle().nth(*which);
                let (key, due) = match timer {
                    Some((key, (due, _))) => (key.clone(), *due),
                    None => (b"none".to_vec(), 0),
                };
                fire(&key, due + stale)
            }
            Intent::Command {
                session,
                stale,
                id: which,
                pending,
                actions,
            } => {
                let next = model
                    .sessions
                    .get(session)
                    .map_or(1, |found| found.last + 1);
                let request = match which {
                    Which::Next => next,
                    Which::Again(back) | Which::Reused(back) => next.saturating_sub(*back),
                    Which::Exactly(request) => *request,
                };
                let lowest_pending = RequestId(next.saturating_sub(*pending));
                let (session_id, generation) = (id(*session), generation(*session, *stale));
                let Some(actions) = actions else {
                    return Operation::Void {
                        session: session_id,
                        generation,
                        request: RequestId(request),
                        lowest_pending,
                    };
                };
                let place = (*session, request);
                let payload = match (which, self.sent.get(&place)) {
                    (Which::Again(_), Some(sent)) => sent.clone(),
                    _ => script(actions),
                };
                self.sent.insert(place, payload.clone());
                Operation::Command {
                    session: session_id,
                    generation,
                    request: RequestId(request),
                    lowest_pending,
                    payload,
                }
            }
        }
    }
}

pub(crate) fn by_model(model: &mut Model, operation: &Operation) -> OperationResult {
    match operation {
        Operation::CreateSession {
            session,
            creation_key,
            sequence,
            ..
        } => {
            let is_consecutive = *sequence == Sequence::Consecutive;
            model.create(session.0[0], creation_key.0[0], is_consecutive)
        }
        Operation::ContinueSession { session } => model.continue_session(session.0[0]),
        Operation::CloseSession {
            session,
            generation,
        } => model.close(session.0[0], generation.0),
        Operation::ExpireSession {
            session,
            generation,
        } => model.expire(session.0[0], generation.0),
        Operation::Command {
            session,
            generation,
            request,
            lowest_pending,
            payload,
        } => {
            let who = (session.0[0], generation.0);
            model.command(who, request.0, lowest_pending.0, Some(payload))
        }
        Operation::Void {
            session,
            generation,
            request,
            lowest_pending,
        } => {
            let who = (session.0[0], generation.0);
            model.command(who, request.0, lowest_pending.0, None)
        }
        Operation::Acknowledge {
            session,
            generation,
            up_to,
        } => model.acknowledge(session.0[0], generation.0, up_to.0),
        Operation::FireTimer { key, due_us } => model.fire(key, *due_us),
        other => panic!("{other:?} is not modelled"),
    }
}

/// Everything that can be seen from outside.
pub(crate) fn assert_agrees(machine: &Machine, model: &Model) -> Result<(), TestCaseError> {
    prop_assert_eq!(machine.visible_data(), model.data.clone());
    for session in 0..SESSIONS {
        let Some(expected) = model.sessions.get(&session) else {
            prop_assert!(
                !machine.exists(session),
                "session {} should be gone",
                session
            );
            continue;
        };
        let progress = machine.progress(session);
        prop_assert_eq!(
            progress.sequence == Sequence::Consecutive,
            expected.is_consecutive
        );
        prop_assert_eq!(progress.generation.0, expected.generation);
        prop_assert_eq!(progress.last_executed.0, expected.last);
        prop_assert_eq!(progress.lowest_pending.0, expected.mark);
        prop_assert_eq!(progress.last_request.0, expected.requests);
        prop_assert_eq!(progress.cached as usize, expected.cache.len());
        for request in expected.cache.keys() {
            prop_assert!(machine.caches(session, *request));
        }
        let outbox: Vec<_> = expected.outbox.iter().cloned().collect();
        prop_assert_eq!(machine.outbox(session), outbox);
    }
    for (key, (due_us, payload)) in &model.timers {
        let (due_us, payload) = (*due_us, payload.clone());
        prop_assert_eq!(machine.timer(key), Some(Timer { due_us, payload }));
    }
    let timers = query::due_timers(&*machine.state, u64::MAX, usize::MAX).unwrap();
    prop_assert_eq!(timers.len(), model.timers.len());
    let meta = query::meta(&*machine.state).unwrap();
    prop_assert_eq!(meta.sessions as usize, model.sessions.len());
    prop_assert_eq!(meta.hook_failures, model.hook_failures);
    Ok(())
}

/// Applies a history to both, comparing after every entry; returns the machine, what its entries
/// were made of, and every result.
fn run(limits: Limits, history: &[Vec<Intent>]) -> Result<Ran, TestCaseError> {
    let mut machine = Machine::with_limits(limits.clone());
    let mut model = Model::new(limits, machine.index);
    let mut clients = Clients { sent: [].into() };
    let mut ran = Vec::new();
    for intents in history {
        model.begin_entry();
        let mut operations = Vec::new();
        let mut expected = Vec::new();
        for intent in intents {
            let operation = clients.operation(&model, intent);
            expected.push(by_model(&mut model, &operation));
            operations.push(operation);
        }
        let applied = machine.apply(operations.clone());
        prop_assert_eq!(&applied.results, &expected, "of {:#?}", operations);
        let ended: Vec<_> = applied
            .notices
            .iter()
            .filter_map(|notice| match notice {
                Notice::Ended(session, reason) => Some((session.0[0], *reason)),
                _ => None,
            })
            .collect();
        prop_assert_eq!(&ended, &model.ended);
        assert_agrees(&machine, &model)?;
        ran.extend(operations.into_iter().zip(applied.results));
    }
    Ok(Ran {
        machine,
        operations: ran,
    })
}

struct Ran {
    machine: Machine,
    operations: Vec<(Operation, OperationResult)>,
}

/// Without the index, which depends on the batching.
fn what_is_told(result: &OperationResult) -> OperationResult {
    match result {
        OperationResult::Responded { response, .. } => OperationResult::Responded {
            index: 0,
            response: response.clone(),
        },
        other => other.clone(),
    }
}

proptest! {
    #[test]
    fn core_agrees_with_the_model(history in any_history()) {
        run(tight(), &history)?;
    }

    #[test]
    fn nodes_agree_byte_for_byte_wherever_one_of_them_started_again(
        history in any_history(),
        restart in any::<prop::sample::Index>(),
    ) {
        let first = run(tight(), &history)?.machine;
        let mut second = Machine::empty();
        let restart = restart.index(first.log.len());
        for (at, entry) in first.log.iter().enumerate() {
            if at == restart {
                second.state = memory::from_bytes(&memory::to_bytes(&second.state)).into();
                second.modules.unload();
            }
            second.apply_bytes(entry.clone());
        }
        prop_assert_eq!(first.state, second.state);
    }

    #[test]
    fn batching_changes_no_answer_where_no_budget_is_met(history in any_history()) {
        let mut limits = tight();
        limits.module.fuel_per_command = 1_000_000;
        limits.module.response_bytes_max = 100_000;
        let batched = run(limits.clone(), &history)?;
        let mut single = Machine::with_limits(limits);
        for (operation, expected) in batched.operations {
            let result = single.one(operation);
            prop_assert_eq!(what_is_told(&result), what_is_told(&expected));
        }
        prop_assert_eq!(single.data(), batched.machine.data());
        for session in 0..SESSIONS {
            prop_assert_eq!(single.exists(session), batched.machine.exists(session));
            prop_assert_eq!(single.outbox(session), batched.machine.outbox(session));
        }
    }
}

/// A property over histories in which nothing happens would hold of anything.
#[test]
fn random_histories_reach_what_they_are_for() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let mut seen = std::collections::BTreeMap::<String, u32>::new();
    for _ in 0..200 {
        let history = any_history().new_tree(&mut runner).unwrap().current();
        let ran = run(tight(), &history).unwrap();
        for (_, result) in ran.operations {
            let kind = match result {
                OperationResult::Refused(Refusal::OutOfOrder { .. }) => "OutOfOrder".to_owned(),
                OperationResult::Refused(refusal) => format!("{refusal:?}"),
                OperationResult::Responded { response, .. } => {
                    let name = format!("{response:?}");
                    name.split(['(', ' ']).next().unwrap().to_owned()
                }
                other => {
                    let name = format!("{other:?}");
                    name.split(['(', ' ']).next().unwrap().to_owned()
                }
            };
            *seen.entry(kind).or_default() += 1;
        }
    }
    for kind in [
        "Acknowledged",
        "ApplicationError",
        "Conflict",
        "Continued",
        "Created",
        "Ended",
        "Evicted",
        "Fenced",
        "Fired",
        "NoSession",
        "OutOfOrder",
        "Overloaded",
        "Rejected",
        "Success",
        "Superseded",
        "TooManySessions",
        "Trapped",
        "Void",
    ] {
        assert!(
            seen.get(kind).is_some_and(|count| *count >= 3),
            "{kind} in {seen:?}"
        );
    }
}
