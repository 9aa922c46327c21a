//! The order of the log, as the module tells it, explains every answer: a model that executes the
//! commands in that order answers the same, no command comes after one that was asked for only when
//! it had been answered, and a read shows all that was answered before it was asked.

use std::collections::BTreeMap;

use super::{Command, Events, Outcome, Read, Truth};
use crate::model::{Action, Model};

pub(super) fn check(events: &Events, truth: &Truth) -> Result<(), String> {
    let mut order: Vec<_> = truth
        .executed
        .iter()
        .map(|(number, execution)| ((execution.index, execution.position), *number))
        .collect();
    order.sort_unstable();
    if order.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        return Err("witness: two commands have one place in the log".to_owned());
    }
    let states = replay(events, &order)?;
    for read in &events.reads {
        check_read(events, &states, read)?;
    }
    Ok(())
}

/// The model after each index at which something took effect.
fn replay(events: &Events, order: &[((u64, u64), u64)]) -> Result<BTreeMap<u64, Model>, String> {
    let mut model = Model::default();
    let mut states = BTreeMap::from([(0, model.clone())]);
    let mut invoked_last = 0;
    for ((index, _), number) in order {
        let Command {
            action,
            invoked,
            returned,
            outcome,
        } = events.commands[number];
        if returned < invoked_last {
            return Err(format!(
                "witness: command {number}, {action:?}, was answered before another was asked for \
                 that comes before it"
            ));
        }
        invoked_last = invoked_last.max(invoked);
        let expected = model.execute(*number, action);
        if let (Outcome::Applied { response, .. }, Some(expected)) = (outcome, expected)
            && response != expected
        {
            return Err(format!(
                "witness: command {number}, {action:?}, at {index} was answered {response}, and \
                 the model says {expected}"
            ));
        }
        states.insert(*index, model.clone());
    }
    Ok(states)
}

fn check_read(events: &Events, states: &BTreeMap<u64, Model>, read: &Read) -> Result<(), String> {
    let Read {
        query,
        invoked,
        value,
        index,
        ..
    } = *read;
    let state = states.range(..=index).next_back();
    let expected = state.map_or(0, |(_, model)| model.read(query));
    if value != expected {
        return Err(format!(
            "witness: {query:?} at {index} was answered {value}, and the model says {expected}"
        ));
    }
    let answered = events.commands.iter().filter_map(|(number, command)| {
        let before = command.returned < invoked;
        match command.outcome {
            Outcome::Applied { index, .. } if before => Some((index, *number, command.action)),
            _ => None,
        }
    });
    if let Some((at, number, action)) = answered.max_by_key(|(at, ..)| *at)
        && at > index
    {
        return Err(stale(
            read,
            at,
            format_args!("command {number}, {action:?}"),
        ));
    }
    let earlier = events.reads.iter().filter(|other| other.returned < invoked);
    match earlier.max_by_key(|other| other.index) {
        Some(other) if other.index > index => {
            Err(stale(read, other.index, format_args!("{:?}", other.query)))
        }
        _ => Ok(()),
    }
}

fn stale(read: &Read, at: u64, what: std::fmt::Arguments<'_>) -> String {
    format!(
        "stale read: {:?} was answered from the state at {}, and {what} at {at} had been answered \
         before it was asked",
        read.query, read.index
    )
}

/// What a timer answers depends on the time, so the model does not say.
#[cfg(test)]
#[test]
fn model_does_not_say_when_timers_are_due() {
    assert_eq!(Model::default().execute(1, Action::Timer(5)), None);
}
