//! The part of Cargo.lock that generated crates need, so that they build with the versions that were tested, and
//! without asking the registry where those are in its cache.

use std::collections::{BTreeMap, BTreeSet};

/// The entries of `lock` for the packages `needed` and all that these depend on. Crates of the workspace are left
/// out: cargo adds them. What is too much cargo takes out at the first build.
pub(crate) fn closure(lock: &str, needed: &BTreeSet<String>) -> String {
    let mut blocks = lock.split("\n[[package]]\n");
    let head = blocks.next().expect("a split has a first part");
    let mut of_name: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for block in blocks {
        of_name.entry(name(block)).or_default().push(block);
    }
    let mut wanted: Vec<&str> = needed.iter().map(String::as_str).collect();
    let mut seen = BTreeSet::new();
    while let Some(name) = wanted.pop() {
        if seen.insert(name) {
            let blocks = of_name.get(name).map_or(&[][..], Vec::as_slice);
            wanted.extend(blocks.iter().flat_map(|block| dependencies(block)));
        }
    }
    let kept = seen.iter().flat_map(|name| of_name.get(name)).flatten();
    let kept = kept.filter(|block| block.contains("\nsource = \"registry+"));
    let kept: Vec<String> = kept
        .map(|block| format!("\n[[package]]\n{}\n", block.trim_end()))
        .collect();
    format!("{}\n{}", head.trim_end(), kept.concat())
}

fn name(block: &str) -> &str {
    let first = block.lines().next().unwrap_or_default();
    first
        .strip_prefix("name = \"")
        .and_then(|rest| rest.strip_suffix('"'))
        .expect("a package begins with its name")
}

/// The names in `dependencies = [ "name", "name version", ... ]`.
fn dependencies(block: &str) -> impl Iterator<Item = &str> {
    let list = block
        .split_once("dependencies = [")
        .map_or("", |(_, list)| list);
    list.split('"')
        .skip(1)
        .step_by(2)
        .filter_map(|entry| entry.split(' ').next())
}
