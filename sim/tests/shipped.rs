//! The modules that ship, by their scripts.

#![cfg(feature = "wasm")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};

use quorate_sim::script::{self, ScriptError, ScriptReport};
use quorate_sim::{Builder, Sim};

fn modules() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../modules")
}

fn shipped(module: &str) -> Vec<u8> {
    fs::read(modules().join(format!("prebuilt/{module}.wasm"))).unwrap()
}

fn script_of(module: &str) -> String {
    fs::read_to_string(modules().join(format!("{module}/behaviour.jsonl"))).unwrap()
}

fn run(builder: Builder, code: &[u8], script: &str) -> Result<ScriptReport, Box<ScriptError>> {
    let mut machine = builder.code(code).unwrap().into_machine();
    script::run(&mut machine, script, &modules(), &mut |_| ())
}

/// Without building anything: the scripts fit the modules that ship, and two different modules are told apart.
#[test]
fn shipped_modules_pass_their_own_scripts() {
    for module in ["counter", "kv", "probe", "work-queue"] {
        let code = shipped(module);
        let beside = Sim::builder().beside(code.clone());
        let report = run(beside, &code, &script_of(module)).unwrap_or_else(|error| {
            panic!("{module}: {error}");
        });
        assert!(report.calls >= 20, "{module}: {report:?}");
    }
    let beside_another = Sim::builder()
        .beside(shipped("kv"))
        .code(&shipped("counter"));
    assert!(beside_another.is_err(), "their manifests differ");
}

/// 32 jobs of the largest size, all in one hand: they go there in one operation, and on to another in one.
#[test]
fn the_largest_hand_out_of_the_work_queue_is_within_an_operations_limits() {
    let payload = "\\u0000".repeat(((256 << 10) - 2) / 6);
    let submit = format!(
        "{{\"command\":{{\"by\":\"client\",\"payload\":{{\"json\":{{\"submit\":\
         {{\"capability\":\"a\",\"version\":\"b\",\"payload\":\"{payload}\"}}}}}}}}}}\n"
    );
    let worker = |name| {
        format!(
            "{{\"session\":{{\"name\":\"{name}\",\"capabilities\":\
             {{\"a\":\"b\",\"work-slots\":\"32\"}}}}}}\n"
        )
    };
    let script = format!(
        "{{\"session\":{{\"name\":\"client\"}}}}\n{}{}{}{{\"end\":{{\"name\":\"first\",\"reason\":1}}}}\n\
         {{\"query\":{{\"payload\":{{\"json\":\"totals\"}}}}}}\n",
        submit.repeat(32),
        worker("first"),
        worker("second"),
    );
    let code = shipped("work-queue");
    run(Sim::builder(), &code, &script).unwrap();
}
