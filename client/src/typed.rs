//! Calls by a module's own types instead of bytes.

use quorate_guest::{Codec, Malformed, Module};
use quorate_protocol::{CommitIndex, LogIndex, RequestId};

use crate::{CallError, Client, ServerRequest};

/// A command of module `M` that was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypedApplied<T> {
    /// Its id in the session.
    pub request_id: RequestId,
    /// The log index at which it took effect.
    pub commit_index: CommitIndex,
    /// The module's response.
    pub response: T,
}

/// A query's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypedAnswer<T> {
    /// The newest log entry that the answer has seen.
    pub applied_index: LogIndex,
    /// The module's answer.
    pub answer: T,
}

/// Why a typed call gave no typed response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TypedError {
    /// As of a call by bytes.
    #[error(transparent)]
    Call(
        /// Why.
        #[from]
        CallError,
    ),
    /// The module's codec has no bytes for it. Nothing was sent.
    #[error("the module's codec cannot encode it")]
    NotEncodable,
    /// A command that WAS applied, or a query: the answer's bytes are not of the expected type, as
    /// when the cluster runs another version of the module.
    #[error("the answer of {} bytes is none of the expected type: {reason}", bytes.len())]
    Undecodable {
        /// The answer.
        bytes: Vec<u8>,
        /// The codec's words.
        reason: String,
    },
}

impl Client {
    /// [`Client::call_bytes`], by the types of module `M`.
    ///
    /// ```no_run
    /// # use quorate_guest::Module;
    /// # async fn example<Kv: Module>(client: quorate_client::Client, command: Kv::Command)
    /// # -> Result<Kv::Response, quorate_client::TypedError> {
    /// let applied = client.call::<Kv>(&command).await?;
    /// println!("took effect at {}", applied.commit_index);
    /// # Ok(applied.response)
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`TypedError`]. Not cancel-safe, as [`Client::call_bytes`].
    pub async fn call<M: Module>(
        &self,
        command: &M::Command,
    ) -> Result<TypedApplied<M::Response>, TypedError> {
        let payload = <M::Codec as Codec<M::Command>>::encode(command);
        let payload = payload.map_err(|_| TypedError::NotEncodable)?;
        let applied = self.call_bytes(payload).await?;
        let response = decoded::<M::Codec, M::Response>(applied.response)?;
        Ok(TypedApplied {
            request_id: applied.request_id,
            commit_index: applied.commit_index,
            response,
        })
    }

    /// [`Client::query_bytes`], by the types of module `M`.
    ///
    /// # Errors
    /// [`TypedError`]. Cancel-safe.
    pub async fn query<M: Module>(
        &self,
        query: &M::Query,
    ) -> Result<TypedAnswer<M::Answer>, TypedError> {
        let payload = <M::Codec as Codec<M::Query>>::encode(query);
        let payload = payload.map_err(|_| TypedError::NotEncodable)?;
        let answer = self.query_bytes(payload).await?;
        Ok(TypedAnswer {
            applied_index: answer.applied_index,
            answer: decoded::<M::Codec, M::Answer>(answer.answer)?,
        })
    }
}

impl ServerRequest {
    /// The request, by the type of module `M`.
    ///
    /// # Errors
    /// [`Malformed`] if the payload is none.
    pub fn decode<M: Module>(&self) -> Result<M::Request, Malformed> {
        <M::Codec as Codec<M::Request>>::decode(&self.payload)
    }
}

fn decoded<C: Codec<T>, T>(bytes: Vec<u8>) -> Result<T, TypedError> {
    C::decode(&bytes).map_err(|malformed| TypedError::Undecodable {
        reason: malformed.to_string(),
        bytes,
    })
}
