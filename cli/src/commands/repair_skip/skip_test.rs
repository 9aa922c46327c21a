use hyper::StatusCode;
use quorate_host::admin::{ErrorBody, Role};

use super::*;

fn place() -> Place {
    "12:3".parse().expect("a place")
}

fn node(node: u64, poison: Option<(u64, u32, &str)>) -> Asked {
    let status = Status {
        node_id: node,
        name: format!("node-{node}"),
        cluster_name: "dev".to_owned(),
        cluster_id: None,
        role: Role::Stopped,
        leader: None,
        term: 1,
        last_log_index: 20,
        committed_index: 20,
        applied_index: 11,
        module: None,
        sessions: 0,
        members: Vec::new(),
        hash: String::new(),
        uptime_seconds: 1.0,
        version: "0.1.0".to_owned(),
        stopped: None,
        checkpoint: None,
        poison: poison.map(|(index, position, entry)| Poison {
            index,
            position,
            entry: entry.to_owned(),
        }),
    };
    Asked {
        node: NodeId(node),
        admin: format!("node-{node}:7402"),
        answer: Ok(status),
    }
}

fn silent(id: u64) -> Asked {
    Asked {
        answer: Err(http::Error::NoAnswer("connection refused".to_owned())),
        ..node(id, None)
    }
}

/// Errors as users see them.
macro_rules! golden {
    ($text:expr) => {
        insta::with_settings!({ omit_expression => true }, { insta::assert_snapshot!($text) })
    };
}

#[test]
fn places_are_read_and_written() {
    assert_eq!(place().to_string(), "12:3");
    for bad in ["", "12", "12:", ":3", "12:-1", "a:b", "12:3:4"] {
        assert!(bad.parse::<Place>().is_err(), "{bad}");
    }
}

#[test]
fn a_node_that_has_not_come_to_the_entry_is_told_as_well() {
    let asked = [node(1, Some((12, 3, "ab"))), node(2, None)];
    assert_eq!(agree(place(), &asked).map_err(|_| ()), Ok("ab".to_owned()));
}

#[test]
fn skips_that_are_refused() {
    let cases = [
        vec![node(1, Some((12, 3, "ab"))), silent(2)],
        vec![node(1, Some((12, 2, "ab"))), node(2, None)],
        vec![node(1, Some((12, 3, "ab"))), node(2, Some((12, 3, "cd")))],
    ];
    let shown = cases.map(|asked| match agree(place(), &asked) {
        Ok(entry) => panic!("agreed on {entry}"),
        Err(failure) => failure.text(false),
    });
    golden!(shown.concat());
}

#[test]
fn what_became_of_the_nodes() {
    let told = |node: u64, skips, applied, error: Option<&str>| Told {
        node: NodeId(node),
        skips,
        applied,
        error: error.map(str::to_owned),
    };
    let refused = http::Error::Refused(
        StatusCode::CONFLICT,
        ErrorBody {
            code: "entry-applied".to_owned(),
            message: "entry 12 is applied here, and that operation was not skipped".to_owned(),
            hint: None,
            leader: None,
        },
    );
    let report = Report {
        index: "12".to_owned(),
        position: 3,
        nodes: vec![
            told(1, true, true, None),
            told(2, true, false, None),
            told(3, true, false, Some("the disk is full")),
            told(4, false, false, Some(&refused.to_string())),
        ],
    };
    let verdict = match report.verdict() {
        Ok(_) => panic!("node 4 does not skip it"),
        Err(failure) => failure,
    };
    assert_eq!(verdict.exit(), Exit::UNHEALTHY);
    let applied = applied_by(&report.nodes[3]);
    assert_eq!(applied.exit(), Exit::REFUSED);
    golden!(report.text() + "\n" + &verdict.text(false) + &applied.text(false));
}
