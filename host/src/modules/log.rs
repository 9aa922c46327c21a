//! What modules said on this node, and which were not put in force here: the newest of it, in memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quorate_core::context::Place;
use quorate_core::module::{Export, ModuleHash, Trap};
use quorate_engine::{Diagnostic, Diagnostics, Fuel, LogLevel, Origin};
use tokio::sync::watch;

use crate::drive::Driver;

/// Lines that are kept, and their bytes; beyond, the oldest are forgotten.
const LINES_MAX: usize = 4096;
const BYTES_MAX: usize = 4 << 20;
/// What a line counts beside its texts.
const LINE_BYTES: usize = 128;
/// Refusals that are kept.
const REFUSED_MAX: usize = 64;
/// Lines that a refusal holds: more than one trap has.
const REFUSED_LINES_MAX: usize = 16;

/// Something that a module said or did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// 1, 2, 3, ... on this node since its process began.
    pub number: u64,
    /// The node's wall clock, microseconds since the Unix epoch.
    pub time_us: u64,
    /// Which module.
    pub module: ModuleHash,
    /// In which operation of the log, if in one.
    pub place: Option<Place>,
    /// What.
    pub said: Said,
}

/// What a [`Line`] tells. Texts hold no control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// It logged a line.
    Logged {
        /// As serious as it says.
        level: LogLevel,
        /// The line.
        text: String,
    },
    /// It logged more lines than one instance may.
    Dropped {
        /// How many were dropped.
        lines: u64,
    },
    /// It panicked.
    Panicked {
        /// What it said.
        message: String,
        /// Its source file.
        file: String,
        /// The line in that file.
        line: u32,
    },
    /// A call of it trapped.
    Trapped {
        /// How.
        trap: Trap,
        /// In which export.
        export: Export,
        /// The guest's functions, innermost first.
        backtrace: Vec<String>,
        /// What the call used; `None` for a query.
        fuel: Option<Fuel>,
    },
}

/// A module that was to be put in force, and was not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Index of the entry.
    pub index: u64,
    /// The module.
    pub module: ModuleHash,
    /// The stable slug of the reason.
    pub code: &'static str,
    /// The reason, which is the same on every node.
    pub message: String,
    /// What this node saw meanwhile: panics and traps.
    pub lines: Vec<Line>,
}

/// Which lines are asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Selection {
    /// Only those after this number.
    pub after: u64,
    /// Only those at or after this time.
    pub since_us: u64,
    /// Only those of this module.
    pub module: Option<ModuleHash>,
    /// At most so many, the newest of them if `after` is 0.
    pub limit: usize,
}

/// The log of modules on one node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ModuleLog(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    driver: Driver,
    kept: Mutex<Kept>,
    newest: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<Line>,
    bytes: usize,
    refused: VecDeque<Refused>,
}

impl ModuleLog {
    /// An empty one, with the time of `driver`.
    pub fn new(driver: Driver) -> Self {
        Self(Arc::new(Inner {
            driver,
            kept: Mutex::default(),
            newest: watch::Sender::new(0),
        }))
    }

    /// How many lines there were.
    pub fn count(&self) -> u64 {
        *self.0.newest.borrow()
    }

    /// The number of the newest line, sent whenever there is another.
    pub fn newest(&self) -> watch::Receiver<u64> {
        self.0.newest.subscribe()
    }

    /// The lines that `selection` names, oldest first.
    pub fn select(&self, selection: &Selection) -> Vec<Line> {
        let kept = self.kept();
        let first = kept
            .lines
            .partition_point(|line| line.number <= selection.after);
        let is_selected = |line: &&Line| {
            line.time_us >= selection.since_us
                && selection.module.is_none_or(|module| module == line.module)
        };
        let selected = kept.lines.range(first..).filter(is_selected);
        if selection.after > 0 {
            return selected.take(selection.limit).cloned().collect();
        }
        let mut newest: Vec<_> = selected.rev().take(selection.limit).cloned().collect();
        newest.reverse();
        newest
    }

    /// Notes that a module was not put in force; what it, or the one `in_force`, did after the line
    /// `since` explains it.
    pub fn refused(&self, refused: Refused, in_force: Option<ModuleHash>, since: u64) {
        let refused = self.explained(refused, in_force, since);
        let mut kept = self.kept();
        if kept.refused.len() == REFUSED_MAX {
            kept.refused.pop_front();
        }
        kept.refused.push_back(refused);
    }

    /// With what failed after the line `since`, in the calls that put a module in force: queries may
    /// fail meanwhile.
    pub(super) fn explained(
        &self,
        mut refused: Refused,
        in_force: Option<ModuleHash>,
        since: u64,
    ) -> Refused {
        let kept = self.kept();
        let first = kept.lines.partition_point(|line| line.number <= since);
        let mut panicked = None;
        for line in kept.lines.range(first..) {
            if line.module != refused.module && Some(line.module) != in_force {
                continue;
            }
            match &line.said {
                Said::Panicked { .. } => panicked = Some(line),
                Said::Trapped { export, .. } => {
                    // A panic is told right before the trap that it ends in.
                    let panic = panicked.take().filter(|panic| panic.module == line.module);
                    if matches!(export, Export::Init | Export::Migrate | Export::MigrateDown) {
                        refused.lines.extend(panic.cloned());
                        refused.lines.push(line.clone());
                    }
                }
                Said::Logged { .. } | Said::Dropped { .. } => {}
            }
        }
        refused.lines.truncate(REFUSED_LINES_MAX);
        refused
    }

    /// The modules that were not put in force, newest last.
    pub fn all_refused(&self) -> Vec<Refused> {
        self.kept().refused.iter().cloned().collect()
    }

    /// The refusal by the entry at `index`, once it was applied here.
    pub fn refused_at(&self, index: u64) -> Option<Refused> {
        let kept = self.kept();
        let mut refused = kept.refused.iter().rev();
        refused.find(|refused| refused.index == index).cloned()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Diagnostics for ModuleLog {
    fn report(&self, origin: Origin, diagnostic: Diagnostic) {
        let said = match diagnostic {
            Diagnostic::Logged { level, text } => Said::Logged { level, text },
            Diagnostic::LogLinesDropped { lines } => Said::Dropped { lines },
            Diagnostic::Panicked {
                message,
                file,
                line,
            } => Said::Panicked {
                message,
                file,
                line,
            },
            Diagnostic::Trapped {
                trap,
                export,
                backtrace,
                fuel,
            } => Said::Trapped {
                trap,
                export,
                backtrace,
                fuel,
            },
            // A kind of a later engine.
            _ => return,
        };
        let time_us = self.0.driver.wall_us();
        let mut kept = self.kept();
        let number = *self.0.newest.borrow() + 1;
        let line = Line {
            number,
            time_us,
            module: origin.module,
            place: origin.place,
            said,
        };
        kept.bytes += bytes_of(&line);
        kept.lines.push_back(line);
        while kept.lines.len() > LINES_MAX || kept.bytes > BYTES_MAX {
            let Some(oldest) = kept.lines.pop_front() else {
                break;
            };
            kept.bytes -= bytes_of(&oldest);
        }
        // While the lock is held, so that numbers come in order.
        self.0.newest.send_replace(number);
    }
}

/// An export as its module calls it.
pub(crate) fn export_name(export: Export) -> &'static str {
    match export {
        Export::Init => "quorate_init",
        Export::Apply => "quorate_apply",
        Export::Query => "quorate_query",
        Export::Migrate => "quorate_migrate",
        Export::MigrateDown => "quorate_migrate_down",
        Export::PayloadFromJson => "quorate_payload_from_json",
        Export::PayloadToJson => "quorate_payload_to_json",
    }
}

fn bytes_of(line: &Line) -> usize {
    LINE_BYTES
        + match &line.said {
            Said::Logged { text, .. } => text.len(),
            Said::Dropped { .. } => 0,
            Said::Panicked { message, file, .. } => message.len() + file.len(),
            Said::Trapped { backtrace, .. } => backtrace.iter().map(String::len).sum(),
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn say(log: &ModuleLog, module: u8, text: &str) {
        let line = Diagnostic::Logged {
            level: LogLevel::Info,
            text: text.to_owned(),
        };
        log.report(ModuleHash([module; 32]).into(), line);
    }

    fn numbers(log: &ModuleLog, selection: Selection) -> Vec<u64> {
        let lines = log.select(&selection);
        lines.iter().map(|line| line.number).collect()
    }

    fn log() -> ModuleLog {
        ModuleLog::new(Driver::simulation(1, 5))
    }

    #[test]
    fn lines_are_selected_by_number_module_and_count() {
        let log = log();
        (0..6).for_each(|n| say(&log, n % 2, "x"));
        let all = Selection {
            limit: 100,
            ..Selection::default()
        };
        assert_eq!(numbers(&log, all), [1, 2, 3, 4, 5, 6]);
        let module = Some(ModuleHash([1; 32]));
        assert_eq!(numbers(&log, Selection { module, ..all }), [2, 4, 6]);
        assert_eq!(numbers(&log, Selection { limit: 2, ..all }), [5, 6]);
        // Who goes on from a line misses none.
        let on = Selection {
            after: 2,
            limit: 2,
            ..all
        };
        assert_eq!(numbers(&log, on), [3, 4]);
        let since_us = u64::MAX;
        assert!(numbers(&log, Selection { since_us, ..all }).is_empty());
    }

    #[test]
    fn the_oldest_lines_are_forgotten_beyond_either_bound() {
        let log = log();
        (0..LINES_MAX + 7).for_each(|_| say(&log, 1, "x"));
        let all = Selection {
            limit: usize::MAX,
            ..Selection::default()
        };
        let kept = numbers(&log, all);
        assert_eq!((kept.len(), kept[0]), (LINES_MAX, 8));
        let long = "x".repeat(BYTES_MAX / 4 - LINE_BYTES);
        (0..9).for_each(|_| say(&log, 1, &long));
        assert_eq!(numbers(&log, all).len(), 4);
        assert_eq!(log.kept().bytes, BYTES_MAX);
    }

    #[test]
    fn a_refusal_holds_what_the_module_did_meanwhile() {
        let log = log();
        let module = ModuleHash([1; 32]);
        let panic = |message: &str| Diagnostic::Panicked {
            message: message.to_owned(),
            file: "lib.rs".to_owned(),
            line: 3,
        };
        log.report(module.into(), panic("before"));
        let since = *log.newest().borrow();
        say(&log, 1, "only said");
        log.report(module.into(), panic("why"));
        let trap = |export| Diagnostic::Trapped {
            trap: Trap::Wasm,
            export,
            backtrace: Vec::new(),
            fuel: None,
        };
        log.report(module.into(), trap(Export::Migrate));
        // A query meanwhile, and the way down of what is in force.
        let in_force = ModuleHash([2; 32]);
        log.report(in_force.into(), panic("of a query"));
        log.report(in_force.into(), trap(Export::Query));
        log.report(in_force.into(), panic("on the way down"));
        log.report(in_force.into(), trap(Export::MigrateDown));
        log.report(ModuleHash([3; 32]).into(), panic("of another"));
        log.report(ModuleHash([3; 32]).into(), trap(Export::Migrate));
        let refused = |index| Refused {
            index,
            module,
            code: "module-migration-failed",
            message: String::new(),
            lines: Vec::new(),
        };
        let panics = |in_force| -> Vec<String> {
            log.refused(refused(9), in_force, since);
            let lines = log.refused_at(9).map(|refused| refused.lines);
            let panics = lines.unwrap_or_default().into_iter();
            panics
                .filter_map(|line| match line.said {
                    Said::Panicked { message, .. } => Some(message),
                    _ => None,
                })
                .collect()
        };
        assert_eq!(panics(None), ["why"]);
        assert_eq!(panics(Some(in_force)), ["why", "on the way down"]);
        assert!(log.refused_at(8).is_none());
        (0..REFUSED_MAX as u64).for_each(|n| log.refused(refused(100 + n), None, since));
        assert!(log.refused_at(9).is_none());
        assert_eq!(log.all_refused().len(), REFUSED_MAX);
    }
}
