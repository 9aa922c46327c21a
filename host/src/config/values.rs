//! The kinds of values that the configuration has beside plain ones. Each is written as it is read.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use humantime_serde::re::humantime;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde::{Serialize, Serializer};

/// Most founding nodes that a configuration may name.
pub(super) const PEERS_MAX: usize = 64;

/// A text is not a value of the kind that its key takes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not {expected}")]
pub struct ValueError {
    found: String,
    expected: &'static str,
}

impl ValueError {
    fn new(found: &str, expected: &'static str) -> Self {
        // An error line that cannot be read helps nobody.
        let found = found.chars().take(80).collect();
        Self { found, expected }
    }
}

/// A number of bytes, written with a unit: `"256MiB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

impl Size {
    /// So many bytes.
    pub const fn bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// So many times 1024 bytes.
    pub const fn kib(count: u64) -> Self {
        Self(count << 10)
    }

    /// So many times 1024 KiB.
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// So many times 1024 MiB.
    pub const fn gib(count: u64) -> Self {
        Self(count << 30)
    }

    /// The number of bytes.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
        for (shift, unit) in units {
            if self.0 != 0 && self.0.is_multiple_of(1 << shift) {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}B", self.0)
    }
}

impl FromStr for Size {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let expected = "a size with a unit, such as \"64MiB\"";
        let error = || ValueError::new(text, expected);
        if !text.ends_with(|c: char| c.is_ascii_alphabetic()) {
            return Err(error());
        }
        text.parse::<ByteSize>()
            .map(|size| Self(size.as_u64()))
            .map_err(|_| error())
    }
}

/// A span that a timeout is drawn from, written `"1s..2s"`. Its ends are not yet checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeoutRange {
    /// The shortest.
    pub min: Duration,
    /// The longest.
    pub max: Duration,
}

impl fmt::Display for TimeoutRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let format = humantime::format_duration;
        write!(f, "{}..{}", format(self.min), format(self.max))
    }
}

impl FromStr for TimeoutRange {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let error = || ValueError::new(text, "a range of durations, such as \"1s..2s\"");
        let parse = |part: &str| humantime::parse_duration(part.trim()).map_err(|_| error());
        let (min, max) = text.split_once("..").ok_or_else(error)?;
        Ok(Self {
            min: parse(min)?,
            max: parse(max)?,
        })
    }
}

/// Reads where to listen when no scheme is written: `IP:PORT`.
pub(super) fn deserialize_address<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    let expected = "an address to listen on, such as \"127.0.0.1:7402\"";
    text.parse()
        .map_err(|_| de::Error::custom(ValueError::new(&text, expected)))
}

/// Where to listen: `tcp://IP:PORT`. Port 0 lets the operating system choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BindAddress(pub SocketAddr);

impl fmt::Display for BindAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tcp://{}", self.0)
    }
}

impl FromStr for BindAddress {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let expected = "an address to listen on, such as \"tcp://127.0.0.1:7400\"";
        let address = text
            .strip_prefix("tcp://")
            .and_then(|address| address.parse().ok());
        address
            .map(Self)
            .ok_or_else(|| ValueError::new(text, expected))
    }
}

/// Where something is reached: a host name or an IP address, and a port other than 0.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    host: String,
    port: u16,
}

impl HostPort {
    /// The name or address, an IPv6 address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether this is an address that nobody can connect to, such as 0.0.0.0.
    pub fn is_unspecified(&self) -> bool {
        self.host
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.is_unspecified())
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl From<SocketAddr> for HostPort {
    fn from(address: SocketAddr) -> Self {
        Self {
            host: address.ip().to_string(),
            port: address.port(),
        }
    }
}

impl FromStr for HostPort {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let expected = "a host and a port, such as \"node-1.example:7402\"";
        parse_host_port(text).ok_or_else(|| ValueError::new(text, expected))
    }
}

fn parse_host_port(text: &str) -> Option<HostPort> {
    let (host, port) = text.rsplit_once(':')?;
    // `parse` takes a plus sign.
    let port = port
        .bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| port.parse().ok())??;
    let host = match host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        Some(ip) => ip.parse::<std::net::Ipv6Addr>().ok()?.to_string(),
        None => host.to_owned(),
    };
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
    let named = !host.is_empty() && host.len() <= 253 && host.chars().all(allowed);
    // A colon is left only in an address that had brackets.
    let bracketed = text.starts_with('[');
    (named && port != 0 && (bracketed || !host.contains(':'))).then_some(HostPort { host, port })
}

/// Where something is reached over ZeroMQ or by other nodes: `tcp://HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint(pub HostPort);

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tcp://{}", self.0)
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self(address.into())
    }
}

impl FromStr for Endpoint {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let expected = "an endpoint, such as \"tcp://127.0.0.1:7400\"";
        let endpoint = text.strip_prefix("tcp://").and_then(parse_host_port);
        endpoint
            .map(Self)
            .ok_or_else(|| ValueError::new(text, expected))
    }
}

/// A module that is built into the binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Builtin {
    /// Keys and values, with watches.
    Kv,
    /// One number.
    Counter,
    /// Jobs, each done by a client that can do it.
    WorkQueue,
}

/// Where a cluster's first module comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModuleSource {
    /// From the binary.
    Builtin(Builtin),
    /// From a file, relative to the working directory.
    File(PathBuf),
}

impl fmt::Display for ModuleSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Builtin(Builtin::Kv) => f.write_str("kv"),
            Self::Builtin(Builtin::Counter) => f.write_str("counter"),
            Self::Builtin(Builtin::WorkQueue) => f.write_str("work-queue"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

impl FromStr for ModuleSource {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let expected =
            "a module: \"kv\", \"counter\", \"work-queue\", or a file such as \"./mine.wasm\"";
        match text {
            "kv" => Ok(Self::Builtin(Builtin::Kv)),
            "counter" => Ok(Self::Builtin(Builtin::Counter)),
            "work-queue" => Ok(Self::Builtin(Builtin::WorkQueue)),
            _ if text.contains('/') || text.ends_with(".wasm") => Ok(Self::File(text.into())),
            _ => Err(ValueError::new(text, expected)),
        }
    }
}

/// Nodes by id, sorted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peers(pub BTreeMap<u64, Endpoint>);

impl Serialize for Peers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // TOML's keys are texts.
        serializer.collect_map(
            self.0
                .iter()
                .map(|(id, endpoint)| (id.to_string(), endpoint)),
        )
    }
}

impl<'de> Deserialize<'de> for Peers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Table;

        impl<'de> Visitor<'de> for Table {
            type Value = Peers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a table of node ids and endpoints, such as 1 = \"tcp://10.0.0.1:7401\"",
                )
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Peers, A::Error> {
                let mut peers = BTreeMap::new();
                while let Some((key, endpoint)) = map.next_entry::<String, Endpoint>()? {
                    let id = key
                        .parse()
                        .ok()
                        .filter(|id: &u64| id.to_string() == key && *id > 0);
                    let error = || ValueError::new(&key, "a node id: a whole number from 1");
                    peers.insert(id.ok_or_else(|| de::Error::custom(error()))?, endpoint);
                    if peers.len() > PEERS_MAX {
                        let text = format!("more than {PEERS_MAX} nodes");
                        return Err(de::Error::custom(text));
                    }
                }
                Ok(Peers(peers))
            }
        }
        deserializer.deserialize_map(Table)
    }
}

/// Reads and writes a type as its text.
macro_rules! as_text {
    ($($name:ident: $expected:literal),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;

                impl Visitor<'_> for Text {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expected)
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }
    )*};
}

as_text! {
    Size: "a size with a unit, such as \"64MiB\"",
    TimeoutRange: "a range of durations, such as \"1s..2s\"",
    BindAddress: "an address to listen on, such as \"tcp://127.0.0.1:7400\"",
    HostPort: "a host and a port, such as \"node-1.example:7402\"",
    Endpoint: "an endpoint, such as \"tcp://127.0.0.1:7400\"",
    ModuleSource: "a module: \"kv\", \"counter\", \"work-queue\", or a file such as \"./mine.wasm\""
}
