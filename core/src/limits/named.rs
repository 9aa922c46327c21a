//! The limits by name, as operators know them: what each counts, and between which bounds it may lie.

use super::Limits;

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Things: sessions, responses, effects, fuel.
    Count,
    /// Bytes.
    Bytes,
    /// Milliseconds.
    Milliseconds,
}

impl Unit {
    /// `count`, `bytes` or `milliseconds`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Bytes => "bytes",
            Self::Milliseconds => "milliseconds",
        }
    }
}

/// A limit that has a name.
#[derive(Debug)]
pub struct Named {
    /// Its name.
    pub name: &'static str,
    /// What it counts.
    pub unit: Unit,
    /// The least that it may be set to.
    pub least: u64,
    /// The most.
    pub most: u64,
    get: fn(&Limits) -> u64,
    set: fn(&mut Limits, u64),
}

impl Named {
    /// What it is set to.
    pub fn of(&self, limits: &Limits) -> u64 {
        (self.get)(limits)
    }
}

/// Limits that cannot be in force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// There is no limit of this name.
    #[error("there is no limit {name}")]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// It may not be set to this.
    #[error("{name} is {value}; it must be from {least} to {most} {}", unit.name())]
    OutOfRange {
        /// Which limit.
        name: &'static str,
        /// What it would be.
        value: u64,
        /// The least that it may be.
        least: u64,
        /// The most.
        most: u64,
        /// Of these numbers.
        unit: Unit,
    },
    /// One would be more than another that must be at least as much.
    #[error("{low} would be more than {high}")]
    Order {
        /// The one that must not be more.
        low: &'static str,
        /// The other one.
        high: &'static str,
    },
    /// Memory comes in pages.
    #[error("memory-max is {value} bytes, not whole pages of 64 KiB")]
    Pages {
        /// What it would be.
        value: u64,
    },
}

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

macro_rules! named {
    ($($name:literal $unit:ident $least:expr, $most:expr => $($field:ident).+ : $type:ty;)*) => {
        &[$(Named {
            name: $name,
            unit: Unit::$unit,
            least: $least,
            most: $most,
            get: |limits| u64::from(limits.$($field).+),
            // Within its bounds by then, which its type holds.
            set: |limits, value| limits.$($field).+ = value as $type,
        }),*]
    };
}

/// Every limit, in the order in which they are shown.
#[rustfmt::skip]
pub const NAMED: &[Named] = named! {
    "session-timeout" Milliseconds 100, 7 * DAY_MS => session_timeout_ms: u32;
    "session-timeout-min" Milliseconds 100, 7 * DAY_MS => session_timeout_min_ms: u32;
    "session-timeout-max" Milliseconds 100, 7 * DAY_MS => session_timeout_max_ms: u32;
    "sessions-max" Count 1, 10_000_000 => sessions_max: u64;
    "requests-in-flight-per-session" Count 1, 4096 => cached_responses_max: u32;
    "cached-bytes-per-session" Bytes KIB, 64 * MIB => cached_bytes_max: u64;
    "outbox-requests-per-session" Count 1, 1_000_000 => outbox_requests_max: u32;
    "outbox-bytes-per-session" Bytes KIB, 1024 * MIB => outbox_bytes_max: u64;
    "command-max" Bytes KIB, MIB => command_bytes_max: u64;
    "module-max" Bytes KIB, 32 * MIB => module.module_bytes_max: u64;
    "fuel-per-command" Count 1_000_000, 1_000_000_000_000 => module.fuel_per_command: u64;
    "memory-max" Bytes MIB, 4096 * MIB => module.memory_bytes_max: u64;
    "writes-per-command" Bytes KIB, 64 * MIB => module.write_bytes_max: u64;
    "response-max" Bytes KIB, MIB => module.response_bytes_max: u64;
    "effects-per-command" Count 1, 100_000 => module.effects_max: u64;
    "effect-bytes-per-command" Bytes KIB, 64 * MIB => module.effect_bytes_max: u64;
};

impl Limits {
    /// Sets the limit of this name. Whether the limits as a whole can be in force is for
    /// [`Limits::check`].
    ///
    /// # Errors
    /// [`Invalid::Unknown`], [`Invalid::OutOfRange`].
    pub fn set(&mut self, name: &str, value: u64) -> Result<(), Invalid> {
        let mut named = NAMED.iter();
        let Some(named) = named.find(|named| named.name == name) else {
            let name = name.chars().take(64).collect();
            return Err(Invalid::Unknown { name });
        };
        if !(named.least..=named.most).contains(&value) {
            return Err(Invalid::OutOfRange {
                name: named.name,
                value,
                least: named.least,
                most: named.most,
                unit: named.unit,
            });
        }
        (named.set)(self, value);
        Ok(())
    }

    /// Whether they can be in force together.
    ///
    /// # Errors
    /// [`Invalid::Order`], [`Invalid::Pages`].
    pub fn check(&self) -> Result<(), Invalid> {
        let (min, default, max) = (
            ("session-timeout-min", self.session_timeout_min_ms),
            ("session-timeout", self.session_timeout_ms),
            ("session-timeout-max", self.session_timeout_max_ms),
        );
        for (low, high) in [(min, default), (default, max)] {
            if low.1 > high.1 {
                let (low, high) = (low.0, high.0);
                return Err(Invalid::Order { low, high });
            }
        }
        match self.module.memory_bytes_max {
            value if !value.is_multiple_of(64 * KIB) => Err(Invalid::Pages { value }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_is_set_and_read_by_its_name_and_no_other_changes() {
        let names: std::collections::BTreeSet<_> = NAMED.iter().map(|named| named.name).collect();
        assert_eq!(names.len(), NAMED.len());
        for named in NAMED {
            for value in [named.least, named.most] {
                let mut limits = Limits::default();
                assert_eq!(limits.set(named.name, value), Ok(()));
                for other in NAMED {
                    let expected = match other.name == named.name {
                        true => value,
                        false => other.of(&Limits::default()),
                    };
                    assert_eq!(other.of(&limits), expected, "{}", other.name);
                }
            }
        }
    }

    #[test]
    fn what_limits_begin_with_may_be_set_and_is_consistent() {
        let mut limits = Limits::default();
        for named in NAMED {
            let value = named.of(&limits);
            assert_eq!(limits.set(named.name, value), Ok(()));
        }
        assert_eq!(limits, Limits::default());
        assert_eq!(limits.check(), Ok(()));
    }

    #[test]
    fn what_is_unknown_out_of_bounds_or_contradicts_itself_is_refused() {
        let mut limits = Limits::default();
        let name = "sessions".to_owned();
        assert_eq!(limits.set("sessions", 1), Err(Invalid::Unknown { name }));
        for named in NAMED {
            for value in [named.least - 1, named.most + 1] {
                let refused = limits.set(named.name, value);
                assert!(matches!(refused, Err(Invalid::OutOfRange { .. })));
            }
        }
        assert_eq!(limits, Limits::default());
        limits.session_timeout_min_ms = limits.session_timeout_ms + 1;
        assert!(matches!(limits.check(), Err(Invalid::Order { .. })));
        limits = Limits::default();
        limits.session_timeout_ms = limits.session_timeout_max_ms + 1;
        assert!(matches!(limits.check(), Err(Invalid::Order { .. })));
        limits = Limits::default();
        limits.module.memory_bytes_max += 1;
        assert!(matches!(limits.check(), Err(Invalid::Pages { .. })));
    }
}
