//! Two runs of one call that did not do the same.

use std::fmt;

use quorate_core::context::Effect;
use quorate_core::module::{Export, Outcome, Trap};
use quorate_core::query::tag;
use quorate_core::state::Value;

use crate::recorder::Called;

/// Bytes of a value that a report shows.
const SHOWN_BYTES: usize = 200;

/// What two runs of one operation over one state did differently. A module that does so would give nodes different
/// states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Divergence {
    /// The operation: what it was and, where it has one, its log index.
    pub operation: String,
    /// The call of the module in it.
    pub call: String,
    /// What differs: the response, a key, an effect.
    pub what: String,
    /// What it was in the first run.
    pub first: String,
    /// What it was in the second.
    pub second: String,
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            operation,
            call,
            what,
            first,
            second,
        } = self;
        write!(
            f,
            "two runs of {operation} differ, in {call}: {what}\n   first: {first}\n  second: {second}"
        )
    }
}

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compare {
    Effects,
    /// Fuel as well: of the same code, in fresh instances.
    EffectsAndFuel,
}

/// The first difference between two runs of one operation.
pub(crate) fn find(
    operation: &str,
    first: &[Called],
    second: &[Called],
    compare: Compare,
) -> Option<Divergence> {
    let found = |call: String, (what, first, second): Difference| Divergence {
        operation: operation.to_owned(),
        call,
        what,
        first,
        second,
    };
    for (first, second) in first.iter().zip(second) {
        let pair = (name(first), name(second));
        if pair.0 != pair.1 {
            let what = "which call was made".to_owned();
            return Some(found(
                pair.0.to_owned(),
                (what, pair.0.to_owned(), pair.1.to_owned()),
            ));
        }
        if let Some(difference) = of_calls(first, second, compare) {
            return Some(found(pair.0.to_owned(), difference));
        }
    }
    (first.len() != second.len()).then(|| {
        let what = "how many calls were made".to_owned();
        let counts = (first.len().to_string(), second.len().to_string());
        found("all calls".to_owned(), (what, counts.0, counts.1))
    })
}

/// What differs, and what it is in each run.
type Difference = (String, String, String);

fn of_calls(first: &Called, second: &Called, compare: Compare) -> Option<Difference> {
    if first.outcome != second.outcome {
        let shown = |called: &Called| shown_outcome(&called.outcome);
        return Some(("the outcome".to_owned(), shown(first), shown(second)));
    }
    let keys = first.writes.keys().chain(second.writes.keys());
    for key in keys {
        let pair = (first.writes.get(key), second.writes.get(key));
        if pair.0 != pair.1 {
            let shown = |write: Option<&Option<Value>>| match write {
                None => "not written".to_owned(),
                Some(None) => "deleted".to_owned(),
                Some(Some(value)) => text(value),
            };
            let what = format!("the write of key {}", text(key));
            return Some((what, shown(pair.0), shown(pair.1)));
        }
    }
    let effects = first.effects.len().max(second.effects.len());
    for number in 0..effects {
        let pair = (first.effects.get(number), second.effects.get(number));
        if pair.0 != pair.1 {
            let shown =
                |effect: Option<&Effect>| effect.map_or_else(|| "none".to_owned(), shown_effect);
            return Some((
                format!("effect {}", number + 1),
                shown(pair.0),
                shown(pair.1),
            ));
        }
    }
    (compare == Compare::EffectsAndFuel && first.fuel != second.fuel).then(|| {
        let shown = |called: &Called| called.fuel.to_string();
        ("the fuel".to_owned(), shown(first), shown(second))
    })
}

/// What a call is for.
pub(crate) fn name(called: &Called) -> &'static str {
    match (called.export, called.tag) {
        (Export::Apply, Some(tag::COMMAND)) => "the command",
        (Export::Apply, Some(tag::SESSION_CREATED)) => "the hook for a created session",
        (Export::Apply, Some(tag::SESSION_EXPIRED)) => "the hook for an ended session",
        (Export::Apply, Some(tag::REQUEST_ACKNOWLEDGED)) => "the hook for acknowledged requests",
        (Export::Apply, Some(tag::TIMER)) => "the hook for a timer",
        (Export::Apply, _) => "apply",
        (Export::Init, _) => "init",
        (Export::Query, _) => "the query",
        (Export::Migrate, _) => "the migration",
        (Export::MigrateDown, _) => "the migration down",
        (Export::PayloadFromJson, _) => "the conversion from JSON",
        (Export::PayloadToJson, _) => "the conversion to JSON",
    }
}

pub(crate) fn shown_outcome(outcome: &Result<Outcome, Trap>) -> String {
    match outcome {
        Ok(Outcome::Success(payload)) => format!("success {}", text(payload)),
        Ok(Outcome::ApplicationError { code, payload }) => {
            format!("error {code} {}", text(payload))
        }
        Ok(Outcome::More(cursor)) => format!("more {}", text(cursor)),
        Err(trap) => format!("trap {}", trap.slug()),
    }
}

fn shown_effect(effect: &Effect) -> String {
    let id = |session: &[u8; 16]| quorate_protocol::SessionId(*session).to_string();
    match effect {
        Effect::Request { sessions, payload } => {
            let sessions: Vec<String> = sessions.iter().map(id).collect();
            format!("a request to {}: {}", sessions.join(", "), text(payload))
        }
        Effect::SetTimer {
            due_us,
            key,
            payload,
        } => format!("timer {} at {due_us} us: {}", text(key), text(payload)),
        Effect::CancelTimer { key } => format!("timer {} cancelled", text(key)),
        Effect::CloseSession { session } => format!("session {} closed", id(session)),
    }
}

/// Bytes as text between quotes, what is no text escaped, cut.
pub(crate) fn text(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(SHOWN_BYTES)];
    let more = bytes.len() - cut.len();
    match more {
        0 => format!("\"{}\"", cut.escape_ascii()),
        more => format!("\"{}\" and {more} bytes more", cut.escape_ascii()),
    }
}
