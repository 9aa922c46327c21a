//! `quorate query`: a linearizable read, or one of what any node has applied.

use quorate_client::{Client, StaleQueryError};
use quorate_host::admin::PayloadKind;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout_at};

use crate::args::session::Query;
use crate::args::{Format, Options};
use crate::credentials::Credentials;
use crate::failure::{Failure, Slug};
use crate::output::{Exit, print, print_json};
use crate::payload::{Form, Given, Viewer};
use crate::session::{Session, attempt_timeout, call_failure, find, find_enough};
use crate::topology::Enough;

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Answer<'a> {
    applied_index: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_hex: Option<String>,
}

pub(crate) async fn run(arguments: &Query, options: &Options) -> Result<Exit, Box<Failure>> {
    let deadline = Instant::now() + options.timeout;
    if arguments.stale {
        return stale(arguments, options, deadline).await;
    }
    let within = Credentials::read(arguments.within.session.as_deref())?;
    let given = Given::read(&arguments.payload)?;
    let form = given.form();
    let known = find(options, deadline).await?;
    let viewer = Viewer::new(known.admins());
    let payload = viewer.payload(PayloadKind::Query, given, deadline).await?;
    let session = Session::open_within(options, &known, viewer, deadline, within).await?;
    let answer = match session.client_until(deadline).query_bytes(payload).await {
        Ok(answer) => answer,
        Err(error) => return Err(session.fail(error, deadline).await),
    };
    show(&session.viewer, answer, form, options, deadline).await?;
    session.close().await;
    Ok(Exit::OK)
}

/// Of any node, in no session: also while no node leads.
async fn stale(
    arguments: &Query,
    options: &Options,
    deadline: Instant,
) -> Result<Exit, Box<Failure>> {
    let given = Given::read(&arguments.payload)?;
    let form = given.form();
    let known = find_enough(options, Enough::Members, deadline).await?;
    let viewer = Viewer::new(known.admins());
    let payload = viewer.payload(PayloadKind::Query, given, deadline).await?;
    let asking = Client::builder(known.endpoints_of_any(options.endpoints()))
        .attempt_timeout(attempt_timeout(deadline))
        .query_stale_bytes(payload);
    let unreachable = |text: String| Failure::new(Exit::UNREACHABLE, Slug::Unreachable, text);
    let answer = match timeout_at(deadline, asking).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(StaleQueryError::Refused(error))) => {
            return Err(call_failure(&viewer, error, deadline).await);
        }
        Ok(Err(StaleQueryError::Settings(error))) => {
            return Err(Failure::input(error.to_string()));
        }
        Ok(Err(error)) => return Err(unreachable(error.to_string())),
        Err(_) => return Err(unreachable("no node answers in time".to_owned())),
    };
    let index = answer.applied_index;
    show(&viewer, answer, form, options, deadline).await?;
    if options.output == Format::Text {
        eprintln!("as of log index {index}");
    }
    Ok(Exit::OK)
}

async fn show(
    viewer: &Viewer,
    answer: quorate_client::Answer,
    form: Form,
    options: &Options,
    deadline: Instant,
) -> Result<(), Box<Failure>> {
    let index = answer.applied_index.get();
    let shown = viewer
        .show(PayloadKind::Answer, answer.answer, index, form, deadline)
        .await;
    match options.output {
        Format::Text => print(&shown.text()),
        Format::Json => print_json(&Answer {
            applied_index: answer.applied_index.to_string(),
            response: shown.json(),
            response_hex: shown.hex(),
        }),
    }
}
