//! What an operator asks of the leader over its admin listener, whichever node that is meanwhile.

use quorate_host::admin::ErrorBody;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Duration, Instant, sleep};

use crate::args::Options;
use crate::failure::{Failure, Slug};
use crate::http;
use crate::output::Exit;
use crate::session::find;

/// Between attempts, while the leader changes.
const PAUSE: Duration = Duration::from_millis(100);

/// What to do after an attempt that changed nothing.
#[derive(Debug)]
pub(crate) enum Next {
    /// Ask this node: it leads.
    Ask(String),
    /// Look again who leads.
    Look(Box<Failure>),
    /// Tell.
    Fail(Box<Failure>),
}

/// What to do without an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Unanswered {
    /// Ask again: nothing is changed that anybody would notice.
    Again,
    /// Ask again: a second time changes nothing more. What it says is how an operator finds out in
    /// the end whether it was done.
    Repeat(&'static str),
    /// Tell, for a second time would be answered otherwise, and how an operator finds out.
    Tell(&'static str),
}

/// A kind of request that may be made again.
#[derive(Debug)]
pub(crate) struct Request {
    /// What a refusal means that is not one of those that every request may get.
    pub(crate) refused: fn(ErrorBody) -> Next,
    /// What follows when it may have been done.
    pub(crate) unanswered: Unanswered,
}

impl Request {
    /// Asks whoever leads, until it is done, refused for good, or `deadline`.
    ///
    /// # Errors
    /// Refused, no leader in time, or it is not known whether it was done.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        options: &Options,
        deadline: Instant,
    ) -> Result<T, Box<Failure>> {
        let mut leader = Leader::new(options, deadline);
        let post = async |admin: String, until| http::post(&admin, path, body, until).await;
        leader.ask(self, post).await
    }

    /// What an attempt at the node `admin` means that did not succeed.
    pub(crate) fn after(&self, admin: &str, error: http::Error) -> Next {
        match error {
            http::Error::NotSent(why) => Next::Look(silent(admin, &why)),
            http::Error::NoAnswer(why) => self
                .unanswered(format!("no answer of {admin}: {why}"), |_| {
                    silent(admin, &why)
                }),
            http::Error::Refused(_, error) => self.refusal(error),
        }
    }

    /// What a refusal means.
    pub(crate) fn refusal(&self, mut error: ErrorBody) -> Next {
        match (error.code.as_str(), error.leader.take()) {
            ("not-leader", Some(leader)) => Next::Ask(leader),
            ("not-leader", None) => Next::Look(no_leader(&error.message)),
            ("outcome-unknown" | "timeout", _) => self.unanswered(error.message, |text| {
                Failure::new(Exit::UNREACHABLE, Slug::Unreachable, text)
            }),
            _ => (self.refused)(error),
        }
    }

    fn unanswered(&self, text: String, harmless: impl FnOnce(String) -> Box<Failure>) -> Next {
        let unknown =
            |text, hint| Failure::new(Exit::UNKNOWN, Slug::OutcomeUnknown, text).hint(hint);
        match self.unanswered {
            Unanswered::Again => Next::Look(harmless(text)),
            Unanswered::Repeat(hint) => Next::Look(unknown(text, hint)),
            Unanswered::Tell(hint) => Next::Fail(unknown(text, hint)),
        }
    }
}

/// Whoever leads: remembered from one request to the next.
#[derive(Debug)]
pub(crate) struct Leader<'a> {
    options: &'a Options,
    deadline: Instant,
    known: Option<String>,
}

impl<'a> Leader<'a> {
    /// By way of the endpoints of `options`.
    pub(crate) fn new(options: &'a Options, deadline: Instant) -> Self {
        Self {
            options,
            deadline,
            known: None,
        }
    }

    /// Asks again and again while leadership changes. `send` is given an address and until when it
    /// may be answered.
    ///
    /// # Errors
    /// Refused, no leader in time, or it is not known whether it was done.
    pub(crate) async fn ask<T>(
        &mut self,
        request: &Request,
        send: impl AsyncFn(String, Instant) -> Result<T, http::Error>,
    ) -> Result<T, Box<Failure>> {
        // One attempt that may have been done makes the whole unknown.
        let mut unknown: Option<Box<Failure>> = None;
        loop {
            let asked = match self.known.take() {
                Some(admin) => Some(admin),
                None => match find(self.options, self.deadline).await {
                    Ok(known) => known.leader_admin(),
                    Err(failure) => return Err(unknown.unwrap_or(failure)),
                },
            };
            let next = match asked {
                None => Next::Look(no_leader("no node leads")),
                Some(admin) => match send(admin.clone(), self.deadline).await {
                    Ok(answer) => {
                        self.known = Some(admin);
                        return Ok(answer);
                    }
                    Err(error) => request.after(&admin, error),
                },
            };
            match next {
                Next::Ask(admin) => self.known = Some(admin),
                Next::Fail(failure) => {
                    let is_late = failure.slug() == Slug::ModuleSuperseded;
                    return Err(match unknown {
                        // What superseded it may have come after what an attempt before this did.
                        Some(unknown) if is_late => unknown.and(*failure),
                        _ => failure,
                    });
                }
                Next::Look(failure) => {
                    if failure.slug() == Slug::OutcomeUnknown {
                        unknown = Some(failure.clone());
                    }
                    if Instant::now() + PAUSE >= self.deadline {
                        return Err(unknown.unwrap_or(failure));
                    }
                }
            }
            sleep(PAUSE).await;
        }
    }
}

fn silent(admin: &str, why: &str) -> Box<Failure> {
    let text = format!("the leader does not answer at {admin}: {why}");
    Failure::new(Exit::UNREACHABLE, Slug::Unreachable, text)
}

fn no_leader(text: &str) -> Box<Failure> {
    Failure::new(Exit::UNREACHABLE, Slug::NoLeader, text)
        .hint("a majority of the nodes must run and reach each other: `quorate cluster status`")
}

/// A node's error, under its own slug if that has a page.
pub(crate) fn failure_of(error: ErrorBody, exit: Exit) -> Box<Failure> {
    let slug = Slug::of(&error.code).unwrap_or(Slug::NotApplied);
    let failure = Failure::new(exit, slug, error.message);
    match error.hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
