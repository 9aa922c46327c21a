//! `quorate module deploy --plan`: what a module would do, on copies of the live state.

use bytes::Bytes;
use quorate_host::admin::{ErrorBody, ModulePlan, PlannedMigration, PlannedReplay};
use quorate_host::modules::Mode;

use super::module_deploy::short;
use crate::args::{Format, Options};
use crate::failure::{Failure, Slug};
use crate::http;
use crate::leader::{Leader, Next, Request, Unanswered, failure_of};
use crate::output::{Exit, named_lines, print, print_json};

/// Nothing is changed by it.
const PLAN: Request = Request {
    refused,
    unanswered: Unanswered::Again,
};

/// A deploy would be refused: so the plan fails as one whose migration fails.
fn refused(error: ErrorBody) -> Next {
    match error.code.as_str() {
        "busy" | "not-running" => Next::Look(failure_of(error, Exit::REFUSED)),
        "module-rejected" | "module-name" | "module-not-empty" | "module-state-version" => {
            Next::Fail(failure_of(error, Exit::MODULE_REJECTED))
        }
        _ => Next::Fail(failure_of(error, Exit::REFUSED)),
    }
}

/// Has the leader try it, and tells. Nothing is changed.
pub(super) async fn run(
    leader: &mut Leader<'_>,
    code: &Bytes,
    mode: Mode,
    argument: &[u8],
    options: &Options,
) -> Result<Exit, Box<Failure>> {
    let mode = serde_json::to_value(mode).expect("a mode is a word");
    let mode = mode.as_str().unwrap_or_default();
    let mut path = format!("/v1/modules/plan?mode={mode}");
    if !argument.is_empty() {
        path.push_str(&format!("&argument-bytes={}", argument.len()));
    }
    let body = Bytes::from([code, argument].concat());
    let plan: ModulePlan = leader
        .ask(&PLAN, async |admin, deadline| {
            http::post_bytes(&admin, &path, body.clone(), deadline).await
        })
        .await?;
    match options.output {
        Format::Text => print(&text(&plan))?,
        Format::Json => print_json(&plan)?,
    }
    match failure(&plan) {
        Some(failure) => Err(failure),
        None => Ok(Exit::OK),
    }
}

/// What would keep it from being put in force, or from being what it seems.
fn failure(plan: &ModulePlan) -> Option<Box<Failure>> {
    let migration = plan.migration.as_ref();
    if let Some(failed) = migration.filter(|migration| migration.outcome != "success") {
        let slug = Slug::of(&failed.outcome).unwrap_or(Slug::ModuleMigrationFailed);
        let exit = match slug {
            // It did not fail either.
            Slug::ModulePlanUnfinished => Exit::REFUSED,
            _ => Exit::MODULE_REJECTED,
        };
        let message = failed.message.clone().unwrap_or_default();
        let failure = Failure::new(exit, slug, message);
        return Some(failure.hint("nothing was proposed; the cluster is as it was"));
    }
    let replay = plan.replay.as_ref()?;
    let index = replay.unfaithful?;
    let text = format!("the module in force did not do again what it did in entry {index}");
    Some(
        Failure::new(Exit::UNHEALTHY, Slug::StateHashMismatch, text)
            .hint("compare the nodes: `quorate cluster hash`"),
    )
}

fn text(plan: &ModulePlan) -> String {
    let ModulePlan {
        name,
        version,
        state_version,
        bytes,
        chunks,
        chunks_missing,
        ..
    } = plan;
    let in_force = match (&plan.in_force, &plan.in_force_version) {
        (Some(hash), Some(version)) => format!("{version} ({})", short(hash)),
        _ => "none".to_owned(),
    };
    let mut lines = vec![
        (
            "module",
            format!(
                "{name} {version} ({}), state version {state_version}",
                short(&plan.hash)
            ),
        ),
        (
            "size",
            format!("{bytes} bytes, {chunks_missing} of {chunks} chunks to send"),
        ),
        ("in force", in_force),
        ("way", way(&plan.way).to_owned()),
    ];
    if let Some(migration) = &plan.migration {
        describe_migration(migration, &mut lines);
    }
    if let Some(replay) = &plan.replay {
        describe_replay(replay, &mut lines);
    }
    named_lines(&lines)
}

fn way(way: &str) -> &str {
    match way {
        "none" => "nothing to do: it is in force already",
        "install" => "installed over an empty store, by its init",
        "unchanged" => "put in force as it is: both have the state alike",
        "migrate" => "its own migration",
        "migrate-down" => "the way down of the module in force",
        "reinstall" => "its init, after the data was DROPPED",
        other => other,
    }
}

fn describe_migration(migration: &PlannedMigration, lines: &mut Vec<(&'static str, String)>) {
    let PlannedMigration {
        as_of,
        outcome,
        milliseconds,
        fuel,
        fuel_max,
        keys_read,
        keys_written,
        keys_deleted,
        keys_before,
        bytes_before,
        keys_after,
        bytes_after,
        ..
    } = migration;
    lines.extend([
        (
            "outcome",
            format!("{outcome}, on the state of entry {as_of}"),
        ),
        ("time", format!("{milliseconds:.1} ms")),
        ("fuel", format!("{fuel} of {fuel_max}")),
        (
            "keys",
            format!("{keys_read} read, {keys_written} written, {keys_deleted} deleted"),
        ),
        (
            "state",
            format!(
                "{} keys, {} bytes -> {} keys, {} bytes",
                counted(*keys_before),
                counted(*bytes_before),
                counted(*keys_after),
                counted(*bytes_after)
            ),
        ),
    ]);
}

fn counted(count: Option<u64>) -> String {
    count.map_or_else(|| "?".to_owned(), |count| count.to_string())
}

fn describe_replay(replay: &PlannedReplay, lines: &mut Vec<(&'static str, String)>) {
    let PlannedReplay {
        from,
        to,
        entries,
        commands,
        differing,
        ..
    } = replay;
    lines.push((
        "replay",
        match entries {
            0 => "no command since the last fold".to_owned(),
            _ => format!("{commands} commands since the last fold, entries {from} to {to}"),
        },
    ));
    if let Some(cut) = &replay.cut {
        lines.push(("", format!("not all of them: {cut}")));
    }
    if *entries == 0 {
        return;
    }
    lines.push((
        "as it was",
        match replay.unfaithful {
            None => format!("yes, by {} hashes of the state", replay.compared_hashes),
            Some(index) => format!("NO: entry {index} came to something else"),
        },
    ));
    lines.push(("responses", format!("{differing} would differ")));
    for difference in &replay.differences {
        let place = format!("{}:{}", difference.index, difference.position);
        lines.push((
            "",
            format!("{place}: {} -> {}", difference.was, difference.would),
        ));
    }
    let more = differing.saturating_sub(replay.differences.len() as u64);
    if more > 0 {
        lines.push(("", format!("and {more} more")));
    }
    lines.push((
        "fuel of commands",
        format!("{} -> {}", replay.fuel_was, replay.fuel_would),
    ));
    if replay.traps_was + replay.traps_would > 0 {
        lines.push((
            "traps",
            format!("{} -> {}", replay.traps_was, replay.traps_would),
        ));
    }
}

#[cfg(test)]
mod tests {
    use quorate_host::admin::Difference;

    use super::*;

    fn plan() -> ModulePlan {
        ModulePlan {
            hash: "ab".repeat(32),
            name: "kv".to_owned(),
            version: "0.2.0".to_owned(),
            state_version: 2,
            bytes: 700_000,
            chunks: 3,
            chunks_missing: 3,
            in_force: Some("cd".repeat(32)),
            in_force_version: Some("0.1.0".to_owned()),
            way: "migrate".to_owned(),
            migration: Some(PlannedMigration {
                as_of: 1207,
                outcome: "success".to_owned(),
                milliseconds: 12.34,
                fuel: 5_000,
                fuel_max: 1_000_000_000,
                keys_read: 30,
                keys_written: 20,
                keys_deleted: 10,
                keys_before: Some(10),
                bytes_before: Some(1000),
                keys_after: Some(20),
                bytes_after: Some(2000),
                ..PlannedMigration::default()
            }),
            replay: Some(PlannedReplay {
                from: 1000,
                to: 1207,
                entries: 200,
                commands: 900,
                compared_hashes: 200,
                complete: true,
                differing: 2,
                differences: vec![Difference {
                    index: 1003,
                    position: 4,
                    was: r#"{"value":"1"}"#.to_owned(),
                    would: "trapped: panicked".to_owned(),
                }],
                fuel_was: 9000,
                fuel_would: 8000,
                traps_would: 1,
                ..PlannedReplay::default()
            }),
        }
    }

    #[test]
    fn everything_that_was_found_out_has_a_line() {
        let mut failing = plan();
        failing.replay = None;
        if let Some(migration) = &mut failing.migration {
            migration.outcome = "module-migration-failed".to_owned();
        }
        let shown = text(&plan()) + "\n\n" + &text(&failing);
        insta::with_settings!({ omit_expression => true }, { insta::assert_snapshot!(shown) });
        assert!(failure(&plan()).is_none());
        let failure = failure(&failing).map(|failure| (failure.exit(), failure.slug()));
        assert_eq!(
            failure,
            Some((Exit::MODULE_REJECTED, Slug::ModuleMigrationFailed))
        );
    }

    #[test]
    fn a_state_that_cannot_be_repeated_is_a_failure() {
        let mut unfaithful = plan();
        if let Some(replay) = &mut unfaithful.replay {
            replay.unfaithful = Some(1100);
        }
        let failure = failure(&unfaithful).map(|failure| failure.exit());
        assert_eq!(failure, Some(Exit::UNHEALTHY));
    }
}
