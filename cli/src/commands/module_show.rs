//! `quorate module show`: everything that is known of one module.

use quorate_host::admin::{KeptModule, ModuleActivation, ModuleOverview, ModuleRefused};
use serde::Serialize;
use tokio::time::Instant;

use super::module_list::{overview, resolve};
use super::module_logs;
use crate::args::module::Show;
use crate::args::{Format, Options};
use crate::failure::Failure;
use crate::output::{Exit, named_lines, print, print_json};
use crate::session::find;

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Module {
    hash: String,
    in_force: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<KeptModule>,
    history: Vec<ModuleActivation>,
    refused: Vec<ModuleRefused>,
}

pub(crate) async fn run(arguments: &Show, options: &Options) -> Result<Exit, Box<Failure>> {
    let deadline = Instant::now() + options.timeout;
    let known = find(options, deadline).await?;
    let overview = overview(&known, deadline).await?;
    let hash = resolve(&overview, &arguments.module)?;
    let module = module(overview, hash);
    match options.output {
        Format::Text => print(&text(&module))?,
        Format::Json => print_json(&module)?,
    }
    Ok(Exit::OK)
}

fn module(overview: ModuleOverview, hash: String) -> Module {
    Module {
        in_force: overview.in_force.as_ref() == Some(&hash),
        kept: overview.kept.into_iter().find(|kept| kept.hash == hash),
        history: overview
            .history
            .into_iter()
            .filter(|activation| activation.hash == hash)
            .collect(),
        refused: overview
            .refused
            .into_iter()
            .filter(|refused| refused.hash == hash)
            .collect(),
        hash,
    }
}

fn text(module: &Module) -> String {
    let mut lines = vec![("hash", module.hash.clone())];
    if let Some(newest) = module.history.last() {
        lines.extend([
            ("name", newest.name.clone()),
            ("version", newest.version.clone()),
            ("state version", newest.state_version.to_string()),
        ]);
    }
    lines.push((
        "in force",
        if module.in_force { "yes" } else { "no" }.to_owned(),
    ));
    lines.push(match &module.kept {
        Some(kept) => (
            "code",
            format!(
                "{} of {} chunks, {} bytes, {}",
                kept.chunks, kept.chunks_total, kept.bytes, kept.readiness
            ),
        ),
        None => ("code", "removed".to_owned()),
    });
    for activation in &module.history {
        let ModuleActivation {
            index,
            time,
            manner,
            ..
        } = activation;
        lines.push((
            "put in force",
            format!("by entry {index}, {time} ({manner})"),
        ));
    }
    for refused in &module.refused {
        let ModuleRefused {
            index,
            code,
            message,
            ..
        } = refused;
        lines.push(("refused", format!("by entry {index}: {message} ({code})")));
        let said = refused.lines.iter().map(module_logs::text);
        lines.extend(said.map(|text| ("", text.replace('\n', "\n                  "))));
    }
    named_lines(&lines)
}

#[cfg(test)]
mod tests {
    use super::super::module_list::tests::overview;
    use super::*;

    #[test]
    fn everything_that_is_known_has_a_line() {
        let shown = ["ab", "ac", "09"].map(|byte| text(&module(overview(), byte.repeat(32))));
        let shown = shown.join("\n\n");
        insta::with_settings!({ omit_expression => true }, { insta::assert_snapshot!(shown) });
    }
}
