//! `quorate session close`: ends a session by way of the leader.

use quorate_host::admin::{Closed, ErrorBody};
use tokio::time::Instant;

use super::session_show::no_session;
use crate::args::session::One;
use crate::args::{Format, Options};
use crate::confirm::confirm;
use crate::failure::Failure;
use crate::leader::{Next, Request, Unanswered, failure_of};
use crate::output::{Exit, print, print_json};

/// Closing a session.
const CLOSE: Request = Request {
    refused,
    unanswered: Unanswered::Tell(
        "`quorate session show` tells whether it still is; to close it again does no harm",
    ),
};

pub(crate) async fn run(arguments: &One, options: &Options) -> Result<Exit, Box<Failure>> {
    let what = format!("closing session {} cuts off its client", arguments.id);
    confirm(&what, options)?;
    let deadline = Instant::now() + options.timeout;
    let path = format!("/v1/sessions/{}/close", arguments.id);
    let closed = CLOSE.post(&path, &(), options, deadline).await?;
    told(&closed, options)
}

fn told(closed: &Closed, options: &Options) -> Result<Exit, Box<Failure>> {
    match options.output {
        Format::Text => print(&format!("closed {}", closed.id))?,
        Format::Json => print_json(closed)?,
    }
    Ok(Exit::OK)
}

fn refused(error: ErrorBody) -> Next {
    match error.code.as_str() {
        "no-session" => Next::Fail(no_session(error.message)),
        "busy" | "not-running" => Next::Look(failure_of(error, Exit::REFUSED)),
        _ => Next::Fail(failure_of(error, Exit::REFUSED)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Slug;
    use crate::http;

    fn answered(code: &str, leader: Option<&str>) -> Next {
        CLOSE.refusal(ErrorBody {
            code: code.to_owned(),
            message: code.to_owned(),
            hint: None,
            leader: leader.map(str::to_owned),
        })
    }

    fn failed(next: Next) -> Option<(Exit, Slug)> {
        match next {
            Next::Fail(failure) => Some((failure.exit(), failure.slug())),
            Next::Ask(_) | Next::Look(_) => None,
        }
    }

    #[test]
    fn what_may_have_been_done_is_not_called_undone() {
        let unknown = Some((Exit::UNKNOWN, Slug::OutcomeUnknown));
        assert_eq!(failed(answered("outcome-unknown", None)), unknown);
        assert_eq!(failed(answered("timeout", None)), unknown);
        let silent = http::Error::NoAnswer("reset".to_owned());
        assert_eq!(failed(CLOSE.after("n1:3", silent)), unknown);
        let continued = Some((Exit::REFUSED, Slug::NotApplied));
        assert_eq!(failed(answered("session-continued", None)), continued);
        let gone = Some((Exit::REFUSED, Slug::NoSession));
        assert_eq!(failed(answered("no-session", None)), gone);
    }

    #[test]
    fn who_does_not_lead_is_left_for_who_does() {
        let named = answered("not-leader", Some("n2:3"));
        assert!(matches!(named, Next::Ask(admin) if admin == "n2:3"));
        assert!(matches!(answered("not-leader", None), Next::Look(_)));
        assert!(matches!(answered("busy", None), Next::Look(_)));
        let absent = http::Error::NotSent("refused".to_owned());
        assert!(matches!(CLOSE.after("n1:3", absent), Next::Look(_)));
    }
}
