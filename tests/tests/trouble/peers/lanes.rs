//! On the lanes of a connection.

use std::time::Duration;

use bytes::Bytes;
use lockstep_inference::Inference;
use lockstep_replication::message::{
    Beat, DoneMark, Entries, EntriesKind, Lead, Message, Offer, Propose, Purpose, Range, Refused, Reject, Standing,
};
use lockstep_replication::{Boot, Hash, Index, NodeId, Session, Span, Wall, wire};
use lockstep_tests::api::Api;
use lockstep_tests::cluster::SOON;
use lockstep_tests::wait::until;
use serde_json::Value;

use super::scene::{Scene, counted, forged_entry};

/// What a peer may make a node hold at most in these tests, with room for what it does anyway.
const MEMORY_BYTES_AT_MOST: u64 = 96 << 20;

/// What the network dropped for this cause.
async fn dropped(api: &Api, cause: &str) -> u64 {
    counted(api, &format!("network_dropped_total{{cause=\"{cause}\"}}")).await
}

/// Bytes that mean nothing, the same each time.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    })
    .take(length)
    .collect()
}

#[tokio::test]
async fn payloads_that_are_no_messages_are_dropped_and_the_next_message_is_heard() {
    let mut scene = Scene::set().await;
    let before = scene.standing().await;
    for node in 0..3 {
        let mut lanes = scene.strange(node).await;
        let whole = wire::encode::<Inference>(&Message::Probe { n: 1 });
        for payload in [
            &[][..],
            &[wire::VERSION],
            &[wire::VERSION + 1, 0, 0],
            &[wire::VERSION, 0xff, 0xff, 0xff, 0xff, 0xff],
            &whole[..whole.len() - 1],
            &[&whole[..], &[0]].concat(),
            &noise(1000),
            &noise(wire::MESSAGE_BYTES_AT_MOST),
        ] {
            lanes.payload(payload).await;
        }
        lanes.echo().await;
    }
    assert_eq!(scene.standing().await, before);
    scene.unharmed().await;
}

#[tokio::test]
async fn bytes_that_are_no_frames_end_the_connection_and_take_no_memory() {
    let mut scene = Scene::set().await;
    let before = scene.standing().await;
    let attacked = scene.follower;
    let api = scene.cluster.api(attacked).await;
    let memory = scene.peak_memory(attacked);
    let four_gib = u32::MAX.to_le_bytes();
    let one_more = (wire::MESSAGE_BYTES_AT_MOST as u32 + 1).to_le_bytes();
    for (bytes, cause) in [
        ([&four_gib[..], &[0]].concat(), "Oversized"),
        ([&one_more[..], &[0], &noise(1 << 16)].concat(), "Oversized"),
        (noise(1 << 16), "Oversized"),
        ([&4_u32.to_le_bytes()[..], &[9, 1, 2, 3, 4]].concat(), "Garbage"),
        ([&4_u32.to_le_bytes()[..], &[1, 0xff, 0xff, 0xff, 0xff]].concat(), "Garbage"),
    ] {
        let counted = dropped(&api, cause).await;
        let mut lanes = scene.strange(attacked).await;
        lanes.bytes(&bytes).await;
        lanes.hung_up().await;
        assert_eq!(dropped(&api, cause).await, counted + 1, "{cause}");
    }
    // Many that begin a long frame each and say no more of it.
    let mut waiting = Vec::new();
    for _ in 0..16 {
        let mut lanes = scene.strange(attacked).await;
        lanes.bytes(&[&1_000_000_u32.to_le_bytes()[..], &[0, 0]].concat()).await;
        waiting.push(lanes);
    }
    scene.unharmed().await;
    let grown = scene.memory_grown(attacked, memory);
    println!("peak memory grew by {grown} bytes");
    assert!(grown < MEMORY_BYTES_AT_MOST, "{grown} bytes");
    drop(waiting);
    assert!(scene.standing().await[0].0 >= before[0].0);
}

#[tokio::test]
async fn a_forged_leader_changes_nothing() {
    let mut scene = Scene::set().await;
    let before = scene.standing().await;
    let (leader, follower) = (scene.leader, scene.follower);
    let mut counted = Vec::new();
    for node in 0..3 {
        counted.push(scene.counter(node, "rejected_origin").await + scene.counter(node, "stale_session").await);
    }
    for node in [follower, (leader + 2) % 3, leader] {
        let mut lanes = scene.strange(node).await;
        let standing = lanes.standing().await;
        let session = standing.session.expect("it follows or leads");
        let next = standing.lineage.next();
        let entries = |first: Index, kind| {
            let records = vec![forged_entry(first), forged_entry(first.next())];
            Message::Entries(Entries { session, first, records, kind })
        };
        let done = DoneMark { session, index: Index(u64::MAX), held: 3, of: 3 };
        let newer = Session { clock: session.clock + 1, ..session };
        let lead = |session| Lead {
            session,
            next: next.plus(2),
            hash: Hash::of(b"forged"),
            wall: Wall(u64::MAX),
            all: next.plus(2),
            heard: Vec::new(),
            done: Some(done),
        };
        for message in [
            entries(next, EntriesKind::Fresh),
            entries(next, EntriesKind::Repair),
            entries(next, EntriesKind::Replay),
            entries(next.plus(10), EntriesKind::Fresh),
            entries(Index(0), EntriesKind::Repair),
            Message::Lead(Box::new(lead(session))),
            Message::Lead(Box::new(lead(newer))),
            Message::Done(done),
            Message::HandOver { session, next },
            Message::Refused { generation: 1, items: vec![(1, Refused::Before)] },
            Message::LogBegins { session, first: next.plus(1000) },
            Message::Stored { session, boot: standing.boot, disk: standing.disk, next: next.plus(1000) },
            // The forged head may have opened a gap.
            entries(next, EntriesKind::Repair),
        ] {
            lanes.say(&message).await;
        }
        lanes.echo().await;
    }
    assert_eq!(scene.standing().await, before, "index, state and session are what they were");
    for (node, before) in counted.into_iter().enumerate() {
        let now = scene.counter(node, "rejected_origin").await + scene.counter(node, "stale_session").await;
        println!("node {node}: {} rejected or stale", now - before);
        assert!(now >= before + 5, "node {node} counted {} of them", now - before);
    }
    assert!(scene.counter(follower, "rejected_origin").await > 0);
    scene.unharmed().await;
    let state = scene.cluster.api(follower).await.state().await.unwrap();
    assert!(state["cards"]["forged"].is_null());
}

#[tokio::test]
async fn impossible_claims_are_rejected_and_what_was_not_asked_for_is_dropped() {
    let mut scene = Scene::set().await;
    let before = scene.standing().await;
    for node in 0..3 {
        let mut lanes = scene.strange(node).await;
        let theirs = lanes.standing().await;
        let session = theirs.session.expect("it follows or leads");
        let claims = Standing { boot: Boot { starts: 1, nonce: 1 }, session: None, confirmed: None, ..theirs.clone() };
        let huge = theirs.clock + (1 << 32) + 1;
        let huge_session = Session { clock: huge, ..session };
        let rejected = scene.counter(node, "rejected_origin").await;
        for standing in [
            Standing { clock: huge, ..claims.clone() },
            Standing { clock: u64::MAX, ..claims.clone() },
            Standing { confirmed: Some(huge_session), ..claims.clone() },
            Standing { session: Some(huge_session), ..claims.clone() },
        ] {
            let standing = Box::new(standing);
            lanes.say(&Message::Hello { standing, purpose: Purpose::Ask { losses: 0 } }).await;
        }
        lanes.echo().await;
        assert_eq!(scene.counter(node, "rejected_origin").await, rejected + 4);

        let unasked = scene.counter(node, "chunks_rejected").await;
        for chunk in [0, 1, u32::MAX] {
            let bytes = Some(Bytes::from(noise(512 << 10)));
            lanes.say(&Message::Chunk { snapshot: Hash::of(b"none"), chunk, bytes }).await;
        }
        for offer in [Offer::NothingYet, Offer::LogShorter, Offer::Later(Span(u64::MAX))] {
            lanes.say(&Message::Offer { session, offer }).await;
        }
        for boot in [Boot { nonce: theirs.boot.nonce ^ 1, ..theirs.boot }, Boot { starts: 99, nonce: 0 }] {
            for reject in [Reject::SameIdentity, Reject::OldStart, Reject::Full] {
                lanes.say(&Message::Reject { boot, reject }).await;
            }
        }
        lanes.echo().await;
        assert_eq!(scene.counter(node, "chunks_rejected").await, unasked + 3);
    }
    assert_eq!(scene.standing().await, before, "index, state and session are what they were");
    scene.unharmed().await;
}

#[tokio::test]
async fn numbers_at_their_limits_break_nothing() {
    let mut scene = Scene::set().await;
    let sessions =
        |scene: Vec<(u64, String, Value)>| scene.into_iter().map(|(_, _, session)| session).collect::<Vec<_>>();
    let before = sessions(scene.standing().await);
    for node in 0..3 {
        let mut lanes = scene.strange(node).await;
        let session = lanes.standing().await.session.expect("it follows or leads");
        let last = Index(u64::MAX);
        for first in [last, Index(u64::MAX - 1), Index(1 << 63)] {
            let records = vec![Bytes::new(), forged_entry(first), Bytes::from(noise(100)), Bytes::new()];
            lanes.say(&Message::Entries(Entries { session, first, records, kind: EntriesKind::Repair })).await;
        }
        for message in [
            Message::Nack(Range { session, from: last, until: last }),
            Message::Nack(Range { session, from: Index(0), until: last }),
            Message::Nack(Range { session, from: last, until: Index(0) }),
            Message::Replay { session, from: last, window: u64::MAX },
            Message::Replay { session, from: Index(0), window: 0 },
            Message::Replay { session, from: Index(0), window: u64::MAX },
            Message::Credit { session, bytes: u64::MAX },
            Message::Credit { session, bytes: u64::MAX },
            Message::LogBegins { session, first: last },
            Message::RequestSnapshot { session, next: last },
            Message::RequestChunk { snapshot: Hash::of(b"none"), chunk: u32::MAX },
            Message::Stored { session, boot: Boot { starts: u64::MAX, nonce: u64::MAX }, disk: 0, next: last },
            Message::Done(DoneMark { session, index: last, held: u32::MAX, of: 0 }),
            Message::HandOver { session, next: last },
            Message::Reach { node: NodeId([0xff; 32]), connected: true },
            Message::Reach { node: session.leader, connected: false },
            Message::Beat(Beat {
                boot: Boot { starts: 1, nonce: 1 },
                schema: u32::MAX,
                applied: last,
                busy: Span(u64::MAX),
                damaged: true,
                telemetry: Default::default(),
            }),
            Message::Propose(Propose { generation: u64::MAX, floor: u64::MAX, after: u64::MAX, items: Vec::new() }),
            Message::Propose(Propose { generation: u64::MAX, floor: u64::MAX, after: u64::MAX, items: Vec::new() }),
            Message::Refused { generation: u64::MAX, items: vec![(u64::MAX, Refused::DoneBefore(last))] },
            Message::Echo { n: u64::MAX },
        ] {
            lanes.say(&message).await;
        }
        lanes.echo().await;
    }
    scene.unharmed().await;
    assert_eq!(sessions(scene.standing().await), before, "nobody changed the leader");
}

#[tokio::test]
async fn a_flood_of_requests_is_limited_and_writes_go_on_meanwhile() {
    let mut scene = Scene::set().await;
    let leader = scene.leader;
    scene.cluster.api(leader).await.load(1, 2000).await;
    let limited = scene.counter(leader, "requests_limited").await;
    let mut lanes = scene.strange(leader).await;
    let standing = lanes.standing().await;
    let session = standing.session.expect("it leads");
    let flood = tokio::spawn(async move {
        let until = standing.lineage.next();
        loop {
            for message in [
                Message::Nack(Range { session, from: Index(0), until }),
                Message::Replay { session, from: Index(0), window: u64::MAX },
                Message::RequestSnapshot { session, next: Index(0) },
                Message::Credit { session, bytes: u64::MAX / 2 },
            ] {
                lanes.say(&message).await;
            }
        }
    });
    let api = scene.cluster.api(leader).await;
    until("the flood is limited", SOON, async || {
        let view = api.cluster().await?;
        let now = view["counters"]["requests_limited"].as_u64().unwrap_or_default();
        if now > limited + 1000 { Ok(()) } else { Err(format!("{now} were dropped")) }
    })
    .await;
    let memory = scene.peak_memory(leader);
    let began = std::time::Instant::now();
    scene.unharmed().await;
    println!("three writes and their comparison took {:?} under the flood", began.elapsed());
    let grown = scene.memory_grown(leader, memory);
    assert!(grown < MEMORY_BYTES_AT_MOST, "{grown} bytes");
    assert!(began.elapsed() < Duration::from_secs(10));
    flood.abort();
}
