//! The custom section in which a module says what it is.

use quorate_core::module::{Manifest, Rejected};
use serde::Deserialize;

use super::reject;

/// Name of the custom section.
pub(super) const MANIFEST_SECTION: &str = "quorate_manifest";
/// Largest manifest, in bytes.
pub const MANIFEST_BYTES_MAX: usize = 64 << 10;
/// The ABI version that a manifest must name.
const ABI: u32 = 1;
/// Most characters of a name or version.
const NAME_CHARACTERS_MAX: usize = 64;
/// Most state versions that it may migrate from, or down to.
const MIGRATIONS_MAX: usize = 1_024;

/// Fields that a later SDK adds are ignored.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Written {
    name: String,
    version: String,
    abi: u32,
    state_version: u32,
    #[serde(default)]
    migrates_from: Vec<u32>,
    #[serde(default)]
    migrates_down_to: Vec<u32>,
    codec: String,
    #[serde(default)]
    sdk: Option<String>,
    #[serde(default)]
    schema: Option<serde_json::Map<String, serde_json::Value>>,
}

/// The manifest that the sections hold.
pub(super) fn parse(sections: &[&[u8]]) -> Result<Manifest, Rejected> {
    let bad = |detail: String| reject("module-manifest", detail);
    let [section] = sections else {
        let count = sections.len();
        return Err(bad(format!(
            "the module has {count} custom sections {MANIFEST_SECTION}, it must have one"
        )));
    };
    if section.len() > MANIFEST_BYTES_MAX {
        let bytes = section.len();
        return Err(bad(format!(
            "the manifest has {bytes} bytes, {MANIFEST_BYTES_MAX} are allowed"
        )));
    }
    let written: Written = serde_json::from_slice(section)
        .map_err(|error| bad(format!("the manifest is not as it must be: {error}")))?;
    if written.abi != ABI {
        let abi = written.abi;
        return Err(reject(
            "module-abi",
            format!("the module is for ABI version {abi}, this is version {ABI}"),
        ));
    }
    check(&written).map_err(bad)?;
    Ok(Manifest {
        name: written.name,
        version: written.version,
        state_version: written.state_version,
        migrates_from: written.migrates_from,
        migrates_down_to: written.migrates_down_to,
        codec: written.codec,
    })
}

fn check(written: &Written) -> Result<(), String> {
    // Only its type is checked: it is for clients.
    let _ = (&written.sdk, &written.schema);
    let is_name = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    let name = &written.name;
    if name.is_empty() || name.len() > NAME_CHARACTERS_MAX || !name.bytes().all(is_name) {
        return Err(format!(
            "the name must be 1 to {NAME_CHARACTERS_MAX} of a-z, 0-9 and -, not {name:?}"
        ));
    }
    if !is_semantic_version(&written.version) {
        let version = &written.version;
        return Err(format!(
            "the version must be a semantic version such as 1.2.3, not {version:?}"
        ));
    }
    if written.state_version == 0 {
        return Err("the state version must be at least 1".into());
    }
    if !matches!(written.codec.as_str(), "json" | "postcard" | "raw") {
        let codec = &written.codec;
        return Err(format!(
            "the codec must be json, postcard or raw, not {codec:?}"
        ));
    }
    for versions in [&written.migrates_from, &written.migrates_down_to] {
        if versions.len() > MIGRATIONS_MAX || versions.contains(&0) {
            return Err(format!(
                "it may name at most {MIGRATIONS_MAX} state versions to migrate, each at least 1"
            ));
        }
    }
    Ok(())
}

/// By semver.org, version 2.0.0.
fn is_semantic_version(version: &str) -> bool {
    if version.len() > NAME_CHARACTERS_MAX {
        return false;
    }
    let (version, build) = match version.split_once('+') {
        Some((version, build)) => (version, Some(build)),
        None => (version, None),
    };
    let (core, pre_release) = match version.split_once('-') {
        Some((core, pre_release)) => (core, Some(pre_release)),
        None => (version, None),
    };
    let is_number = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_digit())
            && (part == "0" || !part.starts_with('0'))
    };
    let is_identifier = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let is_pre_release = |part: &str| {
        is_identifier(part) && (is_number(part) || !part.bytes().all(|byte| byte.is_ascii_digit()))
    };
    core.split('.').count() == 3
        && core.split('.').all(is_number)
        && pre_release.is_none_or(|text| text.split('.').all(is_pre_release))
        && build.is_none_or(|text| text.split('.').all(is_identifier))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn semantic_versions() {
        for good in [
            "0.1.0",
            "10.20.30",
            "1.0.0-alpha.1",
            "1.0.0-0a",
            "1.0.0+b.01",
            "1.0.0-a-b+c",
        ] {
            assert!(is_semantic_version(good), "{good}");
        }
        for bad in [
            "", "1", "1.2", "1.2.3.4", "01.2.3", "1.2.x", "1.2.3-", "1.2.3-01", "1.2.3+", "v1.2.3",
            "1.2.3 ",
        ] {
            assert!(!is_semantic_version(bad), "{bad}");
        }
    }
}
