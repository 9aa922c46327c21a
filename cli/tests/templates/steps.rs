//! A module of the SDK that migrates in steps, compiled, over the simulator's log.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::json;

use super::{Outside, has_no_compiler, quorate, succeeded, target_dir};

const NAMES: u64 = 2500;

/// Prices by name, in euros; from version 2 on in cents.
fn source(version: u32, migration: &str) -> String {
    format!(
        r#"//! Prices.
use quorate_guest::prelude::*;

/// Prices.
#[derive(Debug)]
pub struct Prices;

const PRICES: Map<String, u64> = Map::new("prices");

impl Module for Prices {{
    const STATE_VERSION: u32 = {version};
    {migration}
    type Codec = Json;
    type Command = u64;
    type Response = ();
    type Query = String;
    type Answer = Option<u64>;
    type Request = ();

    fn command(cx: &mut Context<Self>, names: u64) -> Result<()> {{
        for name in 0..names {{
            PRICES.insert(cx, &format!("{{name:05}}"), &name)?;
        }}
        Ok(())
    }}

    fn query(cx: &ReadContext, name: String) -> Result<Option<u64>> {{
        PRICES.get(cx, &name)
    }}
}}

export_module!(Prices);
"#
    )
}

/// To cents, and back, a thousand prices a step; a price of `unfit` euros is none.
fn in_steps(unfit: u64) -> String {
    format!(
        r#"const MIGRATES_FROM: &'static [u32] = &[1];
    const MIGRATES_DOWN_TO: &'static [u32] = &[1];

    fn migrate_step(cx: &mut Context<Self>, step: MigrationStep<'_>) -> Result<Progress> {{
        PRICES.migrate_step(cx, step, 1000, |cx, name, euros| {{
            if euros == {unfit} {{
                return Err(Error::new(7, "no price"));
            }}
            PRICES.insert(cx, &name, &(100 * euros))
        }})
    }}

    fn migrate_down_step(cx: &mut Context<Self>, step: MigrationStep<'_>) -> Result<Progress> {{
        PRICES.migrate_step(cx, step, 1000, |cx, name, cents| {{
            PRICES.insert(cx, &name, &(cents / 100))
        }})
    }}"#
    )
}

/// Builds the crate with this source, as `file` in its folder; whether there is a compiler.
fn builds(folder: &Path, source: &str, file: &str) -> bool {
    fs::write(folder.join("src/lib.rs"), source).unwrap();
    let built = quorate(folder, &["module", "build", "--offline"]);
    let said = String::from_utf8_lossy(&built.stderr);
    if has_no_compiler(&said, "migrating in steps") {
        return false;
    }
    succeeded("quorate module build", &built);
    fs::copy(target_dir().join("prices.wasm"), folder.join(file)).unwrap();
    true
}

fn script() -> String {
    let mut script = String::new();
    let mut step = |step: serde_json::Value| writeln!(script, "{step}").unwrap();
    let is = |name: u64, price: u64| {
        json!({ "query": {
            "payload": { "json": format!("{name:05}") },
            "expect": { "json": price },
        } })
    };
    step(json!({ "session": { "name": "a" } }));
    step(json!({ "command": { "by": "a", "payload": { "json": NAMES } } }));
    // It fails in its third step: the two before are undone.
    step(json!({ "upgrade": { "file": "unfit.wasm", "fails": true } }));
    step(is(7, 7));
    step(is(2400, 2400));
    step(json!({ "upgrade": { "file": "two.wasm" } }));
    for name in [0, 999, 1000, 2000, NAMES - 1] {
        step(is(name, 100 * name));
    }
    step(json!({ "upgrade": { "file": "one.wasm" } }));
    for name in [0, 999, 1000, 2000, NAMES - 1] {
        step(is(name, name));
    }
    script
}

#[test]
fn a_module_of_the_sdk_migrates_in_steps_and_a_failed_step_undoes_them() {
    let outside = Outside::enter("prices");
    let folder = &outside.folder;
    let parent = folder.parent().unwrap();
    let made = quorate(parent, &["new", "prices", "--template", "empty"]);
    succeeded("quorate new", &made);
    if !builds(folder, &source(1, ""), "one.wasm") {
        return;
    }
    builds(folder, &source(2, &in_steps(2400)), "unfit.wasm");
    builds(folder, &source(2, &in_steps(u64::MAX)), "two.wasm");
    fs::write(folder.join("steps.jsonl"), script()).unwrap();
    let ran = quorate(
        folder,
        &[
            "module",
            "run",
            "one.wasm",
            "--script",
            "steps.jsonl",
            "-o",
            "json",
        ],
    );
    succeeded("quorate module run", &ran);
}
