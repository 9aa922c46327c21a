//! `quorate query`: a linearizable read.

use quorate_host::admin::PayloadKind;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::args::{Format, Options, Payload};
use crate::failure::Failure;
use crate::output::{Exit, print, print_json};
use crate::payload::{Given, Viewer};
use crate::session::{Session, find};

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Answer<'a> {
    applied_index: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_hex: Option<String>,
}

pub(crate) async fn run(arguments: &Payload, options: &Options) -> Result<Exit, Box<Failure>> {
    let deadline = Instant::now() + options.timeout;
    let given = Given::read(arguments)?;
    let form = given.form();
    let known = find(options, deadline).await?;
    let viewer = Viewer::new(known.admins());
    let payload = viewer.payload(PayloadKind::Query, given, deadline).await?;
    let session = Session::open(options, &known, viewer, deadline).await?;
    let answer = match session.client_until(deadline).query_bytes(payload).await {
        Ok(answer) => answer,
        Err(error) => return Err(session.fail(error, deadline).await),
    };
    let shown = session
        .viewer
        .show(PayloadKind::Answer, answer.answer, form, deadline)
        .await;
    session.close().await;
    match options.output {
        Format::Text => print(&shown.text())?,
        Format::Json => print_json(&Answer {
            applied_index: answer.applied_index.to_string(),
            response: shown.json(),
            response_hex: shown.hex(),
        })?,
    }
    Ok(Exit::OK)
}
