//! `quorate watch`: each new value of a key of the kv module, until Ctrl-C.

use std::convert::Infallible;
use std::time::{Duration, UNIX_EPOCH};

use humantime_serde::re::humantime::format_rfc3339_millis;
use quorate_client::ServerRequest;
use quorate_host::admin::PayloadKind;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use crate::args::{Format, Options, Watch};
use crate::failure::{Failure, Slug};
use crate::output::{Exit, print, print_json};
use crate::payload::{Given, Viewer};
use crate::session::{Session, find};

/// What the kv module tells a watcher, in its JSON.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Notification {
    Value { key: String, value: String },
    Deleted { key: String },
}

#[derive(Serialize)]
struct Line<'a> {
    seq: String,
    time: &'a str,
    notification: &'a RawValue,
}

pub(crate) async fn run(arguments: &Watch, options: &Options) -> Result<Exit, Box<Failure>> {
    let deadline = Instant::now() + options.timeout;
    let handler = |kind| {
        signal(kind).map_err(|error| Failure::host(format!("cannot wait for signals: {error}")))
    };
    let mut interrupt = handler(SignalKind::interrupt())?;
    let mut terminate = handler(SignalKind::terminate())?;
    let known = find(options, deadline).await?;
    let viewer = Viewer::new(known.admins());
    let command = viewer
        .payload(PayloadKind::Command, command(arguments)?, deadline)
        .await?;
    let session = Session::open(options, &known, viewer, deadline).await?;
    let ended = tokio::select! {
        ended = watch(&session, command, arguments, options, deadline) => ended.map(|never| match never {}),
        _ = interrupt.recv() => Ok(Exit::INTERRUPTED),
        _ = terminate.recv() => Ok(Exit::TERMINATED),
    };
    // The watch goes with the session.
    session.close().await;
    ended
}

fn command(arguments: &Watch) -> Result<Given, Box<Failure>> {
    let command = serde_json::json!({ "watch": { "key": arguments.key } });
    serde_json::value::to_raw_value(&command)
        .map(Given::Json)
        .map_err(|error| Failure::input(error.to_string()))
}

/// Sends `command` and shows what comes, until that fails.
async fn watch(
    session: &Session,
    command: Vec<u8>,
    arguments: &Watch,
    options: &Options,
    deadline: Instant,
) -> Result<Infallible, Box<Failure>> {
    let mut requests = session.client.requests().expect("nobody took them before");
    if let Err(error) = session.client_until(deadline).call_bytes(command).await {
        return Err(session.failure(error, deadline).await);
    }
    eprintln!("watching {} - press Ctrl+C to stop", arguments.key);
    while let Some(request) = requests.next().await {
        show(&session.viewer, &request, options).await?;
        request.ack();
    }
    let text = "the session has ended, and the watch with it";
    Err(Failure::new(Exit::REFUSED, Slug::SessionEnded, text))
}

async fn show(
    viewer: &Viewer,
    request: &ServerRequest,
    options: &Options,
) -> Result<(), Box<Failure>> {
    let deadline = Instant::now() + options.timeout;
    let json = viewer
        .json(PayloadKind::Request, &request.payload, None, deadline)
        .await?;
    let time = rfc3339(request.created_at);
    if options.output == Format::Json {
        let seq = request.id.to_string();
        return print_json(&Line {
            seq,
            time: &time,
            notification: &json,
        });
    }
    let notification: Notification = serde_json::from_str(json.get()).map_err(|_| {
        let text = format!("the module in force is not kv; it says {json}");
        Failure::new(Exit::REFUSED, Slug::NotApplied, text)
    })?;
    print(&line(&time, request.id.0, &notification))
}

fn line(time: &str, seq: u64, notification: &Notification) -> String {
    match notification {
        Notification::Value { key, value } => format!("[{time}] seq={seq} key={key} value={value}"),
        Notification::Deleted { key } => format!("[{time}] seq={seq} key={key} deleted"),
    }
}

/// The time of `milliseconds` since the Unix epoch; years beyond 9999 are shown as the last.
fn rfc3339(milliseconds: i64) -> String {
    const LAST: u64 = 253_402_300_799_999;
    let milliseconds = u64::try_from(milliseconds).unwrap_or(0).min(LAST);
    format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(milliseconds)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_time_sequence_key_and_value() {
        let parse = |json| serde_json::from_str(json).expect("the module's JSON");
        let time = rfc3339(1_705_680_000_123);
        assert_eq!(
            line(&time, 7, &parse(r#"{"value":{"key":"a","value":"1 2"}}"#)),
            "[2024-01-19T16:00:00.123Z] seq=7 key=a value=1 2"
        );
        assert_eq!(
            line(&time, 8, &parse(r#"{"deleted":{"key":"a"}}"#)),
            "[2024-01-19T16:00:00.123Z] seq=8 key=a deleted"
        );
    }

    #[test]
    fn impossible_times_are_shown() {
        assert_eq!(rfc3339(i64::MIN), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(i64::MAX), "9999-12-31T23:59:59.999Z");
    }
}
