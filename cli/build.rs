//! Embeds what `quorate new` writes: the SDK's sources, and templates made of the modules that ship.
//!
//! Nothing here is a second copy: a template is the module's own sources and tests, with another name, and a manifest
//! whose versions are those of this workspace and of its Cargo.lock.

#[path = "build/lock.rs"]
mod lock;
#[path = "build/manifest.rs"]
mod manifest;

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use manifest::Workspace;

/// Crates that a module depends on, by their folders. What they depend on within the workspace comes along.
const SDK: [&str; 2] = ["guest-sdk", "sim"];

/// A template.
struct Template {
    /// Its name, and the folder below `modules/`.
    name: &'static str,
    /// What the generated crate says that it is.
    description: &'static str,
    /// A command and a query to begin with, as the command line takes them.
    call: &'static str,
    query: &'static str,
    /// Files and folders of the module that stay behind: tests that look at other parts of this repository, or that
    /// need much more than the module itself.
    without: &'static [&'static str],
    /// Dependencies that only those need.
    without_dependencies: &'static [&'static str],
}

const TEMPLATES: [Template; 4] = [
    Template {
        name: "counter",
        description: "A counter",
        call: r#"{"add":5}"#,
        query: "null",
        without: &[],
        without_dependencies: &[],
    },
    Template {
        name: "kv",
        description: "A key-value store with watches",
        call: r#"{"set":{"key":"a","value":"1"}}"#,
        query: r#"{"get":{"key":"a"}}"#,
        without: &["tests/payloads.rs"],
        without_dependencies: &["serde_json"],
    },
    Template {
        name: "work-queue",
        description: "A queue of jobs, each done by a client that can do it",
        call: r#"{"submit":{"capability":"resize","version":"v1","payload":"..."}}"#,
        query: r#""totals""#,
        without: &["tests/documents.rs", "tests/model.rs", "tests/model"],
        without_dependencies: &["proptest"],
    },
    Template {
        name: "empty",
        description: "A replicated state machine",
        call: r#""nothing""#,
        query: "null",
        without: &[],
        without_dependencies: &[],
    },
];

/// What of a crate's folder is embedded.
const PARTS: [&str; 5] = ["src", "tests", "build.rs", "clippy.toml", "behaviour.jsonl"];

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate lies in a folder of the workspace");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it for build scripts"));
    let mut embedded = Embedded { root, out: &out };
    let workspace = Workspace::read(&embedded.text("Cargo.toml"));
    let lock = embedded.text("Cargo.lock");

    let mut needed = BTreeSet::new();
    let mut code = String::from("pub(crate) const SDK: &[File] = &[\n");
    code += &embedded.sdk(&workspace, &mut needed);
    code += "];\n\npub(crate) const TEMPLATES: &[Template] = &[\n";
    for template in &TEMPLATES {
        code += &embedded.template(&workspace, template, &mut needed);
    }
    code += "];\n\n";
    let lock = embedded.write("Cargo.lock", &lock::closure(&lock, &needed));
    code += &format!("pub(crate) const LOCK: &str = {lock};\n");
    embedded.write("embedded.rs", &code);
}

struct Embedded<'a> {
    root: &'a Path,
    out: &'a Path,
}

impl Embedded<'_> {
    /// The text of a file of the workspace.
    fn text(&self, path: &str) -> String {
        let path = self.root.join(path);
        println!("cargo::rerun-if-changed={}", path.display());
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
    }

    /// Writes a generated file; returns the expression that includes it.
    fn write(&self, path: &str, text: &str) -> String {
        let path = self.out.join(path);
        let folder = path.parent().expect("it lies in a folder");
        fs::create_dir_all(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        format!("include_str!({:?})", path.display().to_string())
    }

    /// The files of `folder`, below [`PARTS`] and without `without`, by their paths in it.
    fn files(&self, folder: &str, without: &[&str]) -> Vec<String> {
        let mut files = Vec::new();
        for part in PARTS {
            self.collect(&self.root.join(folder), part, without, &mut files);
        }
        files.sort();
        files
    }

    fn collect(&self, folder: &Path, part: &str, without: &[&str], files: &mut Vec<String>) {
        let path = folder.join(part);
        if without.contains(&part) || !path.exists() {
            return;
        }
        println!("cargo::rerun-if-changed={}", path.display());
        if path.is_file() {
            files.push(part.to_owned());
            return;
        }
        for entry in fs::read_dir(&path).unwrap_or_else(|error| panic!("{part}: {error}")) {
            let name = entry.expect("the folder can be read").file_name();
            let name = name
                .to_str()
                .expect("files of the workspace have ASCII names");
            self.collect(folder, &format!("{part}/{name}"), without, files);
        }
    }

    /// The crates of the SDK and their workspace, as entries of a list of files.
    fn sdk(&self, workspace: &Workspace, needed: &mut BTreeSet<String>) -> String {
        let mut folders: Vec<String> = SDK.map(str::to_owned).to_vec();
        let mut entries = String::new();
        let mut next = 0;
        while let Some(folder) = folders.get(next).cloned() {
            next += 1;
            let manifest = self.text(&format!("{folder}/Cargo.toml"));
            let crate_ = workspace.embedded(&manifest);
            needed.extend(crate_.registry);
            for other in crate_.folders {
                if !folders.contains(&other) {
                    folders.push(other);
                }
            }
            let path = format!("{folder}/Cargo.toml");
            let included = self.write(&format!("sdk/{path}"), &crate_.manifest);
            entries += &format!("    ({path:?}, {included}),\n");
            for file in self.files(&folder, &["tests", "clippy.toml", "behaviour.jsonl"]) {
                let path = format!("{folder}/{file}");
                let included = self.root.join(&path).display().to_string();
                entries += &format!("    ({path:?}, include_str!({included:?})),\n");
            }
        }
        let included = self.write("sdk/Cargo.toml", &workspace.of(&folders));
        entries + &format!("    (\"Cargo.toml\", {included}),\n")
    }

    /// One entry of the list of templates.
    fn template(
        &mut self,
        workspace: &Workspace,
        template: &Template,
        needed: &mut BTreeSet<String>,
    ) -> String {
        let name = template.name;
        let folder = format!("modules/{name}");
        let manifest = self.text(&format!("{folder}/Cargo.toml"));
        let generated = workspace.generated(&manifest, template.without_dependencies);
        let dependencies: Vec<_> = generated.registry.iter().cloned().collect();
        needed.extend(generated.registry);

        let named = format!(", name: {name:?})");
        let mut was_named = false;
        let mut entries = String::new();
        let manifest = self.write(&format!("{folder}/Cargo.toml"), &generated.manifest);
        entries += &format!("        (\"Cargo.toml\", {manifest}),\n");
        for file in self.files(&folder, template.without) {
            let text = self.text(&format!("{folder}/{file}"));
            // The generated module is named after its crate.
            was_named |= text.contains(&named);
            let text = text.replace(&named, ")");
            // Where `quorate module build` puts it.
            let text = text.replace(&format!("/../prebuilt/{name}.wasm"), "/target/@name@.wasm");
            let included = self.write(&format!("{folder}/{file}"), &text);
            entries += &format!("        ({file:?}, {included}),\n");
        }
        assert!(was_named, "{folder} does not export its module by name");
        format!(
            "    Template {{\n        name: {name:?},\n        description: {:?},\n        call: {:?},\n        \
             query: {:?},\n        dependencies: &{dependencies:?},\n        files: &[\n{entries}        ],\n    }},\n",
            template.description, template.call, template.query,
        )
    }
}
