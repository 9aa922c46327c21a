//! The limits of an endpoint.

use std::time::Duration;

/// Room for the READY of a peer with the longest Identity and some properties of its own.
const HANDSHAKE_BYTES_FLOOR: usize = 512;

/// The limits of an endpoint, with what happens at each. All are per connection but for those that
/// say otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Time from accept to the end of the handshake; the connection is closed. Default 5 s.
    pub handshake_time: Duration,
    /// Bytes of one handshake command; the connection is closed. Default 4 KiB.
    pub handshake_command_bytes: usize,
    /// Bytes of a message's payload from a peer; the connection is closed. Default 2 MiB + 64 KiB.
    pub payload_bytes: usize,
    /// Time from when the first part of a frame is there until it is complete; the
    /// connection is closed. Default 30 s.
    pub frame_time: Duration,
    /// The same for a long message while others wait for
    /// [`inbound_bytes_total`](Self::inbound_bytes_total). Default 5 s.
    pub frame_time_pressed: Duration,
    /// Connections of the endpoint, those in handshake included; further ones are closed at once.
    /// Default 10 000.
    pub connections: usize,
    /// Bytes queued to a peer, with an allowance for each message; the peer is disconnected as
    /// slow. One message is always taken. Default 8 MiB.
    pub outbound_bytes: usize,
    /// Bytes queued to all peers of the endpoint. Beyond, every peer is held to
    /// [`outbound_bytes_floor`](Self::outbound_bytes_floor). Default 512 MiB.
    pub outbound_bytes_total: usize,
    /// What may always be queued to a peer, or one message. Default 64 KiB.
    pub outbound_bytes_floor: usize,
    /// Time in which a peer must take some of what is queued to it; it is disconnected as slow.
    /// Default 30 s.
    pub stall_time: Duration,
    /// Bytes of long messages (over 32 KiB) of the endpoint that are being received, wait in its
    /// events, or were handed over and not yet dropped; further long messages wait unread.
    /// Default 128 MiB.
    pub inbound_bytes_total: usize,
    /// Events of the endpoint that wait to be taken; beyond, peers are not read. Default 1024.
    pub events: usize,
    /// Time for what is queued when a connection is closed in order; the rest is dropped.
    /// Default 1 s.
    pub close_time: Duration,
    /// Time between two PINGs to a peer that has sent one. Default 10 s.
    pub heartbeat_interval: Duration,
    /// Silence of a peer that has sent a PING, or the TTL in its last PING if that is shorter;
    /// the connection is closed. Default 30 s.
    pub heartbeat_timeout: Duration,
    /// First pause after an accept that failed for want of a resource; doubled up to one second.
    /// Default 10 ms.
    pub accept_backoff: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            handshake_time: Duration::from_secs(5),
            handshake_command_bytes: 4 << 10,
            payload_bytes: (2 << 20) + (64 << 10),
            frame_time: Duration::from_secs(30),
            frame_time_pressed: Duration::from_secs(5),
            connections: 10_000,
            outbound_bytes: 8 << 20,
            outbound_bytes_total: 512 << 20,
            outbound_bytes_floor: 64 << 10,
            stall_time: Duration::from_secs(30),
            inbound_bytes_total: 128 << 20,
            events: 1024,
            close_time: Duration::from_secs(1),
            heartbeat_interval: Duration::from_secs(10),
            heartbeat_timeout: Duration::from_secs(30),
            accept_backoff: Duration::from_millis(10),
        }
    }
}

/// A [`Config`] that no endpoint can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A setting outside of what it may be.
    #[error("{setting} must be from {least} to {most}")]
    OutOfRange {
        /// Name of the field.
        setting: &'static str,
        /// Least value, with unit.
        least: String,
        /// Greatest value, with unit.
        most: String,
    },
    /// Two settings that contradict each other.
    #[error("{lesser} must not exceed {greater}")]
    Order {
        /// Name of the field that is too great.
        lesser: &'static str,
        /// Name of the field that bounds it.
        greater: &'static str,
    },
}

impl Config {
    /// Checks each setting and how they relate.
    ///
    /// # Errors
    /// The first setting that cannot be.
    pub fn validate(&self) -> Result<(), ConfigError> {
        const GIB: usize = 1 << 30;
        check_times(&[
            ("handshake_time", self.handshake_time),
            ("frame_time", self.frame_time),
            ("frame_time_pressed", self.frame_time_pressed),
            ("stall_time", self.stall_time),
            ("close_time", self.close_time),
            ("heartbeat_interval", self.heartbeat_interval),
            ("heartbeat_timeout", self.heartbeat_timeout),
            ("accept_backoff", self.accept_backoff),
        ])?;
        check_sizes(&[
            (
                "handshake_command_bytes",
                self.handshake_command_bytes,
                HANDSHAKE_BYTES_FLOOR,
                1 << 20,
            ),
            ("payload_bytes", self.payload_bytes, 1, GIB),
            ("connections", self.connections, 1, 1 << 20),
            ("outbound_bytes", self.outbound_bytes, 1 << 10, GIB),
            (
                "outbound_bytes_total",
                self.outbound_bytes_total,
                1 << 10,
                1 << 40,
            ),
            ("outbound_bytes_floor", self.outbound_bytes_floor, 1, GIB),
            ("inbound_bytes_total", self.inbound_bytes_total, 1, 1 << 40),
            ("events", self.events, 1, 1 << 20),
        ])?;
        check_order(&[
            ("heartbeat_interval", "heartbeat_timeout", {
                self.heartbeat_interval <= self.heartbeat_timeout
            }),
            ("outbound_bytes", "outbound_bytes_total", {
                self.outbound_bytes <= self.outbound_bytes_total
            }),
            ("outbound_bytes_floor", "outbound_bytes", {
                self.outbound_bytes_floor <= self.outbound_bytes
            }),
            // Otherwise the longest message would wait for room for ever.
            ("payload_bytes", "inbound_bytes_total", {
                self.payload_bytes < self.inbound_bytes_total
            }),
        ])
    }
}

/// A PING cannot announce a longer TTL than 6553.5 s; an hour is enough for all else too.
const TIME_MAX: Duration = Duration::from_secs(3600);
const TIME_MIN: Duration = Duration::from_millis(1);

fn check_times(settings: &[(&'static str, Duration)]) -> Result<(), ConfigError> {
    match settings
        .iter()
        .find(|(_, time)| !(TIME_MIN..=TIME_MAX).contains(time))
    {
        Some((setting, _)) => Err(ConfigError::OutOfRange {
            setting,
            least: format!("{TIME_MIN:?}"),
            most: format!("{TIME_MAX:?}"),
        }),
        None => Ok(()),
    }
}

fn check_sizes(settings: &[(&'static str, usize, usize, usize)]) -> Result<(), ConfigError> {
    match settings
        .iter()
        .find(|(_, value, least, most)| !(least..=most).contains(&value))
    {
        Some((setting, _, least, most)) => Err(ConfigError::OutOfRange {
            setting,
            least: least.to_string(),
            most: most.to_string(),
        }),
        None => Ok(()),
    }
}

fn check_order(relations: &[(&'static str, &'static str, bool)]) -> Result<(), ConfigError> {
    match relations.iter().find(|(_, _, holds)| !holds) {
        Some((lesser, greater, _)) => Err(ConfigError::Order { lesser, greater }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid() {
        assert_eq!(Config::default().validate(), Ok(()));
    }

    #[test]
    fn each_bad_setting_is_named() {
        let zero_time = Config {
            stall_time: Duration::ZERO,
            ..Config::default()
        };
        assert!(matches!(
            zero_time.validate(),
            Err(ConfigError::OutOfRange {
                setting: "stall_time",
                ..
            })
        ));
        let no_connections = Config {
            connections: 0,
            ..Config::default()
        };
        assert!(matches!(
            no_connections.validate(),
            Err(ConfigError::OutOfRange {
                setting: "connections",
                ..
            })
        ));
        let long_interval = Config {
            heartbeat_interval: Duration::from_secs(31),
            ..Config::default()
        };
        assert_eq!(
            long_interval.validate(),
            Err(ConfigError::Order {
                lesser: "heartbeat_interval",
                greater: "heartbeat_timeout"
            })
        );
        let no_room = Config {
            inbound_bytes_total: 1 << 20,
            ..Config::default()
        };
        assert_eq!(
            no_room.validate(),
            Err(ConfigError::Order {
                lesser: "payload_bytes",
                greater: "inbound_bytes_total"
            })
        );
    }
}
