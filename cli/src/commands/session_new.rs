//! `quorate session new`: a session that a shell script holds.

use std::collections::BTreeMap;

use serde::Serialize;
use tokio::time::Instant;

use crate::args::session::New;
use crate::args::{Format, Options};
use crate::credentials::Credentials;
use crate::failure::Failure;
use crate::output::{Exit, print, print_json};
use crate::payload::Viewer;
use crate::session::{Session, find};

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Opened {
    id: String,
    secret: String,
}

pub(crate) async fn run(arguments: &New, options: &Options) -> Result<Exit, Box<Failure>> {
    let deadline = Instant::now() + options.timeout;
    let capabilities = capabilities(arguments)?;
    let known = find(options, deadline).await?;
    let viewer = Viewer::new(known.admins());
    let session = Session::open_as(options, &known, viewer, deadline, |mut builder| {
        for (key, value) in capabilities {
            builder = builder.capability(key, value);
        }
        builder.session_timeout(arguments.session_timeout)
    })
    .await?;
    let (id, secret) = session
        .client
        .session()
        .expect("a client that is connected has its session");
    session.leave_open().await;
    let credentials = Credentials::new(id, secret);
    let opened = Opened {
        id: credentials.id(),
        secret: credentials.secret(),
    };
    match options.output {
        Format::Text => print(&format!("{}:{}", opened.id, opened.secret))?,
        Format::Json => print_json(&opened)?,
    }
    Ok(Exit::OK)
}

fn capabilities(arguments: &New) -> Result<BTreeMap<&str, &str>, Box<Failure>> {
    let mut capabilities = BTreeMap::new();
    for (key, value) in &arguments.capabilities {
        if capabilities.insert(key.as_str(), value.as_str()).is_some() {
            return Err(Failure::input(format!("two values of capability {key}")));
        }
    }
    Ok(capabilities)
}
