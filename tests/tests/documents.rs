//! What documents say of the tests is true: a test that docs/testing.md or docs/requirements.md names in a
//! table exists.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const CRATES: [&str; 11] = [
    "cli",
    "client",
    "core",
    "engine",
    "guest-sdk",
    "host",
    "modules",
    "protocol",
    "sim",
    "tests",
    "zmtp",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn is_name(text: &str) -> bool {
    let is_of_a_name = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
    !text.is_empty() && text.bytes().all(is_of_a_name)
}

/// Adds the names of the functions below `folder` that are marked as tests.
fn collect(folder: &Path, tests: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if !path.ends_with("target") {
                collect(&path, tests);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            tests.extend(tests_of(&fs::read_to_string(&path).unwrap()));
        }
    }
}

fn tests_of(source: &str) -> Vec<String> {
    let (mut is_test, mut is_list) = (false, false);
    let mut names = Vec::new();
    for line in source.lines().map(str::trim) {
        if line.starts_with("quorate_sim::native_and_wasm!(") {
            is_list = true;
        } else if is_list && let Some(name) = line.strip_suffix(',').filter(|name| is_name(name)) {
            // A function that the macro makes two tests of.
            names.push(name.to_owned());
        } else if is_list && line.ends_with(");") {
            is_list = false;
        } else if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some((_, rest)) = line.split_once("fn ")
            && std::mem::take(&mut is_test)
        {
            names.extend(rest.split('(').next().map(str::to_owned));
        }
    }
    names
}

/// The rows of the table whose header's last column is `test`: first column, and names in the last.
fn rows(document: &str, header: &str) -> Vec<(String, Vec<String>)> {
    let lines = document.lines().skip_while(|line| *line != header);
    let rows = lines.skip(2).take_while(|line| line.starts_with('|'));
    let cells = rows.map(|line| line.trim_matches('|').split(" | ").collect::<Vec<_>>());
    cells
        .map(|cells| {
            let named = cells.last().unwrap().split('`').skip(1).step_by(2);
            let named = named.filter(|text| is_name(text)).map(str::to_owned);
            (cells[0].trim().to_owned(), named.collect())
        })
        .collect()
}

const CAPS: &str = "| what | test that reaches the cap |";
const RULES: &str = "| rule of the two files | test |";
const NOT_SIMULATED: &str = "| defect | other test |";
const MEMORY: &str = "| what | cap | at the cap |";
/// Begins the cell of a row whose cap no test reaches; the reason follows.
const UNTESTED: &str = "none: ";

#[test]
fn tests_named_in_the_document_of_testing_exist() {
    let document = fs::read_to_string(root().join("docs/testing.md")).unwrap();
    let mut tests = BTreeSet::new();
    for name in CRATES {
        collect(&root().join(name), &mut tests);
    }
    for header in [CAPS, RULES, NOT_SIMULATED] {
        let rows = rows(&document, header);
        assert!(rows.len() > 5, "no table {header}");
        for (what, named) in rows {
            let says_none = document.contains(&format!("| {what} | {UNTESTED}"));
            assert!(says_none || !named.is_empty(), "{what}: no test");
            for name in named {
                assert!(tests.contains(&name), "{what}: there is no test {name}");
            }
        }
    }
}

const REQUIREMENTS: &str = "| requirement | where | test |";

#[test]
fn every_requirement_names_a_test_and_a_place_that_exist() {
    let document = fs::read_to_string(root().join("docs/requirements.md")).unwrap();
    let mut tests = BTreeSet::new();
    for name in CRATES {
        collect(&root().join(name), &mut tests);
    }
    let mut count = 0;
    for table in document.split(REQUIREMENTS).skip(1) {
        for row in table
            .lines()
            .skip(2)
            .take_while(|line| line.starts_with('|'))
        {
            let cells: Vec<&str> = row.trim_matches('|').split(" | ").collect();
            let [what, place, shown] = cells[..] else {
                panic!("three columns: {row}");
            };
            let names = |cell: &str| -> Vec<String> {
                let names = cell.split('`').skip(1).step_by(2);
                names.map(str::to_owned).collect()
            };
            for path in names(place) {
                assert!(root().join(&path).exists(), "{what}: there is no {path}");
            }
            let named: Vec<String> = names(shown)
                .into_iter()
                .filter(|name| is_name(name))
                .collect();
            assert!(!named.is_empty(), "{what}: no test");
            for name in named {
                assert!(tests.contains(&name), "{what}: there is no test {name}");
            }
            count += 1;
        }
    }
    assert!(count > 100, "{count} requirements");
}

#[test]
fn each_cap_of_a_nodes_memory_has_a_row_in_the_document_of_testing() {
    let testing = fs::read_to_string(root().join("docs/testing.md")).unwrap();
    let architecture = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let names = |rows: Vec<(String, Vec<String>)>| rows.into_iter().map(|(what, _)| what);
    let caps: Vec<_> = names(rows(&architecture, MEMORY)).collect();
    assert!(caps.len() > 10);
    assert_eq!(names(rows(&testing, CAPS)).collect::<Vec<_>>(), caps);
}
