//! A module that counts names and says which version of it did, in as many versions as a test wants.

const SOURCE: &str = include_str!("../../fixtures/tally.wat");

/// A version of it.
#[derive(Debug, Clone)]
pub struct Tally {
    pub name: &'static str,
    /// Answered beside each count.
    pub version: u8,
    pub state_version: u32,
    pub migrates_from: Vec<u32>,
    pub migrates_down_to: Vec<u32>,
    /// What its migration does after it has moved every count.
    pub migrate: &'static str,
    /// What its way down does after it has moved every count.
    pub migrate_down: &'static str,
    /// Makes it longer.
    pub padding: usize,
}

impl Tally {
    pub fn new(version: u8, state_version: u32) -> Self {
        Self {
            name: "tally",
            version,
            state_version,
            migrates_from: Vec::new(),
            migrates_down_to: Vec::new(),
            migrate: "",
            migrate_down: "",
            padding: 0,
        }
    }

    /// Version 2, with another layout than version 1, and both ways between them.
    pub fn second() -> Self {
        Self {
            migrates_from: vec![1],
            migrates_down_to: vec![1],
            ..Self::new(2, 2)
        }
    }

    /// As it is deployed.
    pub fn wasm(&self) -> Vec<u8> {
        let padding = match self.padding {
            0 => String::new(),
            bytes => format!("(@custom \"padding\" \"{}\")", "x".repeat(bytes)),
        };
        let source = SOURCE
            .replace("{PADDING}", &padding)
            .replace("{VERSION}", &self.version.to_string())
            .replace("{LETTER}", &(96 + self.state_version).to_string())
            .replace("{MIGRATE}", self.migrate)
            .replace("{DOWN}", self.migrate_down);
        let mut wasm = wat::parse_str(source).expect("the module is well-formed");
        let manifest = format!(
            r#"{{"name":"{}","version":"{}.0.0","abi":1,"state-version":{},"migrates-from":{:?},
                "migrates-down-to":{:?},"codec":"raw"}}"#,
            self.name, self.version, self.state_version, self.migrates_from, self.migrates_down_to
        );
        let mut section = vec![16];
        section.extend_from_slice(b"quorate_manifest");
        section.extend_from_slice(manifest.as_bytes());
        wasm.push(0);
        length(section.len(), &mut wasm);
        wasm.extend_from_slice(&section);
        wasm
    }
}

/// LEB128.
fn length(mut left: usize, out: &mut Vec<u8>) {
    while left > 127 {
        out.push((left & 127) as u8 | 128);
        left >>= 7;
    }
    out.push(left as u8);
}

/// What a version answers to a command or query: itself, and the count.
pub fn counted(version: u8, count: u64) -> Vec<u8> {
    let mut answer = vec![version];
    answer.extend_from_slice(&count.to_le_bytes());
    answer
}

/// A migration that traps, with its message and place.
pub const PANICS: &str = "(call $abort (i32.const 256) (i32.const 15) (i32.const 288) (i32.const 12) \
                          (i32.const 17)) (unreachable)";
/// One that never ends.
pub const LOOPS: &str = "(loop $ever (br $ever))";
/// One whose outcome means nothing.
pub const BAD_OUTCOME: &str = "(return (i64.const 0))";
/// One that refuses, with code 7.
pub const REFUSES: &str = "(return (i64.const 0x0000018000000014))";

/// A prebuilt module with another version in its manifest: the same code, another hash.
pub fn with_version(wasm: &[u8], version: &str) -> Vec<u8> {
    with_manifest(wasm, |manifest| {
        let (before, rest) = manifest
            .split_once("\"version\":\"")
            .expect("it has a version");
        let (_, after) = rest.split_once('"').expect("the version ends");
        format!("{before}\"version\":\"{version}\"{after}")
    })
}

/// A prebuilt module with another manifest.
pub fn with_manifest(wasm: &[u8], change: impl Fn(&str) -> String) -> Vec<u8> {
    let (mut out, mut at) = (wasm[..8].to_vec(), 8);
    while at < wasm.len() {
        let (id, mut body, mut shift) = (wasm[at], 0, 0);
        at += 1;
        loop {
            let byte = wasm[at];
            at += 1;
            body |= usize::from(byte & 127) << shift;
            shift += 7;
            if byte < 128 {
                break;
            }
        }
        let mut section = wasm[at..at + body].to_vec();
        at += body;
        if id == 0 && section[1..].starts_with(b"quorate_manifest") {
            let text = String::from_utf8(section[17..].to_vec()).expect("a manifest is JSON");
            section.truncate(17);
            section.extend(change(&text).bytes());
        }
        out.push(id);
        length(section.len(), &mut out);
        out.extend_from_slice(&section);
    }
    out
}
