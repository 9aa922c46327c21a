//! Sockets of processes, as the operating system sees them (Linux: `/proc`).

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;

use anyhow::{Context, Result};

/// Remote ports of the established connections to a listener on loopback.
pub(crate) fn connections(listener: SocketAddr) -> Result<BTreeSet<u16>> {
    let table = fs::read_to_string("/proc/net/tcp").context("read /proc/net/tcp")?;
    let peers = table.lines().skip(1).filter_map(|line| {
        let mut columns = line.split_whitespace().skip(1);
        let (local, remote, state) = (columns.next()?, columns.next()?, columns.next()?);
        const ESTABLISHED: &str = "01";
        (state == ESTABLISHED && port(local)? == listener.port()).then(|| port(remote))?
    });
    Ok(peers.collect())
}

/// The port of `0100007F:1F90`.
fn port(address: &str) -> Option<u16> {
    let (_, port) = address.split_once(':')?;
    u16::from_str_radix(port, 16).ok()
}

/// How many sockets a process has open.
pub(crate) fn open(process: u32) -> Result<usize> {
    let folder = format!("/proc/{process}/fd");
    let entries = fs::read_dir(&folder).with_context(|| format!("read {folder}"))?;
    // A descriptor that was closed meanwhile has no target any more.
    let targets = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    Ok(targets
        .filter(|target| target.to_string_lossy().starts_with("socket:"))
        .count())
}
