//! Queries that take long, beside commands.

use quorate_core::module::Trap;

use super::commands::trap_of_query;
use super::{ModuleFile, call, client, cluster, command, terms};

/// More commands than are answered between the moment that a client sends a query and the moment that it
/// begins to run: so many are answered only if it holds up none.
const BESIDE: u64 = 12;
/// A busy machine may do little in the time of one query.
const ATTEMPTS: usize = 8;

/// FAULTS 51.
#[tokio::test(flavor = "multi_thread")]
async fn commands_are_answered_while_a_query_runs_to_its_deadline() {
    let cluster = cluster(&ModuleFile::hostile(), 1_000_000).await;
    let before = terms(&cluster).await;
    let slow = client(&cluster).connect().await.unwrap();
    let good = client(&cluster).connect().await.unwrap();
    let mut count = 0;
    let mut most = 0;
    for _ in 0..ATTEMPTS {
        let query = slow.clone();
        let query = tokio::spawn(async move { trap_of_query(&query, command(b'l', b"")).await });
        let begun_at = count;
        while !query.is_finished() {
            count += 1;
            let response = call(&good, command(b'a', b"key")).await;
            assert_eq!(response, Ok(u64::to_le_bytes(count).to_vec()));
        }
        assert_eq!(query.await.unwrap(), Trap::Deadline);
        most = most.max(count - begun_at);
        if most > BESIDE {
            break;
        }
    }
    assert!(most > BESIDE, "at most {most} commands beside a query");
    assert_eq!(terms(&cluster).await, before, "no election");
    cluster.equal_hash().await.unwrap();
}
