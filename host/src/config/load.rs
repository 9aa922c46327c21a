//! Reads the layers of a configuration: file, environment, flags; the later one wins.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize as _;
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::diagnose::excerpt;
use super::validate::violations;
use super::{Config, Error, Problem};

/// Longest configuration file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 256 << 10;
/// Begins the name of every variable that sets a key.
const VARIABLE_PREFIX: &str = "QUORATE_";

/// Where a configuration comes from.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    /// The file, if there is one.
    pub file: Option<PathBuf>,
    /// What wins over it, in ascending precedence: [`environment`] first, then flags.
    pub overrides: Vec<Override>,
}

/// One key, set from outside the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// The key with its table, such as `raft.heartbeat-interval`.
    pub key: String,
    /// The value as text; a number or a truth value is converted.
    pub value: String,
    /// Who set it.
    pub origin: Origin,
}

/// Who set a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody.
    Default,
    /// The file.
    File(PathBuf),
    /// This environment variable.
    Variable(String),
    /// This flag.
    Flag(String),
}

/// A key with its value, as TOML, and who set it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The key with its table.
    pub key: String,
    /// The value, as TOML.
    pub value: String,
    /// Who set it.
    pub origin: Origin,
}

/// A configuration that was checked.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    settings: Vec<Setting>,
}

impl Loaded {
    /// Every key that has a value, sorted.
    pub fn settings(&self) -> &[Setting] {
        &self.settings
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => path.display().fmt(f),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

/// The settings among `variables` (of the process: [`std::env::vars_os`]).
///
/// A setting's variable is `QUORATE_`, the table, two underscores and the key, in capitals with
/// underscores for hyphens: `QUORATE_RAFT__HEARTBEAT_INTERVAL`.
///
/// # Errors
/// If such a variable is not UTF-8, or looks like a setting and is none.
pub fn environment(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Vec<Override>, Error> {
    let tables = defaults();
    let mut overrides = Vec::new();
    for (name, value) in variables {
        let Some(name) = name
            .to_str()
            .filter(|name| name.starts_with(VARIABLE_PREFIX))
        else {
            continue;
        };
        let rest = name[VARIABLE_PREFIX.len()..].to_ascii_lowercase();
        if !rest.contains("__") {
            if let Some((table, key)) = rest.split_once('_')
                && tables.contains_key(table)
            {
                let (table, key) = (table.to_ascii_uppercase(), key.to_ascii_uppercase());
                let message = format!("{name} is no setting");
                let hint = format!("two underscores end the table: QUORATE_{table}__{key}");
                return Err(Problem {
                    message,
                    place: None,
                    hint: Some(hint),
                }
                .into());
            }
            // Not a setting of a node: QUORATE_ENDPOINTS.
            continue;
        }
        let key = rest
            .split("__")
            .map(|part| part.replace('_', "-"))
            .collect::<Vec<_>>();
        let Some(value) = value.to_str() else {
            let message = format!("the value of {name} is not UTF-8");
            return Err(Problem {
                message,
                place: None,
                hint: None,
            }
            .into());
        };
        overrides.push(Override {
            key: key.join("."),
            value: value.to_owned(),
            origin: Origin::Variable(name.to_owned()),
        });
    }
    overrides.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(overrides)
}

/// Reads all layers and checks the whole. Touches nothing but the file.
///
/// # Errors
/// Everything that is wrong, each with its file, line and caret, variable or flag. A file that
/// cannot be parsed hides what else is wrong.
pub fn load(layers: &Layers) -> Result<Loaded, Error> {
    let file = match &layers.file {
        Some(path) => Some((path.as_path(), read(path)?)),
        None => None,
    };
    let mut merged = Table::new();
    let mut origins = BTreeMap::new();
    if let Some((path, text)) = &file {
        merged = parse(path, text)?;
        for (key, _) in leaves(&merged) {
            origins.insert(key, Origin::File(path.to_path_buf()));
        }
    }
    for change in &layers.overrides {
        apply(change, &mut merged)?;
        origins.insert(change.key.clone(), change.origin.clone());
    }
    let config = Config::deserialize(merged).map_err(|error| {
        // Each layer was read by itself above; only a table that is a value in another can be left.
        let message = error.message().to_owned();
        Problem {
            message,
            place: None,
            hint: None,
        }
    })?;

    let file = file.as_ref().map(|(path, text)| (*path, text.as_str()));
    let problems: Vec<_> = violations(&config)
        .into_iter()
        .map(|violation| {
            let place = place(&violation.keys, &origins, file);
            Problem {
                message: violation.message,
                place,
                hint: violation.hint,
            }
        })
        .collect();
    if !problems.is_empty() {
        return Err(Error::new(problems));
    }
    let settings = settings(&config, &origins);
    Ok(Loaded { config, settings })
}

fn read(path: &Path) -> Result<String, Error> {
    let shown = path.display();
    let fail = |message: String, hint: &str| -> Error {
        Problem {
            message,
            place: None,
            hint: Some(hint.to_owned()),
        }
        .into()
    };
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| {
            let hint = "`quorate config default` prints a file to start from";
            fail(format!("cannot read {shown}: {error}"), hint)
        })?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let message = format!("{shown} is longer than {} KiB", FILE_BYTES_MAX >> 10);
        return Err(fail(
            message,
            "this does not look like a configuration file",
        ));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..at]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count()
            + 1;
        fail(
            format!("{shown}:{line}: not UTF-8"),
            "save the file as UTF-8",
        )
    })
}

fn parse(path: &Path, text: &str) -> Result<Table, Error> {
    let refused = |error: toml::de::Error| -> Error {
        let message = error.message().replace('\n', ", ");
        let place = error.span().map(|span| excerpt(path, text, span));
        let place = place.or_else(|| Some(format!("--> {}", path.display())));
        Problem {
            message,
            place,
            hint: None,
        }
        .into()
    };
    // The types are checked with the text at hand: only so do errors know their line.
    toml::from_str::<Config>(text).map_err(refused)?;
    toml::from_str(text).map_err(refused)
}

/// Puts one setting into the file's table, after a look at it by itself.
fn apply(change: &Override, merged: &mut Table) -> Result<(), Error> {
    let refuse = |message: String| Problem {
        message: format!("{}: {message}", change.key),
        place: Some(format!("--> {}", change.origin)),
        hint: None,
    };
    let parts: Vec<&str> = change.key.split('.').collect();
    let value = convert(&parts, &change.value);
    let mut alone = Table::new();
    insert(&mut alone, &parts, value.clone());
    Config::deserialize(alone).map_err(|error| refuse(error.message().replace('\n', ", ")))?;
    insert(merged, &parts, value);
    Ok(())
}

fn insert(table: &mut Table, parts: &[&str], value: Value) {
    match parts {
        [] => {}
        [key] => drop(table.insert((*key).to_owned(), value)),
        [key, rest @ ..] => {
            let inner = table
                .entry(*key)
                .or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}

/// Text from outside has no type: it gets that of the key's default. What does not convert stays
/// text, so that the error says what the key takes.
fn convert(parts: &[&str], text: &str) -> Value {
    let defaults = Value::Table(defaults());
    let default = parts
        .iter()
        .try_fold(&defaults, |table, key| table.get(*key));
    let converted = match default {
        Some(Value::Integer(_)) => text.parse().ok().map(Value::Integer),
        Some(Value::Boolean(_)) => text.parse().ok().map(Value::Boolean),
        _ => None,
    };
    converted.unwrap_or_else(|| Value::String(text.to_owned()))
}

fn defaults() -> Table {
    Table::try_from(Config::default()).expect("the defaults are plain values")
}

/// Where the first of `keys` that somebody set was set; from outside the file before in it.
fn place(
    keys: &[String],
    origins: &BTreeMap<String, Origin>,
    file: Option<(&Path, &str)>,
) -> Option<String> {
    let outside = keys.iter().find_map(|key| {
        let table = format!("{key}.");
        let set = |other: &str| other == key || other.starts_with(&table);
        let mut origins = origins
            .iter()
            .filter(|(other, _)| set(other))
            .map(|(_, who)| who);
        origins.find(|who| matches!(who, Origin::Variable(_) | Origin::Flag(_)))
    });
    if let Some(who) = outside {
        return Some(format!("--> {who}"));
    }
    let (path, text) = file?;
    let span = keys.iter().find_map(|key| span(text, key))?;
    Some(excerpt(path, text, span))
}

/// Where the value of `key` stands in `text`.
fn span(text: &str, key: &str) -> Option<Range<usize>> {
    let table = DeTable::parse(text).ok()?;
    let mut table = table.get_ref();
    let mut parts = key.split('.').peekable();
    while let Some(part) = parts.next() {
        let (name, value) = table.iter().find(|(name, _)| name.get_ref() == part)?;
        match (parts.peek(), value.get_ref()) {
            (None, DeValue::Table(_)) => return Some(name.span()),
            (None, _) => return Some(value.span()),
            (Some(_), DeValue::Table(inner)) => table = inner,
            (Some(_), _) => return None,
        }
    }
    None
}

fn settings(config: &Config, origins: &BTreeMap<String, Origin>) -> Vec<Setting> {
    let table = Table::try_from(config).expect("a configuration is made of plain values");
    let setting = |(key, value): (String, Value)| {
        let origin = origins.get(&key).cloned().unwrap_or(Origin::Default);
        Setting {
            key,
            value: value.to_string(),
            origin,
        }
    };
    leaves(&table).into_iter().map(setting).collect()
}

fn leaves(table: &Table) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for (key, value) in table {
        match value {
            Value::Table(inner) => {
                found.extend(
                    leaves(inner)
                        .into_iter()
                        .map(|(k, v)| (format!("{key}.{k}"), v)),
                );
            }
            _ => found.push((key.clone(), value.clone())),
        }
    }
    found
}
