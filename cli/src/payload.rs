//! Payloads as users give and read them: JSON by way of the module in force, or bytes.

use std::fs::File;
use std::io::{self, Read};

use quorate_host::admin::{ARGUMENT_BYTES_MAX, PayloadKind, ViewAnswer, ViewRequest, hex, unhex};
use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::args::Payload;
use crate::failure::{Failure, Slug};
use crate::http;
use crate::nodes::{self, Trouble};
use crate::output::Exit;

/// Longest input that is read, in bytes.
const INPUT_BYTES_MAX: u64 = 4 << 20;

/// What was given, read and checked before anything goes over the network.
#[derive(Debug)]
pub(crate) enum Given {
    /// For the module to turn into a payload.
    Json(Box<RawValue>),
    /// A payload.
    Bytes(Vec<u8>),
}

/// How a payload is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// As the module's JSON.
    Json,
    /// As hexadecimal.
    Bytes,
}

/// A payload that came back.
#[derive(Debug)]
pub(crate) enum Shown {
    /// The module's JSON.
    Json(Box<RawValue>),
    /// As it is.
    Bytes(Vec<u8>),
}

/// Turns payloads into JSON and back, by whichever node answers first.
#[derive(Debug)]
pub(crate) struct Viewer {
    admins: Vec<String>,
}

impl Given {
    /// How it was written.
    pub(crate) fn form(&self) -> Form {
        match self {
            Self::Json(_) => Form::Json,
            Self::Bytes(_) => Form::Bytes,
        }
    }

    /// Reads what the command line names.
    pub(crate) fn read(arguments: &Payload) -> Result<Self, Box<Failure>> {
        if let Some(bytes) = &arguments.hex {
            return Ok(Self::Bytes(bytes.0.clone()));
        }
        if let Some(path) = &arguments.file {
            let name = path.display().to_string();
            return File::open(path)
                .map_err(|error| Failure::input(format!("cannot read {name}: {error}")))
                .and_then(|file| read(file, &name))
                .map(Self::Bytes);
        }
        let argument = arguments.json.as_deref().unwrap_or_default();
        let (text, name) = match argument.strip_prefix('@') {
            _ if argument == "-" => (text(io::stdin(), "standard input")?, "standard input"),
            Some(path) => {
                let file = File::open(path)
                    .map_err(|error| Failure::input(format!("cannot read {path}: {error}")))?;
                (text(file, path)?, path)
            }
            None => (argument.to_owned(), "the argument"),
        };
        let json: Box<RawValue> = serde_json::from_str(&text).map_err(|error| {
            Failure::input(format!("{name} is not JSON: {error}")).hint(
                "quote it for the shell: quorate call '{\"set\":{\"key\":\"a\",\"value\":\"1\"}}'",
            )
        })?;
        Ok(Self::Json(json))
    }
}

/// What is handed to a module as it is: text, or a file's bytes after `@`.
pub(crate) fn handed(given: Option<&str>) -> Result<Vec<u8>, Box<Failure>> {
    let given = given.unwrap_or_default();
    let argument = match given.strip_prefix('@') {
        None => given.as_bytes().to_vec(),
        Some(path) => {
            let file = File::open(path)
                .map_err(|error| Failure::input(format!("cannot read {path}: {error}")))?;
            read(file, path)?
        }
    };
    match argument.len() > ARGUMENT_BYTES_MAX {
        true => Err(Failure::input(format!(
            "the argument is longer than {} KiB",
            ARGUMENT_BYTES_MAX >> 10
        ))),
        false => Ok(argument),
    }
}

fn text(source: impl Read, name: &str) -> Result<String, Box<Failure>> {
    String::from_utf8(read(source, name)?)
        .map_err(|_| Failure::input(format!("{name} is not UTF-8")))
}

fn read(source: impl Read, name: &str) -> Result<Vec<u8>, Box<Failure>> {
    let mut bytes = Vec::new();
    source
        .take(INPUT_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::input(format!("cannot read {name}: {error}")))?;
    match bytes.len() as u64 > INPUT_BYTES_MAX {
        true => Err(Failure::input(format!(
            "{name} is longer than {} MiB",
            INPUT_BYTES_MAX >> 20
        ))),
        false => Ok(bytes),
    }
}

impl Viewer {
    /// Asks these admin addresses, in this order.
    pub(crate) fn new(admins: Vec<String>) -> Self {
        Self { admins }
    }

    /// The payload of what was given.
    pub(crate) async fn payload(
        &self,
        kind: PayloadKind,
        given: Given,
        deadline: Instant,
    ) -> Result<Vec<u8>, Box<Failure>> {
        let json = match given {
            Given::Bytes(bytes) => return Ok(bytes),
            Given::Json(json) => json,
        };
        let request = ViewRequest {
            kind,
            json: Some(json),
            payload: None,
            index: None,
        };
        let answer = self.ask(&request, deadline).await?;
        answer
            .payload
            .as_deref()
            .and_then(unhex)
            .ok_or_else(unreadable)
    }

    /// What came back as of entry `index`, in the form in which the question was given. Trouble with the
    /// form is no failure: what was asked for is done.
    pub(crate) async fn show(
        &self,
        kind: PayloadKind,
        payload: Vec<u8>,
        index: u64,
        form: Form,
        deadline: Instant,
    ) -> Shown {
        if form == Form::Bytes {
            return Shown::Bytes(payload);
        }
        match self.json(kind, &payload, Some(index), deadline).await {
            Ok(json) => Shown::Json(json),
            Err(failure) => {
                tracing::warn!(
                    "the answer is shown as it is: {}",
                    failure.text(false).trim_end()
                );
                Shown::Bytes(payload)
            }
        }
    }

    /// JSON of a payload, by the module that was in force at `index`, or the one that is.
    pub(crate) async fn json(
        &self,
        kind: PayloadKind,
        payload: &[u8],
        index: Option<u64>,
        deadline: Instant,
    ) -> Result<Box<RawValue>, Box<Failure>> {
        let request = ViewRequest {
            kind,
            json: None,
            payload: Some(hex(payload)),
            index,
        };
        self.ask(&request, deadline)
            .await?
            .json
            .ok_or_else(unreadable)
    }

    async fn ask(
        &self,
        request: &ViewRequest,
        deadline: Instant,
    ) -> Result<ViewAnswer, Box<Failure>> {
        let nobody = (
            "no node turns JSON into payloads",
            "the admin addresses, which the nodes tell, must be reachable from here\n\
             (listen.advertise-admin); without them give payloads with --hex or --file",
        );
        let post = async |admin: &str, until| {
            let answer = http::post(admin, "/v1/view", request, until).await;
            answer.map_err(refused)
        };
        nodes::in_turn(&self.admins, deadline, nobody, post).await
    }
}

/// What another node would say as well is a failure.
fn refused(error: http::Error) -> Trouble {
    Trouble::Fail(match error {
        http::Error::Refused(status, error) if status.is_client_error() => {
            Failure::input(error.message)
        }
        http::Error::Refused(_, error) if error.code == "no-json" => {
            Failure::new(Exit::USAGE, Slug::NoJson, error.message)
                .hint("give the payload as it is, with --hex or --file")
        }
        http::Error::Refused(_, error) if error.code == "no-module" => {
            Failure::new(Exit::REFUSED, Slug::NoModule, error.message)
        }
        other => return other.into(),
    })
}

fn unreadable() -> Box<Failure> {
    Failure::host("a node's answer has not what was asked for")
}

impl Shown {
    /// For text output.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Json(json) => json.get().to_owned(),
            Self::Bytes(bytes) => hex(bytes),
        }
    }
}

impl Shown {
    /// For JSON output, as the module wrote it.
    pub(crate) fn json(&self) -> Option<&RawValue> {
        match self {
            Self::Json(json) => Some(json),
            Self::Bytes(_) => None,
        }
    }

    /// For JSON output, if the module did not write it.
    pub(crate) fn hex(&self) -> Option<String> {
        match self {
            Self::Json(_) => None,
            Self::Bytes(bytes) => Some(hex(bytes)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `null` is the query of the counter, and the answer of many a module.
    #[test]
    fn null_is_a_payload_and_its_absence_is_none() {
        let json = |text: &str| {
            let request: ViewRequest = serde_json::from_str(text).expect("a request");
            request.json.map(|json| json.get().to_owned())
        };
        let null = json(r#"{"kind":"query","json":null}"#);
        assert_eq!(null.as_deref(), Some("null"));
        assert_eq!(json(r#"{"kind":"query","payload":"00"}"#), None);
        let answer: ViewAnswer = serde_json::from_str(r#"{"json":null}"#).expect("an answer");
        assert!(answer.json.is_some_and(|json| json.get() == "null"));
    }
}
