//! The manifest section, written while the module is compiled.

use crate::codec::CodecName;
use crate::module::Module;

/// What the section says. Its JSON is made in constant evaluation, so that it is bytes in the module, not code.
#[derive(Debug, Clone, Copy)]
pub struct Manifest {
    name: &'static str,
    version: &'static str,
    state_version: u32,
    migrates_from: &'static [u32],
    migrates_down_to: &'static [u32],
    codec: &'static str,
}

impl Manifest {
    /// That of module `M`.
    ///
    /// # Panics
    /// While compiling, if a field is not as docs/module-abi.md asks.
    pub const fn of<M: Module>(name: &'static str, version: &'static str) -> Self {
        assert!(
            is_name(name.as_bytes()),
            "a module's name is 1 to 64 of a-z, 0-9 and -"
        );
        assert!(M::STATE_VERSION > 0, "state versions begin at 1");
        Self {
            name,
            version,
            state_version: M::STATE_VERSION,
            migrates_from: M::MIGRATES_FROM,
            migrates_down_to: M::MIGRATES_DOWN_TO,
            codec: <M::Codec as CodecName>::NAME,
        }
    }

    /// Length of the JSON, in bytes.
    pub const fn json_bytes(&self) -> usize {
        self.write(Writer::<0>::new()).length
    }

    /// The JSON; `N` is [`Manifest::json_bytes`].
    pub const fn to_json<const N: usize>(&self) -> [u8; N] {
        let writer = self.write(Writer::<N>::new());
        assert!(writer.length == N, "the length is not the manifest's own");
        writer.bytes
    }

    const fn write<const N: usize>(&self, writer: Writer<N>) -> Writer<N> {
        writer
            .text("{\"name\":\"")
            .text(self.name)
            .text("\",\"version\":\"")
            .text(self.version)
            .text("\",\"abi\":1,\"state-version\":")
            .number(self.state_version)
            .text(",\"migrates-from\":")
            .list(self.migrates_from)
            .text(",\"migrates-down-to\":")
            .list(self.migrates_down_to)
            .text(",\"codec\":\"")
            .text(self.codec)
            .text("\",\"sdk\":\"")
            .text(env!("CARGO_PKG_VERSION"))
            .text("\"}")
    }
}

const fn is_name(name: &[u8]) -> bool {
    let mut at = 0;
    while at < name.len() {
        if !matches!(name[at], b'a'..=b'z' | b'0'..=b'9' | b'-') {
            return false;
        }
        at += 1;
    }
    !name.is_empty() && name.len() <= 64
}

/// Keeps the first `N` bytes and counts all of them.
#[derive(Clone, Copy)]
struct Writer<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> Writer<N> {
    const fn new() -> Self {
        Self {
            bytes: [0; N],
            length: 0,
        }
    }

    const fn byte(mut self, byte: u8) -> Self {
        if self.length < N {
            self.bytes[self.length] = byte;
        }
        self.length += 1;
        self
    }

    const fn text(mut self, text: &str) -> Self {
        let text = text.as_bytes();
        let mut at = 0;
        while at < text.len() {
            self = self.byte(text[at]);
            at += 1;
        }
        self
    }

    const fn number(self, number: u32) -> Self {
        let writer = if number >= 10 {
            self.number(number / 10)
        } else {
            self
        };
        writer.byte(b'0' + (number % 10) as u8)
    }

    const fn list(mut self, numbers: &[u32]) -> Self {
        self = self.byte(b'[');
        let mut at = 0;
        while at < numbers.len() {
            if at > 0 {
                self = self.byte(b',');
            }
            self = self.number(numbers[at]);
            at += 1;
        }
        self.byte(b']')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_section_is_the_json_of_the_abi() {
        const MANIFEST: Manifest = Manifest {
            name: "kv",
            version: "0.1.0-rc.1",
            state_version: 4_294_967_295,
            migrates_from: &[1, 20],
            migrates_down_to: &[],
            codec: "raw",
        };
        const JSON: [u8; MANIFEST.json_bytes()] = MANIFEST.to_json();
        let parsed: serde_json::Value = serde_json::from_slice(&JSON).expect("valid JSON");
        assert_eq!(
            parsed,
            serde_json::json!({
                "name": "kv", "version": "0.1.0-rc.1", "abi": 1, "state-version": 4_294_967_295_u32,
                "migrates-from": [1, 20], "migrates-down-to": [], "codec": "raw",
                "sdk": env!("CARGO_PKG_VERSION"),
            })
        );
    }

    #[test]
    fn names_are_checked() {
        assert!(is_name(b"work-queue2"));
        for bad in [&b""[..], b"Kv", b"a b", &[b'a'; 65]] {
            assert!(!is_name(bad));
        }
    }
}
