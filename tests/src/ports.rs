//! Loopback ports that nobody else takes, also while a node is down.
//!
//! Ports that the operating system chooses come from the range of outgoing connections: one of a node
//! that was killed may be taken by any connection before the node is back, even by a client's attempt
//! to reach that very node. So blocks of ports below that range are used, and the first port of a block
//! is held as long as the block is, which keeps other clusters off it, also those of other processes.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::{Context, Result};

/// Below the range of outgoing connections of every common system.
const FIRST: u16 = 12_000;
const BLOCKS: u16 = 1_200;
/// The held port, and three ports for each of five nodes.
const BLOCK: u16 = 16;

/// A block of ports, free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Ports {
    _held: TcpListener,
    first: u16,
}

impl Ports {
    /// Most ports that a block has.
    pub(crate) const COUNT: u16 = BLOCK - 1;

    /// Takes a block whose ports are all free.
    pub(crate) fn take() -> Result<Self> {
        // Clusters that start at the same time begin their search at different places.
        let start = std::process::id() % u32::from(BLOCKS);
        let blocks = (0..u32::from(BLOCKS)).map(|n| (start + n * 7) % u32::from(BLOCKS));
        blocks
            .filter_map(|block| u16::try_from(block).ok())
            .find_map(|block| Self::try_take(FIRST + block * BLOCK))
            .context("no block of free ports is left")
    }

    fn try_take(first: u16) -> Option<Self> {
        let bind = |port| TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).ok();
        let held = bind(first)?;
        (1..BLOCK)
            .all(|n| bind(first + n).is_some())
            .then_some(Self { _held: held, first })
    }

    /// The address with the `n`th port.
    pub(crate) fn address(&self, n: u16) -> SocketAddr {
        assert!(n < Self::COUNT, "a block has {} ports", Self::COUNT);
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.first + 1 + n))
    }
}
