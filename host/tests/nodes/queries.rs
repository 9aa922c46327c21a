//! Queries beyond those that may run at one time.

use crate::memory;

use std::sync::Arc;

use memory::{Host, KV, Peer, Wires, done, found, get, prepare, set};
use quorate_core::library;
use quorate_core::query;
use quorate_engine::{Config, Engine};
use quorate_host::store::memory_disk::MemoryDisk;
use quorate_protocol::v2::{ClientMessage, Consistency, Outcome, ServerMessage};

/// A node that runs one query at a time, and its engine.
async fn one_at_a_time() -> (Host, Arc<Engine>) {
    let (disk, wires) = (MemoryDisk::new(), Wires::default());
    let mut prepared = prepare(&disk, 1, 1, &wires, 1 << 30);
    let config = Config {
        queries_max: 1,
        ..Config::default()
    };
    let engine = Arc::new(Engine::new(config).unwrap());
    prepared.environment.engine = Arc::clone(&engine);
    prepared.environment.modules = Arc::clone(&engine) as _;
    let host = Host::run(disk, wires, prepared).await.unwrap();
    host.ready().await;
    (host, engine)
}

async fn asked(peer: &mut Peer, correlation: u64, consistency: Consistency) -> Outcome {
    peer.send(ClientMessage::Query {
        correlation,
        consistency,
        payload: get("a"),
    })
    .await;
    match peer.next().await {
        ServerMessage::QueryResponse {
            correlation: of,
            outcome,
            ..
        } if of == correlation => outcome,
        other => panic!("not the answer: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_query_beyond_those_that_may_run_is_refused_as_overloaded_and_commands_are_not() {
    let (host, engine) = one_at_a_time().await;
    let mut peer = host.connect().await;
    peer.create().await;
    assert_eq!(peer.call(1, set("a", "1")).await, done());
    let limits = query::limits(&*host.assembly.state().view()).unwrap();
    let running = engine.queries(library::hash_of(KV), &limits.module);
    for consistency in [Consistency::Linearizable, Consistency::Stale] {
        let refused = asked(&mut peer, 1, consistency).await;
        assert_eq!(refused, Outcome::Overloaded { retry_after_ms: 50 });
    }
    let metrics = host.metrics.encode();
    let counted = r#"{kind="query",outcome="overloaded"} 2"#;
    assert!(metrics.contains(counted), "{metrics}");
    assert_eq!(peer.call(2, set("a", "2")).await, done());

    // Whoever asks again once there is room is answered.
    drop(running.unwrap());
    let payload = found("2");
    for consistency in [Consistency::Linearizable, Consistency::Stale] {
        let answered = asked(&mut peer, 2, consistency).await;
        let payload = payload.clone();
        assert_eq!(answered, Outcome::Success { payload });
    }
}
