//! `quorate session list`: the sessions of the cluster, page by page.

use comfy_table::{Table, presets};
use quorate_host::admin::{PAGE_SESSIONS_MAX, Session, SessionPage};
use tokio::time::Instant;

use super::session_show::{ask, capabilities, live_or_dash, since};
use crate::args::session::List;
use crate::args::{Format, Options};
use crate::failure::Failure;
use crate::output::{Exit, print, print_json};
use crate::session::find;

/// Characters of capabilities in a row.
const CAPABILITIES_WIDTH: usize = 40;

pub(crate) async fn run(arguments: &List, options: &Options) -> Result<Exit, Box<Failure>> {
    let deadline = Instant::now() + options.timeout;
    let known = find(options, deadline).await?;
    let limit = usize::try_from(arguments.limit).unwrap_or(usize::MAX);
    let mut all = SessionPage {
        next: arguments.after.map(|after| after.to_string()),
        ..SessionPage::default()
    };
    loop {
        let count = (limit - all.sessions.len()).min(PAGE_SESSIONS_MAX);
        let after = all.next.take();
        let after = after.map(|after| format!("&after={after}"));
        let path = format!("/v1/sessions?limit={count}{}", after.unwrap_or_default());
        let page: SessionPage = ask(&known, &path, deadline).await?;
        if all.applied_index == 0 {
            all.applied_index = page.applied_index;
        }
        all.sessions.extend(page.sessions);
        all.next = page.next;
        if all.next.is_none() || all.sessions.len() >= limit {
            break;
        }
    }
    match options.output {
        Format::Text => {
            print(&table(&all.sessions))?;
            if let Some(next) = all.next {
                eprintln!("there are more: --limit N, or --after {next}");
            }
        }
        Format::Json => print_json(&all)?,
    }
    Ok(Exit::OK)
}

fn table(sessions: &[Session]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "ID",
        "VERSION",
        "COMMANDS",
        "REQUESTS",
        "TIMEOUT",
        "EXPIRES IN",
        "CONNECTION",
        "REMOTE",
        "CAPABILITIES",
    ]);
    for session in sessions {
        table.add_row(row(session));
    }
    let lines = table.lines().map(|line| line.trim().to_owned());
    lines.collect::<Vec<_>>().join("\n")
}

fn row(session: &Session) -> Vec<String> {
    let (live, connection) = live_or_dash(session);
    let expires = live.map_or_else(|| "-".to_owned(), |live| since(live.expires_in_ms));
    let remote = live.and_then(|live| live.remote.clone());
    let mut shown = capabilities(session);
    if shown.chars().count() > CAPABILITIES_WIDTH {
        shown = shown.chars().take(CAPABILITIES_WIDTH - 3).collect();
        shown += "...";
    }
    vec![
        session.id.clone(),
        session.protocol_version.to_string(),
        session.last_executed.to_string(),
        session.pending_requests.to_string(),
        since(session.timeout_ms.into()),
        expires,
        connection,
        remote.unwrap_or_else(|| "-".to_owned()),
        shown,
    ]
}

#[cfg(test)]
mod tests {
    use super::super::session_show::tests::session;
    use super::*;

    #[test]
    fn table_has_a_row_for_each_session() {
        let mut many = session();
        many.live = None;
        many.protocol_version = 1;
        many.capabilities = [("k".to_owned(), "\u{1b}[2J".repeat(30))].into();
        let text = table(&[session(), many]);
        insta::with_settings!({ omit_expression => true }, { insta::assert_snapshot!(text) });
    }
}
