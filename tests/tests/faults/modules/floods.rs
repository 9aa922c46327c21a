//! Floods of commands from one session, and what remains for others.

use futures::stream::{FuturesUnordered, StreamExt};
use quorate_core::module::Trap;

use super::{ModuleFile, call, client, cluster, command, count_up, terms};

/// FAULTS 51. Each entry executes what its budget of fuel allows and refuses the rest, which comes again.
#[tokio::test(flavor = "multi_thread")]
async fn loops_in_one_batch_neither_stop_the_cluster_nor_starve_others() {
    let module = ModuleFile::hostile();
    let mut cluster = cluster(&module, 10_000_000).await;
    let leader = cluster.wait_for_leader().await.unwrap();
    let before = terms(&cluster).await;
    let hostile = client(&cluster).connect().await.unwrap();
    let good = client(&cluster).connect().await.unwrap();

    let mut loops: FuturesUnordered<_> = (0..1000)
        .map(|_| call(&hostile, command(b'l', b"")))
        .collect();
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let counting = tokio::spawn(count_up(good, b"good", stopped));
    // Not all thousand: they are refused most of the time, and come again after a pause.
    for _ in 0..100 {
        assert_eq!(loops.next().await, Some(Err(Trap::OutOfFuel)));
    }
    stop.send(()).unwrap();
    assert!(counting.await.unwrap().commands > 0);
    drop(loops);
    hostile.disconnect().await;

    assert_eq!(terms(&cluster).await, before, "no election");
    assert_eq!(cluster.wait_for_leader().await.unwrap(), leader);
    cluster.equal_hash().await.unwrap();
}
