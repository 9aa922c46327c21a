//! Each command took effect once if that was answered, never if something else was, and at most once
//! if nothing was; and each timer that was set fired once, not early.

use super::{Events, Outcome, Truth};
use crate::model::Action;

pub(super) fn check(events: &Events, truth: &Truth) -> Result<(), String> {
    if let Some(number) = truth
        .executed
        .keys()
        .find(|number| !events.commands.contains_key(number))
    {
        return Err(format!("exactly once: nobody asked for command {number}"));
    }
    for (number, command) in &events.commands {
        let execution = truth.executed.get(number);
        let times = execution.map_or(0, |execution| execution.times);
        let action = command.action;
        let is_right = match command.outcome {
            Outcome::Applied { index, .. } => {
                times == 1 && execution.is_some_and(|execution| execution.index == index)
            }
            Outcome::Rejected { .. } => times == 0 && action.is_refused(),
            Outcome::NotApplied => times == 0,
            Outcome::Unknown if action.is_refused() => times == 0,
            Outcome::Unknown => times <= 1,
        };
        if !is_right {
            return Err(format!(
                "exactly once: command {number}, {action:?}, was answered {:?} and took effect \
                 {times} times, {execution:?}",
                command.outcome
            ));
        }
        if let Action::Timer(_) = action {
            check_timer(*number, command.outcome, times, truth)?;
        }
    }
    Ok(())
}

fn check_timer(number: u64, outcome: Outcome, set: u64, truth: &Truth) -> Result<(), String> {
    let fired = truth.fired.get(&number);
    let times = fired.map_or(0, |(.., times)| *times);
    if times != set {
        return Err(format!(
            "timers: {number} was set {set} times and fired {times} times"
        ));
    }
    let Some((due, at, _)) = fired else {
        return Ok(());
    };
    if at < due {
        return Err(format!("timers: {number}, due at {due}, fired at {at}"));
    }
    match outcome {
        Outcome::Applied { response, .. } if response != *due => Err(format!(
            "timers: {number} was answered to be due at {response}, and was at {due}"
        )),
        _ => Ok(()),
    }
}
