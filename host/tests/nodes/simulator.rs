//! What a node hands out as a snapshot is what the simulator for module authors begins with.

use crate::memory;

use std::fs;

use memory::{Host, Wires, done, found, get, notification, set, watch};
use quorate_core::context::MODULE_DATA;
use quorate_core::state::{Order, Visit};
use quorate_guest::SessionId;
use quorate_host::store::memory_disk::MemoryDisk;
use quorate_protocol::v2::ServerMessage;
use quorate_sim::{Failure, Refusal, Sim};

#[tokio::test(start_paused = true)]
async fn a_snapshot_of_a_node_goes_on_in_the_simulator() {
    let host = Host::launch(MemoryDisk::new(), 1, 1, Wires::default(), 1)
        .await
        .unwrap();
    host.ready().await;
    let mut peer = host.connect().await;
    let opened = peer.create_with([1; 16], 600_000).await;
    for request in 1..=50 {
        let key = format!("key {request}");
        assert_eq!(peer.call(request, set(&key, "value")).await, done());
    }
    peer.command(51, watch("key 7")).await;
    // The request with the present value may be there before the response.
    let outcome = loop {
        match peer.next().await {
            ServerMessage::ServerRequest { .. } => {}
            ServerMessage::CommandResponse { outcome, .. } => break outcome,
            other => panic!("no response: {other:?}"),
        }
    };
    assert_eq!(outcome, done());
    let state = host.assembly.state();
    let snapshot = state.build_snapshot().await.unwrap().unwrap();
    let reader = snapshot.open().await.unwrap();
    let mut bytes = Vec::new();
    for chunk in 0..reader.chunks() {
        bytes.extend_from_slice(&reader.chunk(chunk).await.unwrap().unwrap());
    }
    reader.finish();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kv.snapshot");
    fs::write(&file, bytes).unwrap();

    let mut sim = Sim::from_snapshot::<quorate_sim::Untyped>(&file).unwrap();
    let mut stored = Vec::new();
    let (start, end) = ([MODULE_DATA], [MODULE_DATA + 1]);
    let view = state.view();
    view.scan(&start, Some(&end), Order::Ascending, &mut |key, value| {
        stored.push((key[1..].to_vec(), value.to_vec()));
        Visit::More
    })
    .unwrap();
    assert!(stored.len() > 50);
    assert_eq!(sim.state().into_iter().collect::<Vec<_>>(), stored);
    assert_eq!(sim.query_bytes(&get("key 7")).unwrap(), found("value"));

    // The session goes on where its client was; a change is told to who watched.
    let session = SessionId::from_bytes(opened.session.0);
    assert_eq!(sim.sessions(), [session]);
    let conflict = Err(Failure::Refused(Refusal::Conflict));
    assert_eq!(sim.send_bytes(session, 51, &set("key 7", "x")), conflict);
    sim.call_bytes(session, &set("key 7", "other")).unwrap();
    let told: Vec<Vec<u8>> = sim
        .requests_bytes(session)
        .into_iter()
        .map(|request| request.payload)
        .collect();
    assert_eq!(
        told,
        [
            notification("key 7", "value"),
            notification("key 7", "other")
        ]
    );
}
