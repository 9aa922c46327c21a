//! Names what else may knock on the port, so that the log says more than "garbage".

use std::fmt;

/// A guess at the protocol of a peer that does not speak ZMTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    /// An HTTP request line.
    Http,
    /// A TLS handshake record.
    Tls,
    /// An SSH identification string.
    Ssh,
    /// The header of the PROXY protocol, version 1 or 2.
    Proxy,
    /// Something else.
    Unknown,
}

/// What each protocol's first bytes are.
const OPENINGS: &[(&[u8], Foreign)] = &[
    (b"GET ", Foreign::Http),
    (b"HEAD ", Foreign::Http),
    (b"POST ", Foreign::Http),
    (b"PUT ", Foreign::Http),
    (b"DELETE ", Foreign::Http),
    (b"OPTIONS ", Foreign::Http),
    (b"PATCH ", Foreign::Http),
    (b"CONNECT ", Foreign::Http),
    (b"PRI * HTTP/2", Foreign::Http),
    (b"\x16\x03", Foreign::Tls),
    (b"SSH-", Foreign::Ssh),
    (b"PROXY ", Foreign::Proxy),
    (b"\r\n\r\n\0\r\nQUIT\n", Foreign::Proxy),
];

impl Foreign {
    /// Guesses from the bytes that arrived; a guess from fewer bytes is a worse one.
    pub fn guess(bytes: &[u8]) -> Self {
        OPENINGS
            .iter()
            .find(|(opening, _)| bytes.starts_with(opening))
            .map_or(Self::Unknown, |(_, foreign)| *foreign)
    }
}

impl fmt::Display for Foreign {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Http => "an HTTP request",
            Self::Tls => "a TLS handshake",
            Self::Ssh => "an SSH client",
            Self::Proxy => "a PROXY protocol header",
            Self::Unknown => "not a ZMTP greeting",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Foreign;

    #[test]
    fn common_visitors_are_named() {
        assert_eq!(Foreign::guess(b"GET / HTTP/1.1\r\n"), Foreign::Http);
        assert_eq!(Foreign::guess(b"\x16\x03\x01\x02\x00\x01"), Foreign::Tls);
        assert_eq!(Foreign::guess(b"SSH-2.0-OpenSSH_9.7\r\n"), Foreign::Ssh);
        assert_eq!(Foreign::guess(b"PROXY TCP4 "), Foreign::Proxy);
        assert_eq!(Foreign::guess(b"GETTING"), Foreign::Unknown);
        assert_eq!(Foreign::guess(b""), Foreign::Unknown);
    }
}
