//! How far something that takes time is.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::args::{Format, Options};

/// Between two pictures of what goes on by itself.
const TICK: Duration = Duration::from_millis(200);

/// A bar on standard error, if that is a terminal; else nothing.
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    pub(crate) fn new(options: &Options) -> Self {
        let is_shown = std::io::stderr().is_terminal() && options.output == Format::Text;
        let bar = match is_shown {
            true => ProgressBar::no_length(),
            false => ProgressBar::hidden(),
        };
        Self { bar }
    }

    pub(crate) fn is_shown(&self) -> bool {
        !self.bar.is_hidden()
    }

    /// Begins a part of `length` steps; 0: nobody knows how many.
    pub(crate) fn begin(&self, length: u64, what: &str) {
        let template = match length {
            0 => "{spinner} {wide_msg}",
            _ => "{spinner} {msg} [{bar:30}] {pos}/{len}",
        };
        let style = ProgressStyle::with_template(template).expect("the template is a constant");
        self.bar.reset();
        self.bar.set_style(style);
        self.bar.set_length(length);
        self.say(what);
        if self.is_shown() {
            self.bar.enable_steady_tick(TICK);
        }
    }

    pub(crate) fn reached(&self, position: u64) {
        self.bar.set_position(position);
    }

    pub(crate) fn say(&self, what: &str) {
        self.bar.set_message(what.to_owned());
    }

    /// Nothing of it stays on the terminal.
    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
