//! Peers that come and go.

use futures::StreamExt;
use futures::stream::{self};

use super::peer::{CLIENT_READY, Peer, create_session, message, usual_greeting};
use super::target::Target;

/// FAULTS 17: as fast as this machine can, each with a reset, after nothing, after a greeting, or with
/// a request on its way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_resets_leave_nothing_behind() {
    const CONNECTS: u64 = 10_000;
    const AT_ONCE: usize = 64;
    let target = Target::start().await;
    let descriptors_before = target.cluster.open_descriptors(target.node).unwrap();
    let before = target
        .metric("quorate_client_connections_accepted_total")
        .await;
    let whole = [
        &usual_greeting()[..],
        CLIENT_READY,
        &message(&create_session().encode().unwrap()),
    ]
    .concat();
    let openings = [&b""[..], &whole[..64], &whole[..70], &whole];
    stream::iter(0..CONNECTS)
        .for_each_concurrent(AT_ONCE, async |number| {
            let mut peer = Peer::connect(target.address()).await;
            let opening = openings[usize::try_from(number).unwrap() % openings.len()];
            peer.try_send(opening).await;
            peer.0.set_zero_linger().unwrap();
        })
        .await;
    // Some were gone before they could be taken.
    target
        .wait_until(async || {
            let accepted = target
                .metric("quorate_client_connections_accepted_total")
                .await;
            accepted - before > CONNECTS / 2
        })
        .await;
    target.serves(10).await;
    target
        .wait_until(async || {
            target.cluster.open_descriptors(target.node).unwrap() <= descriptors_before
        })
        .await;
    target.withstood().await;
}
