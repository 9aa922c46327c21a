//! `quorate call`: one command, exactly once.

use quorate_host::admin::PayloadKind;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::args::session::Call;
use crate::args::{Format, Options};
use crate::credentials::Credentials;
use crate::failure::Failure;
use crate::output::{Exit, print, print_json};
use crate::payload::{Given, Viewer};
use crate::session::{Session, find};

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Applied<'a> {
    outcome: &'static str,
    commit_index: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_hex: Option<String>,
}

pub(crate) async fn run(arguments: &Call, options: &Options) -> Result<Exit, Box<Failure>> {
    let deadline = Instant::now() + options.timeout;
    let within = Credentials::read(arguments.within.session.as_deref())?;
    let given = Given::read(&arguments.payload)?;
    let form = given.form();
    let known = find(options, deadline).await?;
    let viewer = Viewer::new(known.admins());
    let payload = viewer
        .payload(PayloadKind::Command, given, deadline)
        .await?;
    let session = Session::open_within(options, &known, viewer, deadline, within).await?;
    let applied = match session.client_until(deadline).call_bytes(payload).await {
        Ok(applied) => applied,
        Err(error) => return Err(session.fail(error, deadline).await),
    };
    let (index, response) = (applied.commit_index.get(), applied.response);
    let shown = session
        .viewer
        .show(PayloadKind::Response, response, index, form, deadline)
        .await;
    session.close().await;
    match options.output {
        Format::Text => print(&shown.text())?,
        Format::Json => print_json(&Applied {
            outcome: "applied",
            commit_index: applied.commit_index.to_string(),
            response: shown.json(),
            response_hex: shown.hex(),
        })?,
    }
    Ok(Exit::OK)
}
