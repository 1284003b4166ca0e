//! By gossip, which others pass on.

use libp2p::identity::Keypair;
use lockstep_replication::message::{DoneMark, Entries, EntriesKind, Lead, Message, Purpose, Standing};
use lockstep_replication::{Boot, Hash, Index, NodeId, Session, Wall, wire};
use lockstep_tests::api::Api;
use lockstep_tests::cluster::SOON;
use lockstep_tests::wait::until;

use super::forged_gossip::{Gossip, Proof, node_of};
use super::hostile::Lanes;
use super::scene::{Scene, counted, forged_entry};

/// A topic that every node listens to.
const TOPIC: &str = "election_messages";

/// So many invalid messages in a row make a node deaf to who passes them on.
const DEAF_AFTER: u64 = 10;

/// Messages whose signature is not their author's, in all topics.
async fn badly_signed(api: &Api) -> u64 {
    let mut all = 0;
    for topic in wire::TOPICS {
        all += counted(api, &format!("gossip_invalid_messages_per_topic_total{{hash=\"{topic}\"}}")).await;
    }
    all
}

async fn heard(api: &Api) -> u64 {
    counted(api, "network_messages_total{lane=\"Gossip\",direction=\"In\"}").await
}

/// What a liar would have a node believe: a beat of the leader, now and of a newer session, entries, a promise.
fn lies(standing: &Standing) -> Vec<Message<lockstep_inference::Inference>> {
    let session = standing.session.expect("it follows or leads");
    let next = standing.lineage.next();
    let done = DoneMark { session, index: Index(u64::MAX), held: 3, of: 3 };
    let lead = |session| {
        let (hash, wall, all) = (Hash::of(b"forged"), Wall(u64::MAX), next.plus(2));
        Message::Lead(Box::new(Lead { session, next: all, hash, wall, all, heard: Vec::new(), done: Some(done) }))
    };
    let records = vec![forged_entry(next), forged_entry(next.next())];
    vec![
        lead(session),
        lead(Session { clock: session.clock + 1, ..session }),
        Message::Entries(Entries { session, first: next, records, kind: EntriesKind::Fresh }),
        Message::Done(done),
        Message::HandOver { session, next },
    ]
}

async fn id(scene: &mut Scene, node: usize) -> NodeId {
    scene.cluster.id(node).await.parse().expect("a node's id")
}

/// A liar's connection to a node, its gossip, what the node says of itself, its API and its id.
async fn overheard(scene: &mut Scene, node: usize) -> (Lanes, Gossip, Standing, Api, NodeId) {
    let mut lanes = scene.strange(node).await;
    let standing = lanes.standing().await;
    let gossip = Gossip::over(&mut lanes).await;
    let (api, id) = (scene.cluster.api(node).await, id(scene, node).await);
    (lanes, gossip, standing, api, id)
}

#[tokio::test]
async fn gossip_in_the_leaders_name_that_the_leader_did_not_sign_is_not_heard() {
    let mut scene = Scene::set().await;
    let before = scene.standing().await;
    let leading = scene.leader;
    let leader = id(&mut scene, leading).await;
    let liar = Keypair::generate_ed25519();
    for node in [scene.follower, (scene.leader + 2) % 3] {
        let (_lanes, mut gossip, standing, api, to) = overheard(&mut scene, node).await;
        let (bad, received) = (badly_signed(&api).await, heard(&api).await);
        let rejected = scene.counter(node, "rejected_origin").await;
        let all = lies(&standing);
        for (lie, n) in all.iter().zip(0..) {
            let proof = match n % 3 {
                0 => Proof::OtherKey(&liar, false),
                1 => Proof::OtherKey(&liar, true),
                _ => Proof::None,
            };
            gossip.message(leader, proof, to, lie).await;
        }
        let wanted = bad + all.len() as u64;
        until("each is counted", SOON, async || match badly_signed(&api).await {
            now if now >= wanted => Ok(()),
            now => Err(format!("{now} of {wanted}")),
        })
        .await;
        assert_eq!(heard(&api).await, received, "none came to the node");
        assert_eq!(scene.counter(node, "rejected_origin").await, rejected);
    }
    assert_eq!(scene.standing().await, before, "index, state and session are what they were");
    scene.unharmed().await;
}

#[tokio::test]
async fn signed_gossip_that_claims_to_be_the_leaders_is_rejected_by_its_author() {
    let mut scene = Scene::set().await;
    let before = scene.standing().await;
    // Who passes it on is another than the author: nobody has a connection to that one.
    let liar = Keypair::generate_ed25519();
    let author = node_of(&liar);
    for node in 0..3 {
        let (_lanes, mut gossip, standing, api, to) = overheard(&mut scene, node).await;
        let count = async |scene: &mut Scene| {
            scene.counter(node, "rejected_origin").await + scene.counter(node, "stale_session").await
        };
        let (rejected, received) = (count(&mut scene).await, heard(&api).await);
        let mut all = lies(&standing);
        let session = standing.session.map(|session| Session { clock: standing.clock + (1 << 32) + 1, ..session });
        let claims = Standing { boot: Boot { starts: 1, nonce: 1 }, session, confirmed: session, ..standing };
        all.push(Message::Hello { standing: Box::new(claims), purpose: Purpose::Ask { losses: 0 } });
        for lie in &all {
            gossip.message(author, Proof::Key(&liar), to, lie).await;
        }
        until("all came to the node", SOON, async || match heard(&api).await - received {
            now if now >= all.len() as u64 => Ok(()),
            now => Err(now),
        })
        .await;
        let wanted = all.len() as u64;
        until("they are rejected or stale", SOON, async || match count(&mut scene).await - rejected {
            now if now >= wanted => Ok(()),
            now => Err(now),
        })
        .await;
    }
    assert_eq!(scene.standing().await, before, "index, state and session are what they were");
    scene.unharmed().await;
    let state = scene.cluster.api(scene.follower).await.state().await.unwrap();
    assert!(state["cards"]["forged"].is_null());
}

#[tokio::test]
async fn whoever_passes_much_garbage_on_is_not_listened_to_for_a_while() {
    let mut scene = Scene::set().await;
    let node = scene.follower;
    let (_lanes, mut gossip, _, api, to) = overheard(&mut scene, node).await;
    let author = Keypair::generate_ed25519();
    let probe = Message::Probe { n: 1 };
    let name = "network_dropped_total{cause=\"Garbage\"}";
    let garbage = counted(&api, name).await;
    for _ in 0..=DEAF_AFTER {
        gossip.publish(node_of(&author), Proof::Key(&author), TOPIC, b"\xff garbage").await.unwrap();
    }
    until("the garbage is counted", SOON, async || match counted(&api, name).await - garbage {
        now if now > DEAF_AFTER => Ok(()),
        now => Err(now),
    })
    .await;
    let received = heard(&api).await;
    gossip.message(node_of(&author), Proof::Key(&author), to, &probe).await;
    // It is forgotten with time, and then the next one is heard: those in between were not.
    let mut said = 1;
    until("it is listened to again", SOON, async || {
        if heard(&api).await > received {
            return Ok(());
        }
        said += 1;
        gossip.message(node_of(&author), Proof::Key(&author), to, &probe).await;
        Err("not yet")
    })
    .await;
    assert!(said > 10, "it was deaf for {said} messages only");
    scene.unharmed().await;
}
