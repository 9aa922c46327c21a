//! Sessions of version 2 over one node in memory, in virtual time.

use crate::memory;

use std::time::Duration;

use memory::{Host, done, found, get, nonce, set};
use quorate_host::store::memory_disk::MemoryDisk;
use quorate_protocol::v2::{
    ClientMessage, Outcome, RejectReason, ServerMessage, SessionCloseReason,
};
use quorate_protocol::{RequestId, SessionSecret};

/// FAULTS 28.
#[tokio::test(start_paused = true)]
async fn a_command_without_a_session_is_told_so_and_leaves_no_trace() {
    let host = Host::start(MemoryDisk::new()).await;
    let mut peer = host.connect().await;
    let before = host.last_entry();
    peer.command(1, set("a", "1")).await;
    assert_eq!(
        peer.next().await,
        ServerMessage::SessionClosed {
            reason: SessionCloseReason::SessionError,
            leader: None
        }
    );
    assert_eq!(peer.frame().await, None);
    assert_eq!(host.last_entry(), before);
}

/// FAULTS 29.
#[tokio::test(start_paused = true)]
async fn an_unknown_session_is_rejected_and_leaves_no_trace() {
    let host = Host::start(MemoryDisk::new()).await;
    let before = host.last_entry();
    for attempt in 0..20_u8 {
        let mut peer = host.connect().await;
        peer.send(ClientMessage::ContinueSession {
            session: quorate_protocol::SessionId([attempt; 16]),
            secret: SessionSecret::NONE,
            nonce: nonce(5),
        })
        .await;
        match peer.next().await {
            ServerMessage::SessionRejected {
                reason: RejectReason::SessionExpired,
                nonce: answered,
                ..
            } => assert_eq!(answered, nonce(5)),
            other => panic!("not rejected: {other:?}"),
        }
        assert_eq!(peer.frame().await, None);
    }
    assert_eq!(host.last_entry(), before);
}

/// FAULTS 29.
#[tokio::test(start_paused = true)]
async fn guesses_at_session_ids_are_bounded_in_a_second_and_cost_others_nothing() {
    const GUESSES: u32 = 20_000;
    let host = Host::start(MemoryDisk::new()).await;
    let mut owner = host.connect().await;
    let opened = owner.create().await;
    assert_eq!(owner.call(1, set("a", "1")).await, done());
    let before = host.last_entry();
    let guess = |n: u32| {
        let mut session = opened.session;
        session.0[..4].copy_from_slice(&n.to_be_bytes());
        ClientMessage::ContinueSession {
            session,
            secret: opened.secret,
            nonce: nonce(5),
        }
    };
    let mut told = [0, 0];
    for n in 0..GUESSES {
        let mut peer = host.connect().await;
        peer.send(guess(n)).await;
        match peer.next().await {
            ServerMessage::SessionRejected { reason, .. } => match reason {
                RejectReason::SessionExpired => told[0] += 1,
                RejectReason::Overloaded => told[1] += 1,
                other => panic!("{other:?}"),
            },
            other => panic!("not rejected: {other:?}"),
        }
        peer.disconnect().await;
    }
    // No time has passed in all that, as far as the node can tell, but for what answers take.
    let [answered, put_off] = told;
    assert!(answered >= 1000 && put_off > answered, "{told:?}");
    assert_eq!(host.last_entry(), before, "none is an entry");
    assert_eq!(owner.call(2, set("a", "2")).await, done());

    // Who asks in earnest is answered a little later.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut peer = host.connect().await;
    peer.send(guess(u32::MAX)).await;
    assert!(matches!(
        peer.next().await,
        ServerMessage::SessionRejected {
            reason: RejectReason::SessionExpired,
            ..
        }
    ));
}

/// FAULTS 30.
#[tokio::test(start_paused = true)]
async fn a_wrong_secret_is_rejected_and_the_session_goes_on_undisturbed() {
    let host = Host::start(MemoryDisk::new()).await;
    let mut owner = host.connect().await;
    let opened = owner.create().await;
    assert!(!opened.secret.is_none());
    for secret in [SessionSecret::NONE, SessionSecret([9; 32])] {
        let mut thief = host.connect().await;
        let mut stolen = opened.clone();
        stolen.secret = secret;
        let answer = thief.resume(&stolen).await;
        assert!(
            matches!(
                answer,
                ServerMessage::SessionRejected {
                    reason: RejectReason::SessionExpired,
                    ..
                }
            ),
            "{answer:?}"
        );
    }
    assert_eq!(owner.call(1, set("a", "1")).await, done());
}

/// FAULTS 31.
#[tokio::test(start_paused = true)]
async fn a_newer_connection_takes_the_session_and_the_older_one_is_told() {
    let host = Host::start(MemoryDisk::new()).await;
    let mut older = host.connect().await;
    let opened = older.create().await;
    assert_eq!(older.call(1, set("a", "1")).await, done());
    let mut newer = host.connect().await;
    let answer = newer.resume(&opened).await;
    let ServerMessage::SessionContinued {
        generation,
        last_executed,
        ..
    } = answer
    else {
        panic!("not continued: {answer:?}");
    };
    assert!(generation > opened.generation);
    assert_eq!(last_executed, RequestId(1));
    assert_eq!(
        older.next().await,
        ServerMessage::SessionClosed {
            reason: SessionCloseReason::Superseded,
            leader: None
        }
    );
    assert_eq!(older.frame().await, None);
    // What the older one still sends has no effect.
    older.command(2, set("a", "2")).await;
    newer.settle().await;
    assert_eq!(newer.call(2, get("a")).await, {
        Outcome::Success {
            payload: found("1"),
        }
    });
}

/// FAULTS 32.
#[tokio::test(start_paused = true)]
async fn a_command_sent_again_gets_the_same_bytes_also_after_a_restart() {
    let host = Host::start(MemoryDisk::new()).await;
    let mut peer = host.connect().await;
    let opened = peer.create().await;
    peer.command(1, set("a", "1")).await;
    let first = peer.frame().await.unwrap();
    assert_eq!(peer.call(2, set("a", "2")).await, done());
    for _ in 0..100 {
        peer.command(1, set("a", "1")).await;
        assert_eq!(peer.frame().await.unwrap(), first);
    }
    peer.command(1, set("a", "other")).await;
    assert_eq!(peer.response().await, (1, Outcome::Conflict));

    let disk = host.stop().await;
    let host = Host::start(disk).await;
    let mut peer = host.connect().await;
    let answer = peer.resume(&opened).await;
    assert!(
        matches!(answer, ServerMessage::SessionContinued { .. }),
        "{answer:?}"
    );
    peer.command(1, set("a", "1")).await;
    assert_eq!(peer.frame().await.unwrap(), first);
    let value = Outcome::Success {
        payload: found("2"),
    };
    assert_eq!(peer.call(3, get("a")).await, value);
}

/// FAULTS 36.
#[tokio::test(start_paused = true)]
async fn creates_with_one_key_make_one_session() {
    let host = Host::start(MemoryDisk::new()).await;
    let mut first = host.connect().await;
    let opened = first.create_with([7; 16], 0).await;
    let mut second = host.connect().await;
    let again = second.create_with([7; 16], 0).await;
    assert_eq!(again.session, opened.session);
    assert!(again.generation > opened.generation);
    assert_eq!(host.sessions().await.len(), 1);
    // The newer answer's secret is the session's.
    second.disconnect().await;
    let mut third = host.connect().await;
    let answer = third.resume(&again).await;
    assert!(
        matches!(answer, ServerMessage::SessionContinued { .. }),
        "{answer:?}"
    );
}

/// FAULTS 38.
#[tokio::test(start_paused = true)]
async fn keep_alives_make_no_entries() {
    let host = Host::start(MemoryDisk::new()).await;
    let mut peer = host.connect().await;
    peer.create().await;
    let before = host.last_entry();
    for timestamp in 0..10_000 {
        peer.send(ClientMessage::KeepAlive { timestamp }).await;
        assert_eq!(
            peer.next().await,
            ServerMessage::KeepAliveResponse { timestamp }
        );
    }
    assert_eq!(host.last_entry(), before);
}

#[tokio::test(start_paused = true)]
async fn a_session_expires_after_its_timeout_and_not_before() {
    let host = Host::start(MemoryDisk::new()).await;
    let mut silent = host.connect().await;
    let opened = silent.create_with([1; 16], 10_000).await;
    tokio::time::sleep(Duration::from_millis(9_990)).await;
    assert_eq!(host.sessions().await.len(), 1);
    silent.settle().await;
    // The keep-alive gave it its whole timeout again.
    tokio::time::sleep(Duration::from_millis(9_990)).await;
    assert_eq!(host.sessions().await.len(), 1);
    assert_eq!(
        silent.next().await,
        ServerMessage::SessionClosed {
            reason: SessionCloseReason::Expired,
            leader: None
        }
    );
    assert!(host.sessions().await.is_empty());
    let mut late = host.connect().await;
    let answer = late.resume(&opened).await;
    assert!(
        matches!(answer, ServerMessage::SessionRejected { .. }),
        "{answer:?}"
    );
}

/// FAULTS 82.
#[tokio::test(start_paused = true)]
async fn time_in_which_the_leader_did_not_run_is_held_against_nobody() {
    let host = Host::start(MemoryDisk::new()).await;
    let mut peer = host.connect().await;
    peer.create_with([1; 16], 5_000).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    // The clock goes on, and nothing ran in between.
    tokio::time::advance(Duration::from_secs(60)).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(host.sessions().await.len(), 1);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(host.sessions().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn commands_and_queries_do_not_keep_a_session_alive() {
    let host = Host::start(MemoryDisk::new()).await;
    let mut peer = host.connect().await;
    peer.create_with([1; 16], 5_000).await;
    let mut request = 0;
    // As long as the session lives, every command is answered by its response.
    loop {
        request += 1;
        peer.command(request, set("a", "1")).await;
        match peer.next().await {
            ServerMessage::CommandResponse { .. } => {}
            ServerMessage::SessionClosed {
                reason: SessionCloseReason::Expired,
                ..
            } => break,
            other => panic!("unexpected: {other:?}"),
        }
        assert!(request < 100, "the session does not expire");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(request >= 5, "the session expired early");
}

/// FAULTS 37.
#[tokio::test(start_paused = true)]
async fn many_silent_sessions_all_expire() {
    let host = Host::start(MemoryDisk::new()).await;
    for n in 0..10_000_u32 {
        let mut key = [3; 16];
        key[..4].copy_from_slice(&n.to_be_bytes());
        host.connect().await.create_with(key, 20_000).await;
    }
    // One that speaks is served all the while.
    let mut speaker = host.connect().await;
    speaker.create_with([9; 16], 20_000).await;
    let began = host.driver.now();
    let mut request = 0;
    while host.sessions().await.len() > 1 {
        request += 1;
        let asked = host.driver.now();
        assert_eq!(speaker.call(request, set("a", "1")).await, done());
        assert!(asked.elapsed() < Duration::from_secs(1));
        speaker.settle().await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "every session expires"
        );
    }
    assert!(
        request > 100,
        "{request} commands while they lived and expired"
    );
}

#[tokio::test(start_paused = true)]
async fn a_restarted_node_gives_every_session_its_whole_timeout() {
    let host = Host::start(MemoryDisk::new()).await;
    let mut peer = host.connect().await;
    let opened = peer.create_with([1; 16], 10_000).await;
    tokio::time::sleep(Duration::from_secs(9)).await;
    let host = Host::start(host.stop().await).await;
    tokio::time::sleep(Duration::from_secs(9)).await;
    let mut peer = host.connect().await;
    let answer = peer.resume(&opened).await;
    assert!(
        matches!(answer, ServerMessage::SessionContinued { .. }),
        "{answer:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn closing_twice_closes_once() {
    let host = Host::start(MemoryDisk::new()).await;
    let mut peer = host.connect().await;
    peer.create().await;
    let before = host.last_entry();
    peer.send(ClientMessage::CloseSession).await;
    peer.send(ClientMessage::CloseSession).await;
    assert_eq!(
        peer.next().await,
        ServerMessage::SessionClosed {
            reason: SessionCloseReason::ClosedByClient,
            leader: None
        }
    );
    assert_eq!(peer.frame().await, None);
    assert!(host.sessions().await.is_empty());
    assert_eq!(host.last_entry(), before + 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_closes_its_session_need_not_wait() {
    let host = Host::start(MemoryDisk::new()).await;
    let mut peer = host.connect().await;
    peer.create_with([1; 16], 3_600_000).await;
    peer.command(1, set("a", "1")).await;
    peer.send(ClientMessage::CloseSession).await;
    peer.disconnect().await;

    // By the time that another session is open, the log has what was sent before.
    host.connect().await.create_with([2; 16], 60_000).await;
    let sessions = host.sessions().await;
    let timeouts: Vec<_> = sessions.iter().map(|session| session.timeout).collect();
    assert_eq!(timeouts, [Duration::from_secs(60)]);
}

#[tokio::test(start_paused = true)]
async fn responses_come_in_the_order_of_the_commands() {
    let host = Host::start(MemoryDisk::new()).await;
    let mut peer = host.connect().await;
    peer.create().await;
    for request in 1..=500 {
        peer.command(request, set("a", &request.to_string())).await;
    }
    for request in 1..=500 {
        assert_eq!(peer.response().await, (request, done()));
    }
    let answer = Outcome::Success {
        payload: found("500"),
    };
    assert_eq!(peer.call(501, get("a")).await, answer);
}

#[tokio::test(start_paused = true)]
async fn after_a_command_that_is_too_large_the_session_goes_on_with_a_void() {
    let host = Host::start(MemoryDisk::new()).await;
    let mut peer = host.connect().await;
    peer.create().await;
    assert_eq!(peer.call(1, set("a", "1")).await, done());
    let bytes_max = u32::try_from(quorate_protocol::limits::COMMAND_BYTES_MAX).unwrap();
    let large = vec![0; bytes_max as usize + 1];
    assert_eq!(peer.call(2, large).await, Outcome::TooLarge { bytes_max });
    // What follows waits for the id that was refused.
    assert!(matches!(
        peer.call(3, set("a", "3")).await,
        Outcome::Overloaded { .. }
    ));
    peer.send(ClientMessage::Void {
        request: RequestId(2),
        lowest_pending: RequestId(2),
    })
    .await;
    assert_eq!(peer.response().await, (2, Outcome::Void));
    assert_eq!(peer.call(3, set("a", "3")).await, done());
}

#[tokio::test(start_paused = true)]
async fn beyond_the_limit_commands_are_refused_in_order_and_taken_when_sent_again() {
    let host = Host::start(MemoryDisk::new()).await;
    let mut peer = host.connect().await;
    peer.create().await;
    // Sixteen commands of half a mebibyte: more than four mebibytes wait at one time.
    let value = "v".repeat(500_000);
    let mut next = 1;
    let mut refused = 0;
    while next <= 16 {
        for request in next..=16 {
            peer.command(request, set("a", &value)).await;
        }
        let mut executed = next - 1;
        let mut is_refused = false;
        for _ in next..=16 {
            let (request, outcome) = peer.response().await;
            match outcome {
                Outcome::Success { .. } => {
                    assert_eq!(request, executed + 1, "a command overtook another");
                    executed = request;
                }
                Outcome::Overloaded { .. } => is_refused = true,
                other => panic!("unexpected: {other:?}"),
            }
        }
        refused += u32::from(is_refused);
        next = executed + 1;
        assert!(refused < 16, "no progress");
    }
    assert!(refused > 0, "nothing was refused");
}

#[tokio::test(start_paused = true)]
async fn a_gap_in_the_ids_is_refused_and_names_what_is_expected() {
    let host = Host::start(MemoryDisk::new()).await;
    let mut peer = host.connect().await;
    peer.create().await;
    let expected = RequestId(1);
    assert_eq!(
        peer.call(2, set("a", "2")).await,
        Outcome::OutOfOrder { expected }
    );
    assert_eq!(peer.call(1, set("a", "1")).await, done());
    assert_eq!(peer.call(2, set("a", "2")).await, done());
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_opens_another_session_leaves_the_first_to_itself() {
    let host = Host::start(MemoryDisk::new()).await;
    let mut peer = host.connect().await;
    let first = peer.create_with([1; 16], 0).await;
    let second = peer.create_with([2; 16], 0).await;
    assert_ne!(first.session, second.session);
    let sessions = host.sessions().await;
    let bound = |id| {
        let found = sessions.iter().find(|status| status.session == id);
        found.unwrap().connection
    };
    assert_eq!(bound(first.session), None);
    assert_eq!(bound(second.session), Some(peer.id));
}

/// FAULTS 23.
#[tokio::test(start_paused = true)]
async fn a_frame_that_cannot_be_decoded_ends_its_connection_alone() {
    let host = Host::start(MemoryDisk::new()).await;
    let mut good = host.connect().await;
    let opened = good.create().await;
    for frame in [
        &b""[..],
        b"zraft",
        b"zraft\x00\x01",
        b"zraft\xff\x01",
        b"GET /",
    ] {
        let mut bad = host.connect().await;
        bad.send_frame(frame.to_vec()).await;
        while bad.frame().await.is_some() {}
    }
    assert_eq!(good.call(1, set("a", "1")).await, done());
    // A session outlives the connection that broke the protocol.
    good.send_frame(b"zraft\x02\xff".to_vec()).await;
    while good.frame().await.is_some() {}
    let mut peer = host.connect().await;
    let answer = peer.resume(&opened).await;
    assert!(
        matches!(answer, ServerMessage::SessionContinued { .. }),
        "{answer:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_asks_for_no_session_does_not_keep_its_place() {
    let host = Host::start(MemoryDisk::new()).await;
    let mut member = host.connect().await;
    member.create_with([1; 16], 120_000).await;
    let mut idle = host.connect().await;
    tokio::time::sleep(Duration::from_millis(59_900)).await;
    assert!(idle.is_silent());
    assert_eq!(idle.frame().await, None);
    // One that has a session keeps it, silent or not.
    member.settle().await;
}

/// FAULTS 27.
#[tokio::test(start_paused = true)]
async fn capabilities_beyond_their_limits_are_rejected() {
    let host = Host::start(MemoryDisk::new()).await;
    let mut peer = host.connect().await;
    // Encoded by hand: the encoder of a client refuses them.
    let mut frame = b"zraft\x02\x01".to_vec();
    frame.extend(1_i64.to_be_bytes());
    frame.extend([1; 16]);
    frame.extend(0_u32.to_be_bytes());
    frame.extend(129_u16.to_be_bytes());
    for n in 0..129 {
        let key = format!("{n:03}");
        frame.extend(3_u16.to_be_bytes());
        frame.extend(key.as_bytes());
        frame.extend(0_u16.to_be_bytes());
    }
    peer.send_frame(frame).await;
    let answer = peer.next().await;
    assert!(
        matches!(
            answer,
            ServerMessage::SessionRejected {
                reason: RejectReason::InvalidCapabilities,
                ..
            }
        ),
        "{answer:?}"
    );
    assert!(host.sessions().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_lost_its_log_refuses_to_start() {
    let host = Host::start(MemoryDisk::new()).await;
    let mut peer = host.connect().await;
    peer.create().await;
    let disk = host.stop().await;
    let without_log = MemoryDisk::new();
    without_log.place("state.redb", disk.contents("state.redb").unwrap());
    let started = Host::try_start(without_log).await;
    let error = started.err().expect("the node does not start");
    assert!(error.to_string().contains("raft.redb"), "{error}");
}
