//! The documentation of this repository, against the module.

use quorate_module_work_queue::{Command, Query, Request, Response};

/// What docs/work-queue.md shows is what the module takes and answers.
#[test]
fn documented_payloads_are_those_of_the_module() {
    let text = include_str!("../../../docs/work-queue.md");
    let (mut commands, mut queries, mut requests) = (0, 0, 0);
    for line in text.lines() {
        let mut quoted = line.split('`').skip(1).step_by(2);
        let Some(first) = quoted.next() else {
            continue;
        };
        let is_row = line.starts_with("| `");
        if is_row && serde_json::from_str::<Command>(first).is_ok() {
            commands += 1;
            for answer in quoted.filter(|answer| answer.starts_with(['{', '"'])) {
                serde_json::from_str::<Response>(answer).expect(line);
            }
        } else if is_row && serde_json::from_str::<Query>(first).is_ok() {
            queries += 1;
        } else if serde_json::from_str::<Request>(first).is_ok() {
            requests += 1;
        } else if is_row && first.starts_with(['{', '"']) {
            panic!("neither command nor query: {line}");
        }
    }
    assert_eq!((commands, queries, requests), (5, 4, 1));
}
