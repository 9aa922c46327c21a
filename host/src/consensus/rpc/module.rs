//! Whether a node has a module's code ready, asked right before the module is put in force.

use bytes::Bytes;
use quorate_core::codec::{DecodeError, Reader, Writer};
use quorate_core::module::ModuleHash;

use super::Error;

/// Longest detail of a rejection, in bytes; the rest is cut.
const DETAIL_BYTES_MAX: usize = 4 << 10;

/// How far a node is with a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// Its code is compiled and in memory.
    Ready,
    /// It is being checked and compiled.
    Loading,
    /// Not all of its chunks are there.
    Absent,
    /// The rules of admission refuse it.
    Rejected {
        /// The rule.
        code: String,
        /// What is wrong and where.
        detail: String,
    },
    /// The node cannot: its own trouble, which it says.
    Failed(String),
}

impl Readiness {
    /// As bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::new();
        match self {
            Self::Ready => out.u8(1),
            Self::Loading => out.u8(2),
            Self::Absent => out.u8(3),
            Self::Rejected { code, detail } => out.u8(4).bytes(code.as_bytes()).bytes(cut(detail)),
            Self::Failed(why) => out.u8(5).bytes(cut(why)),
        };
        out.finish().into()
    }

    /// What [`Readiness::encode`] encoded.
    ///
    /// # Errors
    /// If it is not that.
    pub fn decode(answer: &[u8]) -> Result<Self, Error> {
        let mut input = Reader::new(answer);
        let readiness = match input.u8()? {
            1 => Self::Ready,
            2 => Self::Loading,
            3 => Self::Absent,
            4 => Self::Rejected {
                code: input.text()?.to_owned(),
                detail: input.text()?.to_owned(),
            },
            5 => Self::Failed(input.text()?.to_owned()),
            other => {
                return Err(DecodeError::Unknown {
                    what: "readiness",
                    value: other.into(),
                }
                .into());
            }
        };
        input.finish()?;
        Ok(readiness)
    }
}

fn cut(text: &str) -> &[u8] {
    &text.as_bytes()[..text.floor_char_boundary(DETAIL_BYTES_MAX)]
}

/// The body of a question about a module.
pub fn ask_ready(hash: ModuleHash) -> Bytes {
    Bytes::copy_from_slice(&hash.0)
}

/// What [`ask_ready`] encoded.
///
/// # Errors
/// If it is not that.
pub fn asked_ready(body: &[u8]) -> Result<ModuleHash, Error> {
    let mut input = Reader::new(body);
    let hash = ModuleHash(input.array()?);
    input.finish()?;
    Ok(hash)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn what_is_said_of_a_module_comes_back() {
        let hash = ModuleHash([7; 32]);
        assert_eq!(asked_ready(&ask_ready(hash)).unwrap(), hash);
        assert!(asked_ready(&[7; 31]).is_err() && asked_ready(&[7; 33]).is_err());
        for readiness in [
            Readiness::Ready,
            Readiness::Loading,
            Readiness::Absent,
            Readiness::Rejected {
                code: "module-import".to_owned(),
                detail: "wasi".to_owned(),
            },
            Readiness::Failed("no memory".to_owned()),
        ] {
            let bytes = readiness.encode();
            assert_eq!(Readiness::decode(&bytes).unwrap(), readiness);
            assert!(Readiness::decode(&[&bytes[..], &[0]].concat()).is_err());
            assert!(Readiness::decode(&bytes[..bytes.len() - 1]).is_err());
        }
        assert!(Readiness::decode(&[6]).is_err());
    }

    #[test]
    fn a_long_detail_is_cut_at_a_character() {
        let long = Readiness::Failed("é".repeat(DETAIL_BYTES_MAX));
        let Readiness::Failed(why) = Readiness::decode(&long.encode()).unwrap() else {
            panic!("another answer");
        };
        assert_eq!(why.len(), DETAIL_BYTES_MAX);
    }
}
