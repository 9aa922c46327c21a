//! `quorate module list`: what is in force, was, and could be.

use comfy_table::{Table, presets};
use quorate_host::admin::{ModuleActivation, ModuleOverview};
use tokio::time::Instant;

use super::module_deploy::short;
use crate::args::{Format, Options};
use crate::failure::{Failure, Slug};
use crate::nodes;
use crate::output::{Exit, print, print_json};
use crate::session::find;
use crate::topology::Known;

pub(crate) async fn run(options: &Options) -> Result<Exit, Box<Failure>> {
    let deadline = Instant::now() + options.timeout;
    let known = find(options, deadline).await?;
    let overview = overview(&known, deadline).await?;
    match options.output {
        Format::Text => print(&text(&overview))?,
        Format::Json => print_json(&overview)?,
    }
    Ok(Exit::OK)
}

/// What the leader sees, or another node if it does not answer.
pub(super) async fn overview(
    known: &Known,
    deadline: Instant,
) -> Result<ModuleOverview, Box<Failure>> {
    let nobody = "no node tells of modules";
    nodes::get(known, "/v1/modules", nobody, deadline, |_| None).await
}

/// The hash of the module that `wanted` names: a version that was in force, or a name, the newest of
/// them if several were, or the beginning of a hash.
pub(super) fn resolve(overview: &ModuleOverview, wanted: &str) -> Result<String, Box<Failure>> {
    let mut versions = overview.history.iter().rev();
    if let Some(found) = versions.find(|known| known.version == wanted) {
        return Ok(found.hash.clone());
    }
    let mut names = overview.history.iter().rev();
    if let Some(found) = names.find(|known| known.name == wanted) {
        return Ok(found.hash.clone());
    }
    let history = overview.history.iter().map(|known| &known.hash);
    let kept = overview.kept.iter().map(|kept| &kept.hash);
    let refused = overview.refused.iter().map(|refused| &refused.hash);
    let wanted_hash = wanted.to_ascii_lowercase();
    let mut found: Vec<&String> = history
        .chain(kept)
        .chain(refused)
        .filter(|hash| wanted_hash.len() >= HASH_DIGITS_MIN && hash.starts_with(&wanted_hash))
        .collect();
    found.sort();
    found.dedup();
    match found[..] {
        [hash] => Ok(hash.clone()),
        [] => Err(unknown(format!("no module {wanted} is known"))),
        _ => Err(unknown(format!("several modules begin with {wanted}"))),
    }
}

/// Fewer digits name nothing.
const HASH_DIGITS_MIN: usize = 4;

fn unknown(text: String) -> Box<Failure> {
    Failure::new(Exit::REFUSED, Slug::ModuleUnknown, text)
        .hint("`quorate module list` shows versions and hashes")
}

fn text(overview: &ModuleOverview) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "",
        "HASH",
        "NAME",
        "VERSION",
        "STATE",
        "SINCE ENTRY",
        "TIME",
        "CODE",
    ]);
    // The newest first, each module once.
    let mut shown: Vec<&str> = Vec::new();
    for activation in overview.history.iter().rev() {
        if !shown.contains(&&*activation.hash) {
            shown.push(&activation.hash);
            table.add_row(row(overview, activation));
        }
    }
    for kept in &overview.kept {
        if !shown.contains(&&*kept.hash) {
            let chunks = match kept.chunks == kept.chunks_total {
                true => "kept".to_owned(),
                false => format!("{} of {} chunks", kept.chunks, kept.chunks_total),
            };
            let unknown = || "-".to_owned();
            let hash = short(&kept.hash).to_owned();
            table.add_row([
                String::new(),
                hash,
                unknown(),
                unknown(),
                unknown(),
                "never".to_owned(),
                unknown(),
                chunks,
            ]);
        }
    }
    let lines = table.lines().map(|line| line.trim_end().to_owned());
    let mut lines: Vec<String> = lines.collect();
    if let Some(migration) = &overview.migration {
        let (hash, step) = (short(&migration.hash), migration.step);
        lines.push(match migration.undoing {
            false => format!("\nthe data is being migrated to {hash}, step {step}: commands wait"),
            true => format!("\na migration to {hash} is taken back, step {step}: commands wait"),
        });
    }
    if let Some(refused) = overview.refused.last() {
        let (hash, index) = (short(&refused.hash), refused.index);
        lines.push(format!(
            "\nnewest refusal: {hash} by entry {index}: {}",
            refused.message
        ));
    }
    lines.join("\n")
}

fn row(overview: &ModuleOverview, activation: &ModuleActivation) -> Vec<String> {
    let hash = Some(&activation.hash);
    let mark = if overview.in_force.as_ref() == hash {
        "*"
    } else if overview.previous.as_ref() == hash {
        "<"
    } else {
        ""
    };
    vec![
        mark.to_owned(),
        short(&activation.hash).to_owned(),
        activation.name.clone(),
        activation.version.clone(),
        activation.state_version.to_string(),
        activation.index.to_string(),
        activation.time.clone(),
        match activation.kept {
            true => "kept".to_owned(),
            false => "removed".to_owned(),
        },
    ]
}

#[cfg(test)]
pub(super) mod tests {
    use quorate_host::admin::{KeptModule, ModuleLine, ModuleRefused};

    use super::*;

    pub(in super::super) fn overview() -> ModuleOverview {
        let hash = |n: u8| format!("{n:02x}").repeat(32);
        let activation = |n: u8, index, version: &str, replaced: Option<u8>| ModuleActivation {
            index,
            time: "2024-01-19T16:00:00.123Z".to_owned(),
            hash: hash(n),
            name: "kv".to_owned(),
            version: version.to_owned(),
            state_version: 1,
            manner: "change".to_owned(),
            replaced: replaced.map(hash),
            kept: n != 9,
        };
        let kept = |n: u8, chunks| KeptModule {
            hash: hash(n),
            name: None,
            version: None,
            state_version: None,
            bytes: 700_000,
            chunks,
            chunks_total: 3,
            readiness: "ready".to_owned(),
        };
        ModuleOverview {
            applied_index: 70,
            in_force: Some(hash(0xab)),
            previous: Some(hash(0xcd)),
            migration: Some(quorate_host::admin::ModuleMigration {
                hash: hash(0xac),
                step: 7,
                undoing: false,
            }),
            history: vec![
                activation(9, 5, "0.1.0", None),
                activation(0xab, 20, "0.2.0", Some(9)),
                activation(0xcd, 30, "0.3.0", Some(0xab)),
                activation(0xab, 60, "0.2.0", Some(0xcd)),
            ],
            kept: vec![kept(0x11, 1), kept(0xab, 3), kept(0xac, 3), kept(0xcd, 3)],
            refused: vec![ModuleRefused {
                index: 50,
                hash: hash(0xac),
                code: "module-migration-failed".to_owned(),
                message: "its migration trapped: panicked".to_owned(),
                lines: vec![ModuleLine {
                    number: 3,
                    time: "2024-01-19T16:00:00.123Z".to_owned(),
                    module: hash(0xac),
                    kind: "panic".to_owned(),
                    text: "no such field".to_owned(),
                    file: Some("src/lib.rs".to_owned()),
                    line: Some(17),
                    ..ModuleLine::default()
                }],
            }],
        }
    }

    #[test]
    fn table_has_a_row_for_each_module_the_newest_first() {
        let text = text(&overview());
        insta::with_settings!({ omit_expression => true }, { insta::assert_snapshot!(text) });
    }

    #[test]
    fn a_version_or_the_beginning_of_a_hash_names_a_module() {
        let overview = overview();
        let resolved = |wanted: &str| resolve(&overview, wanted);
        assert_eq!(resolved("0.3.0").as_deref(), Ok(&*"cd".repeat(32)));
        assert_eq!(resolved("ABAB").as_deref(), Ok(&*"ab".repeat(32)));
        assert_eq!(resolved("1111").as_deref(), Ok(&*"11".repeat(32)));
        for wanted in ["0.9.0", "ab", "", "ffff"] {
            let failure = resolved(wanted).expect_err(wanted);
            assert_eq!(failure.slug(), Slug::ModuleUnknown);
        }
    }
}
