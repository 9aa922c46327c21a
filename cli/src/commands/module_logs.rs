//! `quorate module logs`: what modules said, on every node.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::StreamExt as _;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use quorate_host::admin::{ModuleLine, ModuleLines};
use quorate_protocol::v2::Member;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::module_deploy::short;
use super::module_list::{overview, resolve};
use super::serve::stop_signal;
use crate::args::module::Logs;
use crate::args::{Format, Options};
use crate::failure::{Failure, Slug};
use crate::http;
use crate::output::{Exit, print, print_json};
use crate::session::find;

/// How long a node is asked to wait for another line.
const WAIT: Duration = Duration::from_secs(20);
/// Before a node that did not answer is asked again.
const PAUSE: Duration = Duration::from_secs(1);

/// A line, and where it was said.
#[derive(Debug, Serialize)]
struct Told<'a> {
    node: String,
    #[serde(flatten)]
    line: &'a ModuleLine,
}

pub(crate) async fn run(arguments: &Logs, options: &Options) -> Result<Exit, Box<Failure>> {
    let deadline = Instant::now() + options.timeout;
    let known = find(options, deadline).await?;
    let module = match &arguments.module {
        Some(wanted) => {
            let overview = overview(&known, deadline).await?;
            format!("&module={}", resolve(&overview, wanted)?)
        }
        None => String::new(),
    };
    let since_us = arguments.since.map_or(0, since_us);
    let wanted =
        |member: &&Member| arguments.node.is_empty() || arguments.node.contains(&member.node.0);
    let nodes: Vec<&Member> = known.topology.members.iter().filter(wanted).collect();
    let query = format!("since-us={since_us}{module}");
    if nodes.is_empty() {
        return Err(Failure::input("no member of the cluster has this id"));
    }
    if arguments.follow {
        return follow(&nodes, &query, options).await;
    }
    let path = format!("/v1/modules/log?{query}");
    let asked = nodes
        .iter()
        .map(|member| http::get(&member.admin, &path, deadline));
    let answers: Vec<Result<ModuleLines, http::Error>> = join_all(asked).await;
    let mut all = Vec::new();
    let mut silent = Vec::new();
    for (member, answer) in nodes.iter().zip(answers) {
        match answer {
            Ok(lines) => all.extend(lines.lines.into_iter().map(|line| (lines.node, line))),
            Err(error) => silent.push(format!("node {}: {error}", member.node.0)),
        }
    }
    all.sort_by(|(a, left), (b, right)| {
        (&left.time, a, left.number).cmp(&(&right.time, b, right.number))
    });
    for (node, line) in &all {
        tell(*node, line, options)?;
    }
    match silent.is_empty() {
        true => Ok(Exit::OK),
        false => {
            let text = format!("not every node answers\n  {}", silent.join("\n  "));
            Err(Failure::new(Exit::UNREACHABLE, Slug::Unreachable, text))
        }
    }
}

/// Prints what comes, until Ctrl-C. A node that goes away is asked again.
async fn follow(nodes: &[&Member], query: &str, options: &Options) -> Result<Exit, Box<Failure>> {
    let stop = stop_signal()?;
    tokio::pin!(stop);
    let ask = async |member: &Member, after: u64, wait: Duration| {
        sleep(wait).await;
        let path = format!(
            "/v1/modules/log?{query}&after={after}&wait-ms={}",
            WAIT.as_millis()
        );
        let until = Instant::now() + 2 * WAIT;
        http::get::<ModuleLines>(&member.admin, &path, until).await
    };
    let mut asked: FuturesUnordered<_> = FuturesUnordered::new();
    let next = |at: usize, after: u64, wait: Duration| {
        let member = nodes[at];
        async move { (at, after, ask(member, after, wait).await) }
    };
    for at in 0..nodes.len() {
        asked.push(next(at, 0, Duration::ZERO));
    }
    loop {
        let (at, after, answer) = tokio::select! {
            answered = asked.next() => match answered {
                Some(answered) => answered,
                None => return Ok(Exit::OK),
            },
            () = &mut stop => return Ok(Exit::OK),
        };
        match answer {
            Ok(lines) => {
                for line in &lines.lines {
                    tell(lines.node, line, options)?;
                }
                asked.push(next(at, lines.next, Duration::ZERO));
            }
            // Its numbers begin anew when it was started anew.
            Err(http::Error::NotSent(_)) => asked.push(next(at, 0, PAUSE)),
            Err(_) => asked.push(next(at, after, PAUSE)),
        }
    }
}

fn since_us(ago: Duration) -> u64 {
    let since = SystemTime::now().checked_sub(ago);
    let since = since.and_then(|since| since.duration_since(UNIX_EPOCH).ok());
    since.map_or(0, |since| {
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    })
}

fn tell(node: u64, line: &ModuleLine, options: &Options) -> Result<(), Box<Failure>> {
    match options.output {
        Format::Json => print_json(&Told {
            node: node.to_string(),
            line,
        }),
        Format::Text => {
            let (time, module) = (&line.time, short(&line.module));
            print(&format!("{time} node {node} {module} {}", text(line)))
        }
    }
}

/// What was said, for people.
pub(super) fn text(line: &ModuleLine) -> String {
    let unknown = || "?".to_owned();
    match line.kind.as_str() {
        "log" => {
            let level = line.level.clone().unwrap_or_else(unknown);
            format!("{level}: {}", line.text)
        }
        "dropped" => format!("{} lines dropped: it logs too much", line.text),
        "panic" => {
            let file = line.file.clone().unwrap_or_else(unknown);
            let at = line.line.unwrap_or(0);
            format!(
                "panicked at {file}:{at}: {}{}",
                line.text,
                whereabouts(line)
            )
        }
        _ => {
            let export = line.export.clone().unwrap_or_else(unknown);
            let functions = line
                .backtrace
                .iter()
                .map(|function| format!("\n    {function}"));
            format!(
                "trapped in {export}: {}{}{}",
                line.text,
                whereabouts(line),
                functions.collect::<String>()
            )
        }
    }
}

/// In which operation of the log, and what it used of its fuel.
fn whereabouts(line: &ModuleLine) -> String {
    let entry = line.entry.as_ref().map(|entry| format!("entry {entry}"));
    let fuel = line.fuel.zip(line.fuel_max);
    let fuel = fuel.map(|(used, max)| format!("{used} of {max} fuel"));
    let known: Vec<String> = entry.into_iter().chain(fuel).collect();
    match known.is_empty() {
        true => String::new(),
        false => format!(" ({})", known.join(", ")),
    }
}
