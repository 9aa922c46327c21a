//! `quorate session close`: ends a session by way of the leader.

use quorate_host::admin::{Closed, ErrorBody};
use tokio::time::{Duration, Instant, sleep};

use super::session_show::no_session;
use crate::args::session::One;
use crate::args::{Format, Options};
use crate::confirm::confirm;
use crate::failure::{Failure, Slug};
use crate::http;
use crate::output::{Exit, print, print_json};
use crate::session::find;

/// Between attempts, while the leader changes.
const PAUSE: Duration = Duration::from_millis(100);

/// What to do after an attempt that closed nothing.
#[derive(Debug)]
enum Next {
    /// Ask this node: it leads.
    Ask(String),
    /// Look again who leads.
    Look(Box<Failure>),
    /// Tell.
    Fail(Box<Failure>),
}

pub(crate) async fn run(arguments: &One, options: &Options) -> Result<Exit, Box<Failure>> {
    let what = format!("closing session {} cuts off its client", arguments.id);
    confirm(&what, options)?;
    let deadline = Instant::now() + options.timeout;
    let path = format!("/v1/sessions/{}/close", arguments.id);
    let mut leader = None;
    loop {
        let asked = match leader.take() {
            Some(admin) => Some(admin),
            None => find(options, deadline).await?.leader_admin(),
        };
        let next = match asked {
            None => Next::Look(no_leader("no node leads")),
            Some(admin) => match http::post(&admin, &path, &(), deadline).await {
                Ok(closed) => return told(&closed, options),
                Err(error) => next(&admin, error),
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

fn told(closed: &Closed, options: &Options) -> Result<Exit, Box<Failure>> {
    match options.output {
        Format::Text => print(&format!("closed {}", closed.id))?,
        Format::Json => print_json(closed)?,
    }
    Ok(Exit::OK)
}

fn next(admin: &str, error: http::Error) -> Next {
    match error {
        http::Error::NotSent(why) => {
            let text = format!("the leader does not answer at {admin}: {why}");
            Next::Look(Failure::new(Exit::UNREACHABLE, Slug::Unreachable, text))
        }
        http::Error::NoAnswer(why) => Next::Fail(unknown(format!("no answer of {admin}: {why}"))),
        http::Error::Refused(_, error) => refused(error),
    }
}

fn refused(error: ErrorBody) -> Next {
    let ErrorBody {
        code,
        message,
        hint,
        leader,
    } = error;
    match (code.as_str(), leader) {
        ("not-leader", Some(leader)) => Next::Ask(leader),
        ("not-leader", None) => Next::Look(no_leader(&message)),
        ("no-session", _) => Next::Fail(no_session(message)),
        ("outcome-unknown" | "timeout", _) => Next::Fail(unknown(message)),
        ("busy" | "not-running", _) => {
            Next::Look(Failure::new(Exit::REFUSED, Slug::NotApplied, message))
        }
        _ => {
            let failure = Failure::new(Exit::REFUSED, Slug::NotApplied, message);
            Next::Fail(match hint {
                Some(hint) => failure.hint(hint),
                None => failure,
            })
        }
    }
}

fn no_leader(text: &str) -> Box<Failure> {
    Failure::new(Exit::UNREACHABLE, Slug::NoLeader, text)
        .hint("a majority of the nodes must run and reach each other: `quorate cluster status`")
}

fn unknown(text: String) -> Box<Failure> {
    Failure::new(Exit::UNKNOWN, Slug::OutcomeUnknown, text)
        .hint("`quorate session show` tells whether it still is; to close it again does no harm")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(code: &str, leader: Option<&str>) -> Next {
        refused(ErrorBody {
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
        assert_eq!(failed(next("n1:3", silent)), unknown);
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
        assert!(matches!(next("n1:3", absent), Next::Look(_)));
    }
}
