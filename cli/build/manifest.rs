//! Manifests of crates that leave the workspace.

use std::collections::BTreeSet;

use toml::{Table, Value};

/// What the workspace's manifest says to its members.
pub(crate) struct Workspace {
    package: Table,
    dependencies: Table,
    lints: Value,
    guest_profile: Table,
}

/// A manifest outside of the workspace.
pub(crate) struct Manifest {
    pub(crate) manifest: String,
    /// Its dependencies that come from the registry.
    pub(crate) registry: BTreeSet<String>,
    /// Those that are crates of the workspace, by their folders.
    pub(crate) folders: BTreeSet<String>,
}

impl Workspace {
    /// Of the text of the workspace's manifest.
    pub(crate) fn read(text: &str) -> Self {
        let mut root = parse(text);
        let mut workspace = table(root.remove("workspace"));
        let mut profiles = table(root.remove("profile"));
        let mut guest_profile = table(profiles.remove("guest"));
        guest_profile.remove("inherits");
        Self {
            package: table(workspace.remove("package")),
            dependencies: table(workspace.remove("dependencies")),
            lints: workspace.remove("lints").expect("the workspace has lints"),
            guest_profile,
        }
    }

    /// The manifest of a workspace of the crates in `folders` alone.
    pub(crate) fn of(&self, folders: &[String]) -> String {
        let members = folders.iter().cloned().map(Value::String).collect();
        let workspace = Table::from_iter([
            ("resolver".to_owned(), Value::String("3".to_owned())),
            ("members".to_owned(), Value::Array(members)),
            ("package".to_owned(), Value::Table(self.package.clone())),
            ("lints".to_owned(), self.lints.clone()),
            (
                "dependencies".to_owned(),
                Value::Table(self.dependencies.clone()),
            ),
        ]);
        written(Table::from_iter([(
            "workspace".to_owned(),
            Value::Table(workspace),
        )]))
    }

    /// A crate of the SDK: as it is, without what only its own tests need.
    pub(crate) fn embedded(&self, text: &str) -> Manifest {
        let mut manifest = parse(text);
        for table in ["dev-dependencies", "example", "test", "bench"] {
            manifest.remove(table);
        }
        let names = manifest.get("dependencies").and_then(Value::as_table);
        let names: Vec<String> = names.into_iter().flat_map(Table::keys).cloned().collect();
        let (registry, folders) = self.split(&names);
        Manifest {
            manifest: written(manifest),
            registry,
            folders,
        }
    }

    /// The manifest of a crate that is made after the module of `text`; `@...@` is filled in later.
    pub(crate) fn generated(&self, text: &str, without: &[&str]) -> Manifest {
        let manifest = parse(text);
        let mut shown = String::from(HEAD);
        let mut all = Vec::new();
        for kind in ["dependencies", "dev-dependencies"] {
            let Some(Value::Table(of_kind)) = manifest.get(kind) else {
                continue;
            };
            let names = of_kind
                .keys()
                .filter(|name| !without.contains(&name.as_str()));
            let lines: Vec<String> = names
                .inspect(|name| all.push((*name).clone()))
                .map(|name| format!("{name} = {}\n", self.dependency(name, &of_kind[name])))
                .collect();
            if !lines.is_empty() {
                shown += &format!("\n[{kind}]\n{}", lines.concat());
            }
        }
        if all.iter().any(|name| name == SIMULATOR) {
            shown += FEATURES;
        }
        shown += LINTS;
        shown += "\n# Small, and with function names for the traces of traps.\n[profile.release]\n";
        shown += &self.guest_profile.to_string();
        let (registry, folders) = self.split(&all);
        Manifest {
            manifest: shown,
            registry,
            folders,
        }
    }

    /// A dependency as a crate outside of the workspace names it.
    fn dependency(&self, name: &str, here: &Value) -> String {
        let here = here.as_table().expect("members inherit their dependencies");
        let mut dependency = match &self.dependencies[name] {
            Value::String(version) => {
                Table::from_iter([("version".to_owned(), Value::String(version.clone()))])
            }
            Value::Table(table) => table.clone(),
            other => panic!("{name} is {other}"),
        };
        if let Some(Value::String(path)) = dependency.get_mut("path") {
            *path = format!("sdk/{path}");
            dependency.remove("version");
        }
        // Of the simulator only on demand: see `FEATURES`.
        let more = here.get("features").filter(|_| name != SIMULATOR);
        if let Some(Value::Array(more)) = more {
            let features = dependency
                .entry("features")
                .or_insert(Value::Array(Vec::new()));
            let features = features.as_array_mut().expect("features are a list");
            features.extend(more.iter().cloned());
        }
        Value::Table(dependency).to_string()
    }

    /// Names of dependencies, as names in the registry and folders of the workspace.
    fn split(&self, names: &[String]) -> (BTreeSet<String>, BTreeSet<String>) {
        let mut registry = BTreeSet::new();
        let mut folders = BTreeSet::new();
        for name in names {
            match self.dependencies.get(name).and_then(|it| it.get("path")) {
                Some(path) => folders.insert(path.as_str().expect("a path is text").to_owned()),
                None => registry.insert(name.clone()),
            };
        }
        (registry, folders)
    }
}

const HEAD: &str = r#"[package]
name = "@name@"
description = "@description@"
version = "0.1.0"
edition = "2024"
publish = false

[lib]
crate-type = ["cdylib", "rlib"]

# quorate-guest lies in sdk/ until it is published.
[workspace]
exclude = ["sdk"]
"#;

/// The crate whose tests run natively and, if they are asked to, on the compiled module.
const SIMULATOR: &str = "quorate-sim";

const FEATURES: &str = r#"
# The tests run on the compiled module too, in a node's engine: `quorate module build`, then
# `cargo test --features wasm`.
[features]
wasm = ["quorate-sim/wasm"]
"#;

const LINTS: &str = r#"
# clippy.toml says what would make nodes differ.
[lints.clippy]
disallowed_types = "deny"
disallowed_methods = "deny"
"#;

fn parse(text: &str) -> Table {
    text.parse().expect("cargo has read this manifest")
}

fn table(value: Option<Value>) -> Table {
    match value {
        Some(Value::Table(table)) => table,
        other => panic!("a table is expected in the manifest, not {other:?}"),
    }
}

fn written(table: Table) -> String {
    toml::to_string(&table).expect("what was read can be written")
}
