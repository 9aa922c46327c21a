//! `quorate config`: check, show, default.

use quorate_host::config::{DEFAULT_TOML, Layers, Loaded, Origin, Override, environment, load};
use serde::Serialize;

use crate::args::{Config, ConfigCommand, Format, Options, Source};
use crate::failure::Failure;
use crate::output::{Exit, print, print_json};

#[derive(Serialize)]
struct SettingLine<'a> {
    key: &'a str,
    value: &'a str,
    origin: String,
}

/// Reads and checks a node's configuration: file, environment, flags.
pub(crate) fn read(source: &Source) -> Result<Loaded, Box<Failure>> {
    let mut overrides = environment(std::env::vars_os())?;
    if source.insecure {
        overrides.push(Override {
            key: "listen.insecure".to_owned(),
            value: "true".to_owned(),
            origin: Origin::Flag("--insecure".to_owned()),
        });
    }
    Ok(load(&Layers {
        file: source.config.clone(),
        overrides,
    })?)
}

pub(crate) fn run(command: &Config, options: &Options) -> Result<Exit, Box<Failure>> {
    match &command.command {
        ConfigCommand::Default => print(DEFAULT_TOML)?,
        ConfigCommand::Check(source) => {
            let loaded = read(source)?;
            match options.output {
                Format::Text => print(&format!("ok: node {}", loaded.config.node.id))?,
                Format::Json => print(r#"{"ok":true}"#)?,
            }
        }
        ConfigCommand::Show { source, origin } => show(&read(source)?, *origin, options)?,
    }
    Ok(Exit::OK)
}

fn show(loaded: &Loaded, origin: bool, options: &Options) -> Result<(), Box<Failure>> {
    let lines = loaded.settings().iter();
    match options.output {
        Format::Json => {
            let lines: Vec<_> = lines
                .map(|setting| SettingLine {
                    key: &setting.key,
                    value: &setting.value,
                    origin: setting.origin.to_string(),
                })
                .collect();
            print_json(&lines)
        }
        Format::Text if origin => {
            let lines = lines.map(|setting| {
                format!("{} = {}  # {}", setting.key, setting.value, setting.origin)
            });
            print(&lines.collect::<Vec<_>>().join("\n"))
        }
        Format::Text => {
            let text = toml::to_string(&loaded.config)
                .map_err(|error| Failure::host(format!("cannot write it as TOML: {error}")))?;
            print(&text)
        }
    }
}
