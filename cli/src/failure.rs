//! Errors as users see them: a stable slug, one sentence, where, and what to do about it.

use std::io::{self, Write as _};

use quorate_host::admin::{ApiError, ErrorBody};
use quorate_host::config;

use crate::args::Format;
use crate::output::Exit;

/// A command that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    exit: Exit,
    slug: Slug,
    messages: Vec<Message>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Message {
    slug: Slug,
    text: String,
    place: Option<String>,
    hint: Option<String>,
}

macro_rules! slugs {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// The kinds of failures. The texts are stable, and each has a page in docs/errors.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Slug {
            $($(#[$doc])* $name,)*
        }

        impl Slug {
            /// Every slug and its page.
            pub(crate) const PAGES: &[(Self, &str)] = &[
                $((Self::$name, include_str!(concat!("../../docs/errors/", $text, ".md"))),)*
            ];

            /// The slug of this text, if there is one.
            pub(crate) fn of(text: &str) -> Option<Self> {
                let mut pages = Self::PAGES.iter();
                pages.find(|(slug, _)| slug.text() == text).map(|(slug, _)| *slug)
            }

            /// The text of this slug.
            pub(crate) fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

slugs! {
    /// The module answered with an error of its own.
    ApplicationError = "application-error",
    /// A node's own code panics at an operation.
    ApplyPanicked = "apply-panicked",
    /// Cargo did not build a module.
    BuildFailed = "build-failed",
    /// A node cannot listen where it should.
    CannotListen = "cannot-listen",
    /// `cluster status` found something.
    ClusterUnhealthy = "cluster-unhealthy",
    /// A configuration was refused.
    ConfigInvalid = "config-invalid",
    /// A folder that should be new has something in it.
    DirectoryNotEmpty = "directory-not-empty",
    /// `doctor` found something.
    DoctorFailed = "doctor-failed",
    /// A node did not answer with a hash.
    HashIncomplete = "hash-incomplete",
    /// Trouble on this machine.
    HostError = "host-error",
    /// Something that should be JSON, hexadecimal or a readable file is not.
    InvalidInput = "invalid-input",
    /// The module does not show payloads as JSON, or refused to.
    NoJson = "no-json",
    /// Limits cannot be set so.
    LimitsRefused = "limits-refused",
    /// A module's `quorate_init` fails.
    ModuleInitFailed = "module-init-failed",
    /// More of a module's data is to be dropped than one entry may.
    ModuleDataTooLarge = "module-data-too-large",
    /// Not all bytes of a module are kept.
    ModuleIncomplete = "module-incomplete",
    /// A migration in steps ended without the module it led to.
    ModuleMigrationGivenUp = "module-migration-given-up",
    /// A migration in steps is under way.
    ModuleMigrating = "module-migrating",
    /// `init` or `migrate` failed.
    ModuleMigrationFailed = "module-migration-failed",
    /// Another module than the one whose data is there.
    ModuleName = "module-name",
    /// No room for another module.
    ModuleNoRoom = "module-no-room",
    /// There is data where a module is to be installed.
    ModuleNotEmpty = "module-not-empty",
    /// A module is in force, and a node has not applied that in time.
    ModuleNotEverywhere = "module-not-everywhere",
    /// Nodes do not have a module ready.
    ModuleNotReady = "module-not-ready",
    /// A plan's migration went on too long.
    ModulePlanUnfinished = "module-plan-unfinished",
    /// A module breaks a rule of admission.
    ModuleRejected = "module-rejected",
    /// No migration leads to a module.
    ModuleStateVersion = "module-state-version",
    /// Another module was put in force meanwhile.
    ModuleSuperseded = "module-superseded",
    /// The module trapped or met a limit.
    ModuleTrapped = "module-trapped",
    /// No such module is kept.
    ModuleUnknown = "module-unknown",
    /// Nodes answer, none leads.
    NoLeader = "no-leader",
    /// The cluster has no module yet.
    NoModule = "no-module",
    /// A folder has no crate that makes a module.
    NoModuleCrate = "no-module-crate",
    /// The cluster has no such session.
    NoSession = "no-session",
    /// Decided: not applied.
    NotApplied = "not-applied",
    /// A node failed to start or to go on.
    NodeStopped = "node-stopped",
    /// The deadline passed after sending.
    OutcomeUnknown = "outcome-unknown",
    /// A module does not do what its script says.
    ScriptFailed = "script-failed",
    /// The session is gone.
    SessionEnded = "session-ended",
    /// The session was refused.
    SessionRefused = "session-refused",
    /// Not every node was told to skip an operation.
    SkipIncomplete = "skip-incomplete",
    /// An operation is not to be skipped.
    SkipRefused = "skip-refused",
    /// Two nodes have different states.
    StateHashMismatch = "state-hash-mismatch",
    /// There is nothing that builds modules.
    ToolchainMissing = "toolchain-missing",
    /// `explain` does not know it.
    NotAnError = "unknown-slug",
    /// No node answered.
    Unreachable = "unreachable",
}

impl Failure {
    pub(crate) fn new(exit: Exit, slug: Slug, text: impl Into<String>) -> Box<Self> {
        let message = Message {
            slug,
            text: text.into(),
            place: None,
            hint: None,
        };
        Box::new(Self {
            exit,
            slug,
            messages: vec![message],
        })
    }

    /// Trouble on this machine.
    pub(crate) fn host(text: impl Into<String>) -> Box<Self> {
        Self::new(Exit::REFUSED, Slug::HostError, text)
    }

    /// Something that was given cannot be used.
    pub(crate) fn input(text: impl Into<String>) -> Box<Self> {
        Self::new(Exit::USAGE, Slug::InvalidInput, text)
    }

    /// Adds what to do about it; lines after the first are indented.
    pub(crate) fn hint(mut self: Box<Self>, hint: impl Into<String>) -> Box<Self> {
        if let Some(message) = self.messages.last_mut() {
            message.hint = Some(hint.into());
        }
        self
    }

    /// Adds another one, which is shown after this one; exit code and slug stay this one's.
    pub(crate) fn and(mut self: Box<Self>, other: Self) -> Box<Self> {
        self.messages.extend(other.messages);
        self
    }

    /// What happened, without slug and hint.
    pub(crate) fn message(&self) -> String {
        let messages: Vec<_> = self.messages.iter().map(|it| it.text.as_str()).collect();
        messages.join("\n")
    }

    /// What kind of failure it is.
    pub(crate) fn slug(&self) -> Slug {
        self.slug
    }

    /// The exit code.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// As text, each message a block.
    pub(crate) fn text(&self, colored: bool) -> String {
        let (bold_red, plain) = if colored {
            ("\x1b[1;31m", "\x1b[0m")
        } else {
            ("", "")
        };
        let mut shown = String::new();
        for message in &self.messages {
            let slug = message.slug.text();
            shown += &format!("{bold_red}error[{slug}]{plain}: {}\n", message.text);
            if let Some(place) = &message.place {
                shown += &format!("{place}\n");
            }
            if let Some(hint) = &message.hint {
                shown += &format!("  hint: {}\n", hint.replace('\n', "\n        "));
            }
        }
        shown
    }

    /// As JSON, one object.
    pub(crate) fn json(&self) -> String {
        let with_place = |message: &Message| match &message.place {
            Some(place) => format!("{}\n{place}", message.text),
            None => message.text.clone(),
        };
        let messages: Vec<_> = self.messages.iter().map(with_place).collect();
        let error = ErrorBody {
            code: self.slug.text().to_owned(),
            message: messages.join("\n"),
            hint: self
                .messages
                .iter()
                .find_map(|message| message.hint.clone()),
            leader: None,
        };
        serde_json::to_string(&ApiError { error }).expect("texts have no trouble in JSON")
    }

    /// Writes it to standard error.
    pub(crate) fn report(&self, format: Format, colored: bool) {
        let text = match format {
            Format::Text => self.text(colored),
            Format::Json => self.json() + "\n",
        };
        // Where standard error is gone there is nobody to tell; the exit code remains.
        let _ = io::stderr().write_all(text.as_bytes());
    }
}

impl From<config::Error> for Box<Failure> {
    fn from(error: config::Error) -> Self {
        let messages = error.problems().iter().map(|problem| Message {
            slug: Slug::ConfigInvalid,
            text: problem.message.clone(),
            place: problem.place.clone(),
            hint: problem.hint.clone(),
        });
        let messages = messages.collect();
        Self::new(Failure {
            exit: Exit::USAGE,
            slug: Slug::ConfigInvalid,
            messages,
        })
    }
}
