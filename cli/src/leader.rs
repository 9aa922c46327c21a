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

/// A kind of request that may be made again.
#[derive(Debug)]
pub(crate) struct Request {
    /// What a refusal means that is not one of those that every request may get.
    pub(crate) refused: fn(ErrorBody) -> Next,
    /// How an operator finds out what became of one without an answer.
    pub(crate) unknown_hint: &'static str,
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
        let mut leader = None;
        loop {
            let asked = match leader.take() {
                Some(admin) => Some(admin),
                None => find(options, deadline).await?.leader_admin(),
            };
            let next = match asked {
                None => Next::Look(no_leader("no node leads")),
                Some(admin) => match http::post(&admin, path, body, deadline).await {
                    Ok(answer) => return Ok(answer),
                    Err(error) => self.after(&admin, error),
                },
            };
            match next {
                Next::Ask(admin) => leader = Some(admin),
                Next::Fail(failure) => return Err(failure),
                Next::Look(failure) if Instant::now() + PAUSE >= deadline => return Err(failure),
                Next::Look(_) => {}
            }
            sleep(PAUSE).await;
        }
    }

    /// What an attempt at the node `admin` means that did not succeed.
    pub(crate) fn after(&self, admin: &str, error: http::Error) -> Next {
        match error {
            http::Error::NotSent(why) => {
                let text = format!("the leader does not answer at {admin}: {why}");
                Next::Look(Failure::new(Exit::UNREACHABLE, Slug::Unreachable, text))
            }
            http::Error::NoAnswer(why) => {
                Next::Fail(self.unknown(format!("no answer of {admin}: {why}")))
            }
            http::Error::Refused(_, error) => self.refusal(error),
        }
    }

    /// What a refusal means.
    pub(crate) fn refusal(&self, mut error: ErrorBody) -> Next {
        match (error.code.as_str(), error.leader.take()) {
            ("not-leader", Some(leader)) => Next::Ask(leader),
            ("not-leader", None) => Next::Look(no_leader(&error.message)),
            ("outcome-unknown" | "timeout", _) => Next::Fail(self.unknown(error.message)),
            _ => (self.refused)(error),
        }
    }

    fn unknown(&self, text: String) -> Box<Failure> {
        Failure::new(Exit::UNKNOWN, Slug::OutcomeUnknown, text).hint(self.unknown_hint)
    }
}

fn no_leader(text: &str) -> Box<Failure> {
    Failure::new(Exit::UNREACHABLE, Slug::NoLeader, text)
        .hint("a majority of the nodes must run and reach each other: `quorate cluster status`")
}
