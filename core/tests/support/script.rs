//! What a test asks the module to do: a payload that is a list of actions.

use proptest::arbitrary::any;
use proptest::prelude::{Just, Strategy, prop_oneof};
use quorate_core::codec::{Reader, Writer};
use quorate_core::module::Trap;

/// One step of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    /// Appends the value, or `-`, to the response.
    Get(Vec<u8>),
    /// Appends up to this many keys of the module to the response.
    Scan(u32),
    /// Appends bytes to the response.
    Say(Vec<u8>),
    /// Appends this many zeros to the response.
    SayZeros(u32),
    /// Ends with an application error.
    Fail(u32),
    Trap(Trap),
    /// Traps in an instance that has served another call.
    TrapIfNeighbour,
    /// The response is too large in an instance that has served another call.
    SwellIfNeighbour,
    Request(Vec<u8>, Vec<u8>),
    /// A request to the session that the call is about.
    RequestSelf(Vec<u8>),
    SetTimer(u64, Vec<u8>, Vec<u8>),
    CancelTimer(Vec<u8>),
    Close(u8),
    /// The instance must not be used again.
    Spend,
    /// Uses fuel.
    Burn(u64),
    /// Sets a key to this many zeros.
    PutZeros(Vec<u8>, u32),
    /// Not the guest: what runs it panics.
    Panic,
    /// Ends a step of a migration; what follows is the next step's.
    Next,
    /// Asks for another step, with this cursor.
    More(Vec<u8>),
}

/// The payload of these actions.
pub(crate) fn script(actions: &[Action]) -> Vec<u8> {
    let mut out = Writer::new();
    for action in actions {
        match action {
            Action::Put(key, value) => out.u8(1).bytes(key).bytes(value),
            Action::Delete(key) => out.u8(2).bytes(key),
            Action::Get(key) => out.u8(3).bytes(key),
            Action::Scan(limit) => out.u8(4).u32(*limit),
            Action::Say(text) => out.u8(5).bytes(text),
            Action::SayZeros(count) => out.u8(6).u32(*count),
            Action::Fail(code) => out.u8(7).u32(*code),
            Action::Trap(trap) => out.u8(8).u8(*trap as u8),
            Action::TrapIfNeighbour => out.u8(9),
            Action::SwellIfNeighbour => out.u8(10),
            Action::Request(sessions, payload) => out.u8(11).bytes(sessions).bytes(payload),
            Action::RequestSelf(payload) => out.u8(12).bytes(payload),
            Action::SetTimer(due, key, payload) => out.u8(13).u64(*due).bytes(key).bytes(payload),
            Action::CancelTimer(key) => out.u8(14).bytes(key),
            Action::Close(session) => out.u8(15).u8(*session),
            Action::Spend => out.u8(16),
            Action::Burn(fuel) => out.u8(17).u64(*fuel),
            Action::PutZeros(key, count) => out.u8(18).bytes(key).u32(*count),
            Action::Panic => out.u8(19),
            Action::Next => out.u8(20),
            Action::More(cursor) => out.u8(21).bytes(cursor),
        };
    }
    out.finish()
}

/// The actions of a payload.
pub(crate) fn actions(payload: &[u8]) -> Vec<Action> {
    let mut input = Reader::new(payload);
    let mut actions = Vec::new();
    while let Ok(tag) = input.u8() {
        actions.push(action(tag, &mut input));
    }
    actions
}

fn action(tag: u8, input: &mut Reader<'_>) -> Action {
    fn bytes(input: &mut Reader<'_>) -> Vec<u8> {
        input.bytes().unwrap().to_vec()
    }
    match tag {
        1 => Action::Put(bytes(input), bytes(input)),
        2 => Action::Delete(bytes(input)),
        3 => Action::Get(bytes(input)),
        4 => Action::Scan(input.u32().unwrap()),
        5 => Action::Say(bytes(input)),
        6 => Action::SayZeros(input.u32().unwrap()),
        7 => Action::Fail(input.u32().unwrap()),
        8 => Action::Trap(Trap::from_code(input.u8().unwrap()).unwrap()),
        9 => Action::TrapIfNeighbour,
        10 => Action::SwellIfNeighbour,
        11 => Action::Request(bytes(input), bytes(input)),
        12 => Action::RequestSelf(bytes(input)),
        13 => Action::SetTimer(input.u64().unwrap(), bytes(input), bytes(input)),
        14 => Action::CancelTimer(bytes(input)),
        15 => Action::Close(input.u8().unwrap()),
        16 => Action::Spend,
        17 => Action::Burn(input.u64().unwrap()),
        18 => Action::PutZeros(bytes(input), input.u32().unwrap()),
        19 => Action::Panic,
        20 => Action::Next,
        21 => Action::More(bytes(input)),
        other => panic!("no action {other}"),
    }
}

fn small_key() -> impl Strategy<Value = Vec<u8>> {
    (0u8..6).prop_map(|key| vec![b'k', key])
}

/// What a migration does in steps of these actions.
pub(crate) fn steps(steps: &[Vec<Action>]) -> Vec<Action> {
    steps.join(&Action::Next)
}

/// A step that a random script may take.
fn any_action() -> impl Strategy<Value = Action> {
    let text = || proptest::collection::vec(any::<u8>(), 0..5);
    let sessions = proptest::collection::vec(0u8..6, 0..5);
    prop_oneof![
        6 => (small_key(), text()).prop_map(|(key, value)| Action::Put(key, value)),
        2 => small_key().prop_map(Action::Delete),
        3 => small_key().prop_map(Action::Get),
        2 => (0u32..5).prop_map(Action::Scan),
        3 => text().prop_map(Action::Say),
        1 => (0u32..150).prop_map(Action::SayZeros),
        1 => (0u32..3).prop_map(Action::Fail),
        1 => Just(Action::Trap(Trap::Wasm)),
        1 => Just(Action::TrapIfNeighbour),
        1 => Just(Action::SwellIfNeighbour),
        5 => (sessions, text()).prop_map(|(sessions, payload)| Action::Request(sessions, payload)),
        1 => text().prop_map(Action::RequestSelf),
        3 => (0u64..4, small_key(), text())
            .prop_map(|(due, key, text)| Action::SetTimer(due, key, script(&[Action::Say(text)]))),
        1 => (0u64..4, small_key(), 0u8..6).prop_map(|(due, key, session)| {
            Action::SetTimer(due, key, script(&[Action::Close(session)]))
        }),
        1 => small_key().prop_map(Action::CancelTimer),
        1 => (0u8..6).prop_map(Action::Close),
        1 => Just(Action::Spend),
        2 => (0u64..60).prop_map(Action::Burn),
        2 => (2u8..5, hook_script()).prop_map(|(tag, hook)| {
            Action::Put(format!("hook/{tag}").into_bytes(), script(&hook))
        }),
        1 => (2u8..5).prop_map(|tag| Action::Delete(format!("hook/{tag}").into_bytes())),
    ]
}

/// What a hook does from then on.
fn hook_script() -> impl Strategy<Value = Vec<Action>> {
    let step = prop_oneof![
        2 => (0u8..6).prop_map(Action::Close),
        2 => (small_key(), 0u8..4).prop_map(|(key, value)| Action::Put(key, vec![value])),
        1 => Just(Action::Request(vec![0, 1, 2], b"bye".to_vec())),
        1 => Just(Action::Trap(Trap::OutOfFuel)),
        1 => Just(Action::Fail(1)),
        1 => Just(Action::TrapIfNeighbour),
        1 => Just(Action::RequestSelf(b"you".to_vec())),
        1 => (40u64..80).prop_map(Action::Burn),
    ];
    proptest::collection::vec(step, 0..3)
}

/// A random step of a migration: without effects.
pub(crate) fn any_migration_step() -> impl Strategy<Value = Vec<Action>> {
    let text = proptest::collection::vec(any::<u8>(), 0..5);
    let action = prop_oneof![
        6 => (small_key(), text).prop_map(|(key, value)| Action::Put(key, value)),
        3 => small_key().prop_map(Action::Delete),
        1 => small_key().prop_map(Action::Get),
        1 => (2u8..5).prop_map(|tag| Action::Delete(format!("hook/{tag}").into_bytes())),
        1 => (0u64..30).prop_map(Action::Burn),
    ];
    proptest::collection::vec(action, 0..6)
}

/// A random script.
pub(crate) fn any_script() -> impl Strategy<Value = Vec<Action>> {
    proptest::collection::vec(any_action(), 0..6)
}
