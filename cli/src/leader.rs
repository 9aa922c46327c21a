//! Asking the leader for something that may be asked again: while leadership changes, whoever leads
//! then is asked, until the deadline.

use quorate_host::admin::ErrorBody;
use tokio::time::{Duration, Instant, sleep};

use crate::args::Options;
use crate::failure::{Failure, Slug};
use crate::http;
use crate::output::Exit;
use crate::session::find;

/// Between attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// What is asked: whether it changes anything decides what is said when no answer comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asks {
    /// It only looks, or stores what is of no effect.
    Harmless,
    /// Without an answer it may have been done, or not.
    Change,
}

/// What to do after an attempt that came to nothing.
#[derive(Debug)]
enum Next {
    /// Ask this node: it leads.
    Ask(String),
    /// Look again who leads.
    Look(Box<Failure>),
    /// Tell.
    Fail(Box<Failure>),
}

/// Remembers who leads from one request to the next.
#[derive(Debug)]
pub(crate) struct Leader<'a> {
    options: &'a Options,
    deadline: Instant,
    known: Option<String>,
}

impl<'a> Leader<'a> {
    /// Whoever leads, by way of the endpoints of `options`.
    pub(crate) fn new(options: &'a Options, deadline: Instant) -> Self {
        Self {
            options,
            deadline,
            known: None,
        }
    }

    /// Asks whoever leads, again and again while that changes. The request is given an address and
    /// until when it may be answered.
    pub(crate) async fn ask<T>(
        &mut self,
        asks: Asks,
        request: impl AsyncFn(String, Instant) -> Result<T, http::Error>,
    ) -> Result<T, Box<Failure>> {
        // Of all attempts: one that may have been done makes the whole unknown.
        let mut unknown = None;
        loop {
            let asked = match self.known.take() {
                Some(admin) => Some(admin),
                None => find(self.options, self.deadline).await?.leader_admin(),
            };
            let next = match asked {
                None => Next::Look(no_leader("no node leads")),
                Some(admin) => match request(admin.clone(), self.deadline).await {
                    Ok(answer) => {
                        self.known = Some(admin);
                        return Ok(answer);
                    }
                    Err(error) => {
                        if asks == Asks::Change && is_unknown(&error) {
                            unknown = Some(outcome_unknown(&error));
                        }
                        next(&admin, error)
                    }
                },
            };
            match next {
                Next::Ask(admin) => self.known = Some(admin),
                Next::Fail(failure) => return Err(failure),
                Next::Look(failure) if Instant::now() + PAUSE >= self.deadline => {
                    return Err(unknown.unwrap_or(failure));
                }
                Next::Look(_) => {}
            }
            sleep(PAUSE).await;
        }
    }
}

/// Whether what was asked for may have been done.
fn is_unknown(error: &http::Error) -> bool {
    match error {
        http::Error::NotSent(_) => false,
        http::Error::NoAnswer(_) => true,
        http::Error::Refused(_, error) => matches!(&*error.code, "outcome-unknown" | "timeout"),
    }
}

fn outcome_unknown(error: &http::Error) -> Box<Failure> {
    let text = format!("it is not known what became of it: {error}");
    Failure::new(Exit::UNKNOWN, Slug::OutcomeUnknown, text)
        .hint("`quorate module list` tells; to ask for the same again does no harm")
}

fn next(admin: &str, error: http::Error) -> Next {
    match error {
        http::Error::NotSent(why) | http::Error::NoAnswer(why) => {
            let text = format!("the leader does not answer at {admin}: {why}");
            Next::Look(Failure::new(Exit::UNREACHABLE, Slug::Unreachable, text))
        }
        http::Error::Refused(_, error) => refused(error),
    }
}

fn refused(error: ErrorBody) -> Next {
    match (error.code.as_str(), &error.leader) {
        ("not-leader", Some(leader)) => Next::Ask(leader.clone()),
        ("not-leader", None) => Next::Look(no_leader(&error.message)),
        ("busy" | "not-running" | "outcome-unknown" | "timeout", _) => {
            Next::Look(told(error, Exit::REFUSED))
        }
        ("module-rejected", _) => Next::Fail(told(error, Exit::MODULE_REJECTED)),
        _ => Next::Fail(told(error, Exit::REFUSED)),
    }
}

/// A node's error, under its own slug if that has a page.
fn told(error: ErrorBody, exit: Exit) -> Box<Failure> {
    let slug = Slug::of(&error.code).unwrap_or(Slug::NotApplied);
    let failure = Failure::new(exit, slug, error.message);
    match error.hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

fn no_leader(text: &str) -> Box<Failure> {
    Failure::new(Exit::UNREACHABLE, Slug::NoLeader, text)
        .hint("a majority of the nodes must run and reach each other: `quorate cluster status`")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(code: &str, leader: Option<&str>) -> ErrorBody {
        ErrorBody {
            code: code.to_owned(),
            message: code.to_owned(),
            hint: None,
            leader: leader.map(str::to_owned),
        }
    }

    #[test]
    fn who_does_not_lead_is_left_for_who_does() {
        let named = refused(answered("not-leader", Some("n2:3")));
        assert!(matches!(named, Next::Ask(admin) if admin == "n2:3"));
        for code in ["not-leader", "busy", "not-running", "outcome-unknown"] {
            assert!(matches!(refused(answered(code, None)), Next::Look(_)));
        }
        let silent = next("n1:3", http::Error::NoAnswer("reset".to_owned()));
        assert!(matches!(silent, Next::Look(_)));
    }

    #[test]
    fn what_is_decided_is_told_under_its_own_slug() {
        for (code, exit, slug) in [
            ("module-name", Exit::REFUSED, Slug::ModuleName),
            (
                "module-rejected",
                Exit::MODULE_REJECTED,
                Slug::ModuleRejected,
            ),
            ("of-a-later-release", Exit::REFUSED, Slug::NotApplied),
        ] {
            let Next::Fail(failure) = refused(answered(code, None)) else {
                panic!("{code} is tried again");
            };
            assert_eq!((failure.exit(), failure.slug()), (exit, slug));
        }
    }

    #[test]
    fn what_may_have_been_done_is_not_called_undone() {
        let refused = |code| {
            let status = hyper::StatusCode::SERVICE_UNAVAILABLE;
            http::Error::Refused(status, answered(code, None))
        };
        assert!(is_unknown(&http::Error::NoAnswer("reset".to_owned())));
        assert!(is_unknown(&refused("outcome-unknown")));
        assert!(is_unknown(&refused("timeout")));
        assert!(!is_unknown(&refused("not-leader")));
        assert!(!is_unknown(&http::Error::NotSent("refused".to_owned())));
    }
}
