//! From an input to an outcome: what the exports do, over any host.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::{self, Codec};
use crate::context::{Context, ReadContext};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::module::{Module, Timer};
use crate::wire::{self, Call, Header, Returned};

/// Which export is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Export {
    /// `quorate_apply`.
    Apply,
    /// `quorate_init`.
    Init,
    /// `quorate_query`.
    Query,
    /// `quorate_migrate`.
    Migrate,
    /// `quorate_migrate_down`.
    MigrateDown,
    /// `quorate_payload_from_json`.
    PayloadFromJson,
    /// `quorate_payload_to_json`.
    PayloadToJson,
}

/// Runs `export` of `M` on `input` and returns the outcome's bytes.
///
/// # Panics
/// If the host does not keep to the ABI.
pub(crate) fn run<M: Module>(host: &dyn Host, export: Export, input: &[u8]) -> Vec<u8> {
    let outcome = match export {
        Export::PayloadFromJson => convert::<M>(input, Direction::FromJson).map(Returned::Response),
        Export::PayloadToJson => convert::<M>(input, Direction::ToJson).map(Returned::Response),
        Export::Apply | Export::Init | Export::Query | Export::Migrate | Export::MigrateDown => {
            let (header, call) =
                wire::decode_input(input).expect("the host encodes calls as the ABI says");
            operation::<M>(host, export, header, call)
        }
    };
    wire::encode_outcome(outcome)
}

fn operation<M: Module>(
    host: &dyn Host,
    export: Export,
    header: Header,
    call: Call<'_>,
) -> Result<Returned> {
    if let (Export::Query, Call::Query { payload }) = (export, &call) {
        let query = decode::<M, M::Query>("query", payload)?;
        let answer = M::query(&ReadContext::new(host, header), query)?;
        return encode::<M, M::Answer>(&answer).map(Returned::Response);
    }
    let session = header.session;
    let cx = &mut Context::<M>::new(host, header);
    match (export, call, session) {
        (Export::Apply, Call::Command { payload }, _) => {
            let command = decode::<M, M::Command>("command", payload)?;
            let response = M::command(cx, command)?;
            return encode::<M, M::Response>(&response).map(Returned::Response);
        }
        (Export::Apply, Call::SessionCreated { capabilities }, Some(session)) => {
            M::session_created(cx, session, &capabilities)?;
        }
        (
            Export::Apply,
            Call::SessionExpired {
                reason,
                capabilities,
            },
            Some(session),
        ) => M::session_expired(cx, session, reason, &capabilities)?,
        (Export::Apply, Call::RequestAcknowledged { up_to }, Some(session)) => {
            M::request_acknowledged(cx, session, up_to)?;
        }
        (Export::Apply, Call::Timer { due, key, payload }, _) => {
            M::timer(cx, Timer { key, due, payload })?;
        }
        (Export::Init, Call::Init { argument }, _) => M::init(cx, argument)?,
        (Export::Migrate, Call::Migrate(step), _) => {
            return M::migrate_step(cx, step).map(Returned::from);
        }
        (Export::MigrateDown, Call::Migrate(step), _) => {
            return M::migrate_down_step(cx, step).map(Returned::from);
        }
        (export, call, _) => panic!("the host called {export:?} with {call:?}"),
    }
    Ok(Returned::Response(Vec::new()))
}

fn encode<M: Module, T>(value: &T) -> Result<Vec<u8>>
where
    M::Codec: Codec<T>,
{
    <M::Codec as Codec<T>>::encode(value)
}

fn decode<M: Module, T>(what: &str, payload: &[u8]) -> Result<T>
where
    M::Codec: Codec<T>,
{
    <M::Codec as Codec<T>>::decode(payload)
        .map_err(|malformed| Error::malformed_payload(what, &malformed))
}

#[derive(Debug, Clone, Copy)]
enum Direction {
    FromJson,
    ToJson,
}

/// Payloads as JSON text and back. Input: kind, bytes.
fn convert<M: Module>(input: &[u8], direction: Direction) -> Result<Vec<u8>> {
    let (kind, bytes) = input
        .split_first()
        .expect("the host names a kind of payload");
    match kind {
        1 => convert_as::<M, M::Command>("command", bytes, direction),
        2 => convert_as::<M, M::Response>("response", bytes, direction),
        3 => convert_as::<M, M::Query>("query", bytes, direction),
        4 => convert_as::<M, M::Answer>("answer", bytes, direction),
        5 => convert_as::<M, M::Request>("request", bytes, direction),
        6 => convert_error(bytes, direction),
        kind => panic!("the host asked for a payload of unknown kind {kind}"),
    }
}

fn convert_as<M: Module, T>(what: &str, bytes: &[u8], direction: Direction) -> Result<Vec<u8>>
where
    M::Codec: Codec<T>,
    T: Serialize + DeserializeOwned,
{
    match direction {
        Direction::FromJson => {
            let value: T = codec::from_json(bytes)
                .map_err(|malformed| Error::malformed_payload(what, &malformed))?;
            encode::<M, T>(&value)
        }
        Direction::ToJson => codec::to_json(&decode::<M, T>(what, bytes)?),
    }
}

/// The payload of an error is its message; in JSON a string.
fn convert_error(bytes: &[u8], direction: Direction) -> Result<Vec<u8>> {
    let malformed = |malformed| Error::malformed_payload("error", &malformed);
    match direction {
        Direction::FromJson => Ok(codec::from_json::<String>(bytes)
            .map_err(malformed)?
            .into_bytes()),
        Direction::ToJson => {
            let message = <codec::Raw as Codec<String>>::decode(bytes).map_err(malformed)?;
            codec::to_json(&message)
        }
    }
}
