//! Scripts that fail, each at its line with what was expected and what came.

#![cfg(feature = "wasm")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::Path;

use quorate_sim::Sim;
use quorate_sim::script::{self, ScriptReport, StepReport};

fn run(module: &str, script: &str) -> Result<(ScriptReport, Vec<StepReport>), String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../modules/prebuilt");
    let code = fs::read(folder.join(format!("{module}.wasm"))).unwrap();
    let mut machine = Sim::code(&code).unwrap().into_machine();
    let mut steps = Vec::new();
    let ran = script::run(&mut machine, script, &folder, &mut |step| {
        steps.push(step.clone())
    });
    ran.map(|report| (report, steps))
        .map_err(|error| error.to_string())
}

#[test]
fn what_each_step_came_to_is_reported() {
    let (report, steps) = run(
        "counter",
        r#"# A comment, and an empty line.

{"session":{"name":"a"}}
{"command":{"by":"a","payload":{"json":{"add":5}},"expect":{"json":5}}}
{"again":{"by":"a","expect":{"hex":"35"}}}
{"command":{"by":"a","payload":{"hex":"00"},"expect":{"error":{"code":4294901761}}}}
{"query":{"by":"a","payload":{"json":null},"expect":{"json":5},"fuel-at-most":1000000}}
{"disconnect":{"name":"a"}}
{"advance":{"seconds":89}}
{"reconnect":{"name":"a"}}
{"disconnect":{"name":"a"}}
{"advance":{"seconds":91,"milliseconds":1}}
{"command":{"by":"a","payload":{"json":"reset"},"expect":{"refused":"no-session"}}}
"#,
    )
    .unwrap();
    assert_eq!(report.steps, 11);
    let shown: Vec<(usize, &str, &str)> = steps
        .iter()
        .filter(|step| !step.outcome.is_empty())
        .map(|step| (step.line, step.step, step.outcome.as_str()))
        .collect();
    assert_eq!(shown[0], (4, "command", "5"));
    assert_eq!(shown[1], (5, "again", "5"));
    assert!(
        shown[2]
            .2
            .starts_with("error 4294901761: malformed command"),
        "{shown:?}"
    );
    assert_eq!(shown[3], (7, "query", "5"));
    assert_eq!(shown[4], (13, "command", "refused: no-session"));
    assert!(steps[1].fuel > 1000, "{steps:?}");
}

#[test]
fn requests_are_compared() {
    let script = |expect: &str| {
        format!(
            r#"{{"session":{{"name":"a"}}}}
{{"command":{{"by":"a","payload":{{"json":{{"set":{{"key":"k","value":"1"}}}}}}}}}}
{{"command":{{"by":"a","payload":{{"json":{{"watch":{{"key":"k"}}}}}}}}}}
{{"requests":{{"of":"a","expect":{expect}}}}}
{{"acknowledge":{{"by":"a","up-to":1}}}}
{{"requests":{{"of":"a","expect":[]}}}}"#
        )
    };
    run(
        "kv",
        &script(r#"[{"json":{"value":{"key":"k","value":"1"}}}]"#),
    )
    .unwrap();
    let error = run("kv", &script("[]")).unwrap_err();
    assert!(
        error.ends_with("expected: []\n       got: [{\"value\":{\"key\":\"k\",\"value\":\"1\"}}]"),
        "{error}"
    );
    assert!(error.starts_with("line 4: "), "{error}");
}

#[test]
fn a_step_that_ends_in_another_way_is_named() {
    for (step, expected) in [
        (
            r#"{"command":{"by":"a","payload":{"json":{"add":5}},"expect":{"json":6}}}"#,
            "expected: 6\n       got: 5",
        ),
        (
            r#"{"command":{"by":"a","payload":{"json":{"add":5}},"expect":{"hex":"36"}}}"#,
            "expected: hex 36\n       got: hex 35",
        ),
        (
            r#"{"command":{"by":"a","payload":{"json":{"add":5}},"fails":true}}"#,
            "expected: an error of the module's\n       got: 5",
        ),
        (
            r#"{"command":{"by":"a","payload":{"json":{"add":5}},"expect":{"trap":"panicked"}}}"#,
            "expected: trap panicked\n       got: 5",
        ),
        (
            r#"{"command":{"by":"a","payload":{"hex":"00"}}}"#,
            "expected: success\n       got: error 4294901761: malformed command",
        ),
        (
            r#"{"command":{"by":"a","payload":{"json":{"add":5}},"fuel-at-most":10}}"#,
            "expected: at most 10 fuel\n       got: ",
        ),
        (
            r#"{"session":{"name":"b","fails":true}}"#,
            "expected: an error of the module's\n       got: success",
        ),
        (
            r#"{"upgrade":{"file":"kv.wasm"}}"#,
            "expected: success\n       got: it has another name than the module in force",
        ),
        (
            r#"{"upgrade":{"file":"counter.wasm","fails":true}}"#,
            "expected: a failure\n       got: success",
        ),
        (r#"{"upgrade":{"file":"none.wasm"}}"#, "cannot be read"),
        (
            r#"{"command":{"by":"b","payload":{"hex":""}}}"#,
            "there is no session \"b\"",
        ),
        (
            r#"{"command":{"by":"a"}}"#,
            "it is no step: missing field `payload`",
        ),
        (
            r#"{"frobnicate":{}}"#,
            "it is no step: unknown variant `frobnicate`",
        ),
        (
            r#"{"command":{"by":"a","payload":{"json":5}}}"#,
            "no payload comes of it: error",
        ),
        (
            r#"{"end":{"name":"a","reason":4}}"#,
            "a session ends here for reason 1 (expired) or 2",
        ),
        (
            r#"{"query":{"payload":{"json":null},"fails":true,"expect":{"json":1}}}"#,
            "it has both `fails` and `expect`",
        ),
    ] {
        let script = format!("{{\"session\":{{\"name\":\"a\"}}}}\n\n{step}\n");
        let error = run("counter", &script).unwrap_err();
        assert!(error.starts_with(&format!("line 3: {step}\n  ")), "{error}");
        assert!(error.contains(expected), "{error}");
    }
}
