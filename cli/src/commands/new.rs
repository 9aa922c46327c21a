//! `quorate new`: a crate that builds, and whose tests pass, as it is.
//!
//! The SDK's sources are written beside the module, into `sdk/`, and the crate depends on them by a relative path: it
//! then builds wherever it is moved, copied or checked out, on machines that have no `quorate` as well. In a cache
//! folder they would be gone with the cache, and the path would be that of one user.

mod name;

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use crate::args::module::{New, TemplateName};
use crate::args::{Format, Options};
use crate::embedded::{LOCK, SDK, TEMPLATES, Template};
use crate::failure::{Failure, Slug};
use crate::output::{Exit, print, print_json};

const README: &str = include_str!("../../templates/README.md");
const IGNORED: &str = include_str!("../../templates/gitignore");

pub(crate) fn run(arguments: &New, options: &Options) -> Result<Exit, Box<Failure>> {
    let template = template(arguments.template);
    let dir = &arguments.dir;
    let name = name::of(arguments, template)?;
    fs::create_dir_all(dir).map_err(|error| cannot("create", dir, &error))?;
    let mut inside = fs::read_dir(dir).map_err(|error| cannot("read", dir, &error))?;
    if inside.next().is_some() {
        let text = format!("{} is not empty; nothing was written", dir.display());
        return Err(
            Failure::new(Exit::REFUSED, Slug::DirectoryNotEmpty, text).hint("name another folder")
        );
    }
    write_crate(dir, template, &name)?;
    match options.output {
        Format::Text => print(&told(dir, template, &name))?,
        Format::Json => print_json(&serde_json::json!({
            "path": dir, "name": name, "template": template.name,
        }))?,
    }
    Ok(Exit::OK)
}

fn template(name: TemplateName) -> &'static Template {
    let name = match name {
        TemplateName::Counter => "counter",
        TemplateName::Kv => "kv",
        TemplateName::WorkQueue => "work-queue",
        TemplateName::Empty => "empty",
    };
    let mut templates = TEMPLATES.iter();
    templates
        .find(|template| template.name == name)
        .expect("the build script embeds every template")
}

fn write_crate(dir: &Path, template: &Template, name: &str) -> Result<(), Box<Failure>> {
    let filled = |text: &str| fill(text, template, name);
    for (path, text) in template.files {
        write(dir, path, &filled(text))?;
    }
    write(dir, "README.md", &filled(README))?;
    write(dir, ".gitignore", IGNORED)?;
    write(dir, "Cargo.lock", LOCK)?;
    for (path, text) in SDK {
        write(dir, &format!("sdk/{path}"), text)?;
    }
    Ok(())
}

/// The text of a template's file, for a crate of this name.
fn fill(text: &str, template: &Template, name: &str) -> String {
    let package = format!("quorate-module-{}", template.name);
    let of_code = |name: &str| name.replace('-', "_");
    text.replace(&of_code(&package), &of_code(name))
        .replace(&package, name)
        .replace("@name@", name)
        .replace("@description@", template.description)
        .replace("@call@", template.call)
        .replace("@query@", template.query)
}

fn write(dir: &Path, path: &str, text: &str) -> Result<(), Box<Failure>> {
    let path = dir.join(path);
    let folder = path.parent().unwrap_or(dir);
    fs::create_dir_all(folder).map_err(|error| cannot("create", folder, &error))?;
    // Whatever came there meanwhile is not overwritten.
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)
        .map_err(|error| cannot("create", &path, &error))?;
    file.write_all(text.as_bytes())
        .map_err(|error| cannot("write", &path, &error))
}

fn cannot(what: &str, path: &Path, error: &std::io::Error) -> Box<Failure> {
    Failure::host(format!("cannot {what} {}: {error}", path.display()))
}

fn told(dir: &Path, template: &Template, name: &str) -> String {
    let dir = dir.display();
    let kind = template.name;
    format!(
        "{dir}: module {name}, from the template {kind}\n\
         next:\n  \
         cd {dir}\n  \
         cargo test\n  \
         quorate module build\n  \
         quorate dev --module target/{name}.wasm"
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_template_is_embedded_with_its_manifest_code_and_tests() {
        for name in TemplateName::value_variants() {
            let template = template(*name);
            let paths: BTreeSet<_> = template.files.iter().map(|(path, _)| *path).collect();
            for path in ["Cargo.toml", "build.rs", "clippy.toml", "src/lib.rs"] {
                assert!(paths.contains(path), "{} has no {path}", template.name);
            }
            assert!(paths.iter().any(|path| path.starts_with("tests/")));
        }
    }

    #[test]
    fn nothing_of_the_templates_name_is_left() {
        for template in TEMPLATES {
            for (path, text) in template.files {
                let filled = fill(text, template, "my-own");
                for left in ["quorate-module-", "quorate_module_", "@name@", ".workspace"] {
                    assert!(!filled.contains(left), "{} {path}: {left}", template.name);
                }
            }
        }
    }

    /// A file that a template needs and that stays in this repository would be missed only outside of it.
    #[test]
    fn no_template_looks_beyond_its_own_folder() {
        for template in TEMPLATES {
            for (path, text) in template.files {
                assert!(!text.contains("\"../.."), "{} {path}", template.name);
            }
        }
    }
}
