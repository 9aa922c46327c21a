//! `quorate session show`: one session.

use std::time::Duration;

use humantime_serde::re::humantime::format_duration;
use quorate_host::admin::{Live, Session};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::args::session::One;
use crate::args::{Format, Options};
use crate::failure::{Failure, Slug};
use crate::http;
use crate::nodes;
use crate::output::{Exit, named_lines, print, print_json};
use crate::session::find;
use crate::topology::Known;

pub(crate) async fn run(arguments: &One, options: &Options) -> Result<Exit, Box<Failure>> {
    let deadline = Instant::now() + options.timeout;
    let known = find(options, deadline).await?;
    let path = format!("/v1/sessions/{}", arguments.id);
    let session: Session = ask(&known, &path, deadline).await?;
    match options.output {
        Format::Text => print(&text(&session))?,
        Format::Json => print_json(&session)?,
    }
    Ok(Exit::OK)
}

/// What the leader answers, or another node if it does not.
pub(super) async fn ask<T: DeserializeOwned>(
    known: &Known,
    path: &str,
    deadline: Instant,
) -> Result<T, Box<Failure>> {
    let gone = |error: &http::Error| match error {
        http::Error::Refused(_, error) if error.code == "no-session" => {
            Some(no_session(error.message.clone()))
        }
        _ => None,
    };
    nodes::get(known, path, "no node tells of sessions", deadline, gone).await
}

pub(super) fn no_session(message: String) -> Box<Failure> {
    Failure::new(Exit::REFUSED, Slug::NoSession, message)
        .hint("it has ended, or never was: `quorate session list` shows those that are")
}

fn text(session: &Session) -> String {
    let (live, connection) = live_or_dash(session);
    let mut lines = vec![
        ("id", session.id.clone()),
        ("created", session.created_at.clone()),
        ("protocol version", session.protocol_version.to_string()),
        ("timeout", since(session.timeout_ms.into())),
        ("generation", session.generation.to_string()),
        ("last executed", session.last_executed.to_string()),
        ("lowest pending", session.lowest_pending.to_string()),
        (
            "cached responses",
            counted(session.cached_responses, session.cached_bytes),
        ),
        (
            "pending requests",
            counted(session.pending_requests, session.pending_request_bytes),
        ),
        ("connection", connection),
    ];
    if let Some(live) = live {
        let remote = live.remote.clone();
        lines.extend([
            ("remote", remote.unwrap_or_else(|| "none".to_owned())),
            ("expires in", since(live.expires_in_ms)),
            (
                "in flight",
                format!(
                    "{} commands, {} queries, {} requests",
                    live.commands_in_flight, live.queries_in_flight, live.requests_in_flight
                ),
            ),
        ]);
    }
    lines.push(("capabilities", capabilities(session)));
    named_lines(&lines)
}

fn counted(count: u32, bytes: u64) -> String {
    format!("{count}, {bytes} bytes")
}

/// What the leader knows, and the connection: `none`, or `-` where it is not known.
pub(super) fn live_or_dash(session: &Session) -> (Option<&Live>, String) {
    let live = session.live.as_ref();
    let connection = live.map(|live| match live.connection {
        Some(connection) => connection.to_string(),
        None => "none".to_owned(),
    });
    (live, connection.unwrap_or_else(|| "-".to_owned()))
}

/// A time for people: no more precise than they need.
pub(super) fn since(milliseconds: u64) -> String {
    let precision = if milliseconds < 10_000 { 100 } else { 1000 };
    let rounded = milliseconds / precision * precision;
    format_duration(Duration::from_millis(rounded)).to_string()
}

/// `key=value` with spaces between, and nothing that a terminal obeys: they are a client's words.
pub(super) fn capabilities(session: &Session) -> String {
    let pairs = session.capabilities.iter();
    let pairs = pairs.map(|(key, value)| format!("{key}={value}"));
    let text = pairs.collect::<Vec<_>>().join(" ");
    let shown = text.chars().map(|char| match char.is_control() {
        true => char::REPLACEMENT_CHARACTER,
        false => char,
    });
    shown.collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn session() -> Session {
        let live = Live {
            connection: Some(17),
            remote: Some("127.0.0.1:50000".to_owned()),
            expires_in_ms: 4_321,
            commands_in_flight: 1,
            queries_in_flight: 0,
            requests_in_flight: 2,
        };
        Session {
            id: "0b1c2d3e-4f50-4162-8374-8596a7b8c9da".to_owned(),
            capabilities: [("a", "1"), ("role", "script")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            timeout_ms: 90_000,
            generation: 3,
            protocol_version: 2,
            last_executed: 12,
            lowest_pending: 11,
            cached_responses: 2,
            cached_bytes: 80,
            pending_requests: 3,
            pending_request_bytes: 300,
            created_at: "2024-01-19T16:00:00.123Z".to_owned(),
            live: Some(live),
        }
    }

    #[test]
    fn everything_that_is_known_has_a_line() {
        let mut elsewhere = session();
        elsewhere.live = None;
        let shown = text(&session()) + "\n\n" + &text(&elsewhere);
        insta::with_settings!({ omit_expression => true }, { insta::assert_snapshot!(shown) });
    }

    #[test]
    fn times_are_as_precise_as_people_need() {
        assert_eq!(since(0), "0s");
        assert_eq!(since(4_321), "4s 300ms");
        assert_eq!(since(90_999), "1m 30s");
    }
}
