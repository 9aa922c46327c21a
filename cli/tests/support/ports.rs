//! Ports for a cluster of `quorate dev`.

use std::net::TcpListener;

/// So many free ports in a row from `start` on, or from a place after it that is this process's own: free a
/// moment ago, and below the range that systems hand out.
pub(crate) fn free_ports(start: u16, count: u16) -> u16 {
    let start = start + (std::process::id() % 1000) as u16 * 10;
    let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    (start..)
        .step_by(10)
        .find(|first| (*first..first + count).all(free))
        .unwrap()
}
