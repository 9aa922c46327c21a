//! Arguments about limits.

use clap::{Args, Subcommand};
use quorate_core::limits::{NAMED, Unit};
use quorate_host::config::Size;

/// `quorate limits`.
#[derive(Debug, Args)]
pub(crate) struct Limits {
    #[command(subcommand)]
    pub(crate) command: LimitsCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LimitsCommand {
    /// Show the limits in force, and between which bounds each may be set
    #[command(after_help = "\
Examples:
  quorate limits show
  quorate limits show -o json")]
    Show,
    /// Set limits, in force on all nodes from one entry of the log on
    #[command(after_help = "\
Limits that are not named stay as they are. Sizes and times have a unit. The module in force must be
admissible under what is set: exit code 1 otherwise, and nothing is changed.

Examples:
  quorate limits set sessions-max=200000
  quorate limits set memory-max=128MiB fuel-per-command=5000000000 session-timeout=2m")]
    Set(Set),
}

#[derive(Debug, Args)]
pub(crate) struct Set {
    /// Which limit, and what to set it to; may be given again
    #[arg(value_name = "NAME=VALUE", required = true, value_parser = parse_change)]
    pub(crate) changes: Vec<Change>,
}

/// A limit and what to set it to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) name: &'static str,
    pub(crate) value: u64,
}

fn parse_change(text: &str) -> Result<Change, String> {
    let (name, value) = text
        .split_once('=')
        .ok_or("a limit is set by NAME=VALUE, such as sessions-max=1000")?;
    let mut named = NAMED.iter();
    let named = named
        .find(|named| named.name == name)
        .ok_or_else(|| format!("there is no limit {name}; `quorate limits show` lists them"))?;
    let value = parse_value(value, named.unit)?;
    let bounds = named.least..=named.most;
    if !bounds.contains(&value) {
        let (least, most) = (show(named.least, named.unit), show(named.most, named.unit));
        return Err(format!("{name} must be from {least} to {most}"));
    }
    let name = named.name;
    Ok(Change { name, value })
}

fn parse_value(text: &str, unit: Unit) -> Result<u64, String> {
    match unit {
        Unit::Count => {
            let digits = text.replace('_', "");
            let number = digits.parse();
            number.map_err(|_| format!("{text:?} is not a number, such as 1000 or 1_000"))
        }
        Unit::Bytes => {
            let size = text.parse::<Size>();
            size.map(Size::get).map_err(|error| error.to_string())
        }
        Unit::Milliseconds => {
            let duration = humantime_serde::re::humantime::parse_duration(text);
            let duration = duration
                .map_err(|_| format!("{text:?} is not a time with a unit, such as 500ms or 2m"))?;
            u64::try_from(duration.as_millis()).map_err(|_| format!("{text} is too long"))
        }
    }
}

/// A limit's value, as it is written.
pub(crate) fn show(value: u64, unit: Unit) -> String {
    match unit {
        Unit::Count => value.to_string(),
        Unit::Bytes => Size::bytes(value).to_string(),
        Unit::Milliseconds => {
            let duration = std::time::Duration::from_millis(value);
            let text = humantime_serde::re::humantime::format_duration(duration);
            text.to_string()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_unit_of_their_limit() {
        let value = |text| parse_change(text).map(|change| change.value);
        assert_eq!(value("sessions-max=1_000"), Ok(1000));
        assert_eq!(value("memory-max=128MiB"), Ok(128 << 20));
        assert_eq!(value("session-timeout=1m 30s"), Ok(90_000));
        for wrong in [
            "sessions-max",
            "sessions=1",
            "sessions-max=1s",
            "sessions-max=0",
            "sessions-max=",
            "memory-max=134217728",
            "memory-max=5GiB",
            "session-timeout=90000",
            "session-timeout=1ms",
        ] {
            assert!(value(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_shown_can_be_set() {
        for named in NAMED {
            for value in [named.least, named.most] {
                let shown = show(value, named.unit);
                assert_eq!(parse_value(&shown, named.unit), Ok(value), "{shown}");
            }
        }
    }
}
