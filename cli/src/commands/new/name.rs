//! The name of a new crate, which is that of its module and of its file as well.

use std::path::Path;

use crate::args::module::New;
use crate::embedded::Template;
use crate::failure::Failure;

/// Longest name; a module's name has as many characters.
const NAME_BYTES_MAX: usize = 64;

/// Names that mean something else: Rust's words and crates, and folders of cargo's.
const TAKEN: &[&str] = &[
    "abstract",
    "alloc",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "build",
    "const",
    "continue",
    "core",
    "crate",
    "deps",
    "do",
    "dyn",
    "else",
    "enum",
    "examples",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "gen",
    "if",
    "impl",
    "in",
    "incremental",
    "let",
    "loop",
    "macro",
    "match",
    "mod",
    "move",
    "mut",
    "override",
    "priv",
    "proc-macro",
    "pub",
    "ref",
    "return",
    "self",
    "static",
    "std",
    "struct",
    "super",
    "test",
    "trait",
    "true",
    "try",
    "type",
    "typeof",
    "unsafe",
    "use",
    "virtual",
    "where",
    "yield",
];

/// What the crate is called: as was asked, or as its folder.
pub(super) fn of(arguments: &New, template: &Template) -> Result<String, Box<Failure>> {
    let name = match &arguments.name {
        Some(name) => name.clone(),
        None => of_folder(&arguments.dir).ok_or_else(|| {
            Failure::input(format!("{} has no name", arguments.dir.display()))
                .hint("give the crate one: --name NAME")
        })?,
    };
    check(&name, template).map_err(|why| {
        Failure::input(format!("a module cannot be called {name:?}: {why}"))
            .hint("1 to 64 of a-z, 0-9 and -, the first one a letter; --name gives another name\nthan the folder's")
    })?;
    Ok(name)
}

/// The last part of the path, of which `.` has none.
fn of_folder(dir: &Path) -> Option<String> {
    let whole = std::path::absolute(dir).ok()?;
    let whole = whole.canonicalize().unwrap_or(whole);
    Some(whole.file_name()?.to_string_lossy().into_owned())
}

fn check(name: &str, template: &Template) -> Result<(), &'static str> {
    let is_of_name = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        Err("it has too few or too many characters")
    } else if !name.bytes().all(is_of_name) {
        Err("it has other characters")
    } else if !name.starts_with(|first: char| first.is_ascii_lowercase()) {
        Err("it does not begin with a letter")
    } else if name.ends_with('-') || name.contains("--") {
        Err("a hyphen stands between letters or digits")
    } else if TAKEN.contains(&name) {
        Err("Rust or cargo uses that name")
    } else if name == "quorate-guest" || depends_on(template, name) {
        Err("it depends on a crate of that name")
    } else {
        Ok(())
    }
}

/// Whether a crate of this name is one that the template uses; in code a hyphen is an underscore.
fn depends_on(template: &Template, name: &str) -> bool {
    let mut dependencies = template.dependencies.iter();
    dependencies.any(|dependency| dependency.replace('_', "-") == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::TEMPLATES;

    #[test]
    fn names_that_cargo_and_the_manifest_take_are_taken() {
        for good in ["a", "counter", "my-kv2", &"x".repeat(64)] {
            assert_eq!(check(good, &TEMPLATES[0]), Ok(()), "{good}");
        }
        for bad in [
            "",
            "My",
            "my_kv",
            "2kv",
            "-a",
            "a-",
            "a--b",
            "fn",
            "core",
            "build",
            "serde",
            "quorate-guest",
            "über",
            &"x".repeat(65),
        ] {
            assert!(check(bad, &TEMPLATES[0]).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_folder_names_its_crate_also_through_dots() {
        assert_eq!(of_folder(Path::new("a/mine/")).as_deref(), Some("mine"));
        let here = std::env::current_dir().expect("tests run in the crate's folder");
        let here = here
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        assert_eq!(of_folder(Path::new(".")), here);
        assert_eq!(of_folder(Path::new("/")), None);
    }
}
