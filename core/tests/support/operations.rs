//! Operations in few words. Session `n` has the id of sixteen bytes `n`.

use std::collections::BTreeMap;

use quorate_core::entry::{CHUNK_BYTES_MAX, Operation, Sequence};
use quorate_core::result::{OperationResult, Refusal, Response};
use quorate_protocol::{CreationKey, Generation, RequestId, SessionId};

use super::{Action, Code, script};

pub(crate) fn id(session: u8) -> SessionId {
    SessionId([session; 16])
}

pub(crate) fn put(key: &[u8], value: &[u8]) -> Action {
    Action::Put(key.to_vec(), value.to_vec())
}

/// Version 2, without a creation key.
pub(crate) fn create(session: u8) -> Operation {
    create_as(session, Sequence::Consecutive, [0; 16], &[])
}

pub(crate) fn create_any(session: u8) -> Operation {
    create_as(session, Sequence::Any, [0; 16], &[])
}

pub(crate) fn create_as(
    session: u8,
    sequence: Sequence,
    creation_key: [u8; 16],
    capabilities: &[(&str, &str)],
) -> Operation {
    Operation::CreateSession {
        session: id(session),
        creation_key: CreationKey(creation_key),
        secret_hash: [session; 32],
        timeout_ms: 0,
        sequence,
        capabilities: capabilities
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect::<BTreeMap<_, _>>(),
    }
}

pub(crate) fn continue_session(session: u8) -> Operation {
    Operation::ContinueSession {
        session: id(session),
    }
}

pub(crate) fn close(session: u8, generation: u64) -> Operation {
    Operation::CloseSession {
        session: id(session),
        generation: Generation(generation),
    }
}

pub(crate) fn expire(session: u8, generation: u64) -> Operation {
    Operation::ExpireSession {
        session: id(session),
        generation: Generation(generation),
    }
}

/// A command of generation 1 that still waits for everything.
pub(crate) fn command(session: u8, request: u64, actions: &[Action]) -> Operation {
    command_with(session, 1, request, 0, actions)
}

pub(crate) fn command_with(
    session: u8,
    generation: u64,
    request: u64,
    lowest_pending: u64,
    actions: &[Action],
) -> Operation {
    Operation::Command {
        session: id(session),
        generation: Generation(generation),
        request: RequestId(request),
        lowest_pending: RequestId(lowest_pending),
        payload: script(actions),
    }
}

pub(crate) fn void(session: u8, request: u64) -> Operation {
    Operation::Void {
        session: id(session),
        generation: Generation(1),
        request: RequestId(request),
        lowest_pending: RequestId(0),
    }
}

pub(crate) fn acknowledge(session: u8, up_to: u64) -> Operation {
    Operation::Acknowledge {
        session: id(session),
        generation: Generation(1),
        up_to: RequestId(up_to),
    }
}

pub(crate) fn fire(key: &[u8], due_us: u64) -> Operation {
    Operation::FireTimer {
        key: key.to_vec(),
        due_us,
    }
}

pub(crate) fn checkpoint(start: &[u8], end: &[u8]) -> Operation {
    Operation::Checkpoint {
        start: start.to_vec(),
        end: end.to_vec(),
    }
}

/// The chunks of a module.
pub(crate) fn chunks(code: &Code) -> Vec<Operation> {
    let bytes = code.to_bytes();
    let chunks: Vec<_> = bytes.chunks(CHUNK_BYTES_MAX).collect();
    chunks
        .iter()
        .enumerate()
        .map(|(number, chunk)| Operation::ModuleChunk {
            hash: code.hash(),
            number: number as u32,
            total: chunks.len() as u32,
            bytes: chunk.to_vec(),
        })
        .collect()
}

pub(crate) fn activate(expected: Option<&Code>, code: &Code) -> Operation {
    Operation::Activate {
        expected: expected.map(Code::hash),
        hash: code.hash(),
        argument: b"argument".to_vec(),
    }
}

pub(crate) fn said(index: u64, text: &[u8]) -> OperationResult {
    responded(index, Response::Success(text.to_vec()))
}

pub(crate) fn responded(index: u64, response: Response) -> OperationResult {
    OperationResult::Responded { index, response }
}

pub(crate) fn refused(refusal: Refusal) -> OperationResult {
    OperationResult::Refused(refusal)
}
