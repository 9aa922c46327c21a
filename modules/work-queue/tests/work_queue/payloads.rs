//! The payloads, as every client writes and reads them.

use quorate_guest::{Error, SessionId};
use quorate_module_work_queue::{
    Answer, Command, JobId, JobState, JobSummary, Query, Request, Response, Totals, WorkQueue,
};
use quorate_sim::{Failure, Kind};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::support::{Start, WASM};

quorate_sim::native_and_wasm!(
    WorkQueue,
    WASM,
    [malformed_commands_are_an_error_and_shown_payloads_are_json,]
);

#[track_caller]
fn is<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T, json: &str) {
    assert_eq!(serde_json::to_string(value).unwrap(), json);
    assert_eq!(&serde_json::from_str::<T>(json).unwrap(), value);
}

#[test]
fn commands_and_responses() {
    let job = JobId(7);
    is(
        &Command::Submit {
            capability: "resize".to_owned(),
            version: "v1".to_owned(),
            payload: "a\n".to_owned(),
            attempts: 2,
            lease_seconds: 30,
        },
        r#"{"submit":{"capability":"resize","version":"v1","payload":"a\n","attempts":2,"lease-seconds":30}}"#,
    );
    let note = Some("half".to_owned());
    is(
        &Command::Progress {
            job,
            attempt: 1,
            note,
        },
        r#"{"progress":{"job":"7","attempt":1,"note":"half"}}"#,
    );
    let result = "ok".to_owned();
    is(
        &Command::Done {
            job,
            attempt: 1,
            result,
        },
        r#"{"done":{"job":"7","attempt":1,"result":"ok"}}"#,
    );
    let error = "no".to_owned();
    is(
        &Command::Failed {
            job,
            attempt: 1,
            error,
        },
        r#"{"failed":{"job":"7","attempt":1,"error":"no"}}"#,
    );
    is(&Command::Cancel { job }, r#"{"cancel":{"job":"7"}}"#);
    is(&Response::Submitted { job }, r#"{"submitted":{"job":"7"}}"#);
    is(&Response::Recorded, r#""recorded""#);
    is(&Response::Late, r#""late""#);
    is(&Response::Cancelled(true), r#"{"cancelled":true}"#);
}

#[test]
fn what_is_left_out_has_a_default() {
    let submit = r#"{"submit":{"capability":"a","version":"b","payload":"c"}}"#;
    match serde_json::from_str(submit).unwrap() {
        Command::Submit {
            attempts: 10,
            lease_seconds: 60,
            ..
        } => {}
        other => panic!("{other:?}"),
    }
    let progress = r#"{"progress":{"job":"1","attempt":1}}"#;
    match serde_json::from_str(progress).unwrap() {
        Command::Progress { note: None, .. } => {}
        other => panic!("{other:?}"),
    }
    let after = JobId(0);
    let limit = 100;
    assert_eq!(
        serde_json::from_str::<Query>(r#"{"jobs":{}}"#).unwrap(),
        Query::Jobs { after, limit }
    );
    let after = None;
    assert_eq!(
        serde_json::from_str::<Query>(r#"{"workers":{}}"#).unwrap(),
        Query::Workers { after, limit }
    );
}

#[test]
fn queries_answers_and_requests() {
    is(&Query::Job { job: JobId(7) }, r#"{"job":{"job":"7"}}"#);
    is(&Query::Totals, r#""totals""#);
    is(&Answer::Job(None), r#"{"job":null}"#);
    is(
        &Answer::Jobs {
            jobs: vec![JobSummary {
                job: JobId(7),
                capability: "resize".to_owned(),
                version: "v1".to_owned(),
                state: JobState::InHand,
                attempt: 1,
            }],
            more: false,
        },
        r#"{"jobs":{"jobs":[{"job":"7","capability":"resize","version":"v1","state":"in-hand","attempt":1}],"more":false}}"#,
    );
    is(
        &Answer::Totals(Totals::default()),
        r#"{"totals":{"submitted":0,"waiting":0,"pausing":0,"in-hand":0,"done":0,"failed":0,"cancelled":0,"handed-out":0,"leases-expired":0,"open-bytes":0,"kept":0,"kept-bytes":0}}"#,
    );
    is(
        &Request::Job {
            job: JobId(7),
            attempt: 1,
            capability: "resize".to_owned(),
            version: "v1".to_owned(),
            lease_seconds: 60,
            payload: "a.png".to_owned(),
        },
        r#"{"job":{"job":"7","attempt":1,"capability":"resize","version":"v1","lease-seconds":60,"payload":"a.png"}}"#,
    );
}

fn malformed_commands_are_an_error_and_shown_payloads_are_json(start: Start) {
    let mut sim = start();
    let session: SessionId = sim.session(&[]);
    for malformed in [
        r#"{"cancel":{"job":7}}"#,
        r#"{"cancel":{"job":"-1"}}"#,
        r#"{"submit":{"capability":"a","version":"b"}}"#,
        r#"{"done":{"job":"1","attempt":1,"result":"r","more":1}}"#,
        "",
    ] {
        match sim.call_bytes(session, malformed.as_bytes()) {
            Err(Failure::Error(error)) => assert_eq!(error.code(), Error::MALFORMED_PAYLOAD),
            other => panic!("{malformed}: {other:?}"),
        }
    }
    let json = r#"{"cancel":{"job":"7"}}"#;
    let payload = sim.payload_from_json(Kind::Command, json).unwrap();
    assert_eq!(payload, json.as_bytes());
}
