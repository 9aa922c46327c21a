use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;

use super::*;

fn log_id() -> impl Strategy<Value = LogId> {
    (any::<u64>(), any::<u64>()).prop_map(|(term, index)| LogId::new_term_index(term, index))
}

fn member() -> impl Strategy<Value = Member> {
    let text = || ".{0,20}";
    (any::<[u8; 16]>(), text(), text(), text(), text()).prop_map(
        |(incarnation, raft, client, admin, name)| Member {
            incarnation,
            raft,
            client,
            admin,
            name,
        },
    )
}

fn membership() -> impl Strategy<Value = Membership> {
    let sets = vec(btree_set(0..20_u64, 1..5), 0..3);
    (sets, btree_map(0..30_u64, member(), 0..6)).prop_map(|(sets, mut nodes)| {
        for id in sets.iter().flatten() {
            nodes.entry(*id).or_default();
        }
        Membership::new(sets, nodes).expect("every voter is a node")
    })
}

fn entry() -> impl Strategy<Value = Entry> {
    let payload = prop_oneof![
        Just(EntryPayload::Blank),
        vec(any::<u8>(), 0..100).prop_map(|bytes| EntryPayload::Normal(bytes.into())),
        membership().prop_map(EntryPayload::Membership),
    ];
    (log_id(), payload).prop_map(|(log_id, payload)| Entry { log_id, payload })
}

fn encoded<T>(value: &T, encode: fn(&T, &mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(value, &mut bytes);
    bytes
}

proptest! {
    #[test]
    fn log_ids_come_back(id in log_id()) {
        prop_assert_eq!(decode_log_id(&encode_log_id(&id)), Ok(id));
        prop_assert_eq!(LogId::from(LogPosition::from(id)), id);
    }

    #[test]
    fn votes_come_back(term: u64, node: u64, committed: bool) {
        let vote = Vote { leader_id: openraft::vote::RaftLeaderId::new(term, node), committed };
        prop_assert_eq!(decode_vote(&encode_vote(&vote)), Ok(vote));
    }

    #[test]
    fn stored_memberships_come_back(id in prop::option::of(log_id()), membership in membership()) {
        let stored = StoredMembership::new(id, membership);
        let bytes = encoded(&stored, encode_stored_membership);
        prop_assert_eq!(decode_stored_membership(&bytes), Ok(stored));
    }

    #[test]
    fn entries_come_back(entry in entry()) {
        let bytes = Bytes::from(encoded(&entry, encode_entry));
        prop_assert!(bytes.len() >= entry_bytes_hint(&entry));
        prop_assert_eq!(decode_entry(&bytes), Ok(entry));
    }

    #[test]
    fn cut_and_extended_input_is_refused(membership in membership(), cut: prop::sample::Index) {
        let mut bytes = encoded(&membership, encode_membership);
        prop_assert!(decode_membership(&bytes[..cut.index(bytes.len())]).is_err());
        bytes.push(0);
        prop_assert_eq!(
            decode_membership(&bytes),
            Err(Error::LeftOver { what: "membership", left: 1 })
        );
    }

    #[test]
    fn a_damaged_entry_is_refused_or_is_another_entry(
        entry in entry(),
        at: prop::sample::Index,
        mask in 1..=255_u8,
    ) {
        let mut bytes = encoded(&entry, encode_entry);
        let at = at.index(bytes.len());
        bytes[at] ^= mask;
        if let Ok(other) = decode_entry(&Bytes::from(bytes.clone())) {
            prop_assert_eq!(encoded(&other, encode_entry), bytes);
        }
    }
}

/// What every later version must read: `name hex` lines.
const GOLDEN: &str = include_str!("../../tests/fixtures/log_encoding_v1.hex");

fn golden_values() -> Vec<(&'static str, Vec<u8>)> {
    let member = |n: u8| Member {
        incarnation: [n; 16],
        raft: format!("n{n}:7001"),
        client: format!("tcp://n{n}:7000"),
        admin: format!("n{n}:7002"),
        name: format!("node-{n}"),
    };
    let voters = vec![BTreeSet::from([1, 2]), BTreeSet::from([2, 3])];
    let nodes: BTreeMap<u64, Member> = (1..=4).map(|n| (u64::from(n), member(n))).collect();
    let membership = Membership::new(voters, nodes).expect("every voter is a node");
    let id = LogId::new_term_index(3, 0x0102_0304_0506_0708);
    let stored = StoredMembership::new(Some(id), membership.clone());
    let entry = |payload| {
        let log_id = id;
        encoded(&Entry { log_id, payload }, encode_entry)
    };
    vec![
        ("log_id", encode_log_id(&id).to_vec()),
        ("vote", encode_vote(&Vote::new(5, 2)).to_vec()),
        (
            "vote_committed",
            encode_vote(&Vote::new_committed(5, 2)).to_vec(),
        ),
        (
            "stored_membership_empty",
            encoded(&StoredMembership::default(), encode_stored_membership),
        ),
        (
            "stored_membership",
            encoded(&stored, encode_stored_membership),
        ),
        ("entry_blank", entry(EntryPayload::Blank)),
        (
            "entry_normal",
            entry(EntryPayload::Normal(b"hello".to_vec().into())),
        ),
        (
            "entry_membership",
            entry(EntryPayload::Membership(membership)),
        ),
    ]
}

#[test]
fn encodings_are_those_of_the_first_release() {
    let current: Vec<String> = golden_values()
        .into_iter()
        .map(|(name, bytes)| {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{name} {hex}")
        })
        .collect();
    let golden: Vec<&str> = GOLDEN.lines().collect();
    assert_eq!(current, golden);
}

#[test]
fn a_newer_version_is_named() {
    let mut bytes = encode_vote(&Vote::new(5, 2));
    bytes[0] = 2;
    let error = decode_vote(&bytes).expect_err("the version is unknown");
    assert_eq!(error.to_string(), "vote has version 2, known is 1");
}

#[test]
fn memberships_that_openraft_refuses_are_refused() {
    // One set with voter 9, no nodes.
    let mut bytes = vec![1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9];
    bytes.extend([0; 4]);
    let error = decode_membership(&bytes).expect_err("voter 9 has no address");
    assert!(matches!(error, Error::Membership { .. }), "{error}");
}
