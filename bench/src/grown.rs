//! Versions of a module that are larger than it.

use anyhow::{Context, Result, bail, ensure};

/// The length of the magic number and the version of the format, before the first section.
const PREAMBLE_BYTES: usize = 8;
const CUSTOM: u8 = 0;
const FUNCTIONS: u8 = 3;
const CODE: u8 = 10;
const MANIFEST: &[u8] = b"\x10quorate_manifest";

/// `module` with each of its own functions `copies` times more, and another version in its manifest.
///
/// Nobody calls the copies, so that it behaves as before; but they are code as a compiler made it,
/// which admission has to check and a node to compile.
///
/// # Errors
/// It is no module that a node would take.
pub(crate) fn grown(module: &[u8], copies: usize, version: &str) -> Result<Vec<u8>> {
    ensure!(module.len() > PREAMBLE_BYTES, "no module");
    let (preamble, mut rest) = module.split_at(PREAMBLE_BYTES);
    let mut out = preamble.to_vec();
    while let Some((&id, after)) = rest.split_first() {
        let (length, after) = number(after)?;
        let (section, after) = after.split_at_checked(length).context("a section ends")?;
        rest = after;
        let section = match id {
            // A function has its type in one section, and its locals and instructions in the other.
            FUNCTIONS | CODE => repeated(section, copies)?,
            CUSTOM if section.starts_with(MANIFEST) => with_version(section, version)?,
            _ => section.to_vec(),
        };
        out.push(id);
        put_number(section.len(), &mut out);
        out.extend_from_slice(&section);
    }
    Ok(out)
}

/// A section that is a vector, with its elements `copies` times more.
fn repeated(section: &[u8], copies: usize) -> Result<Vec<u8>> {
    let (count, elements) = number(section)?;
    let mut out = Vec::new();
    put_number(count * (copies + 1), &mut out);
    for _ in 0..=copies {
        out.extend_from_slice(elements);
    }
    Ok(out)
}

fn with_version(section: &[u8], version: &str) -> Result<Vec<u8>> {
    const FIELD: &str = "\"version\":\"";
    let text = std::str::from_utf8(section)?;
    let begin = text.find(FIELD).context("the manifest has a version")? + FIELD.len();
    let length = text[begin..].find('"').context("the version ends")?;
    let after = &text[begin + length..];
    Ok(format!("{}{version}{after}", &text[..begin]).into_bytes())
}

/// An unsigned LEB128 number, and what follows it.
fn number(bytes: &[u8]) -> Result<(usize, &[u8])> {
    let mut number = 0;
    for (place, byte) in bytes.iter().take(5).enumerate() {
        number |= usize::from(byte & 127) << (7 * place);
        if byte & 128 == 0 {
            return Ok((number, &bytes[place + 1..]));
        }
    }
    bail!("a number that does not end")
}

fn put_number(mut left: usize, out: &mut Vec<u8>) {
    while left > 127 {
        // The low seven bits.
        out.push((left & 127) as u8 | 128);
        left >>= 7;
    }
    out.push(left as u8);
}
