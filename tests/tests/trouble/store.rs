//! Stores that are not what was written: cut short, with flipped bytes, or another kind of file altogether. A node
//! recovers what can be read and gets the rest from the others, or says clearly why it cannot.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use lockstep_tests::api::add_card;
use lockstep_tests::cluster::{Cluster, SOON};
use lockstep_tests::node::Plan;

/// The database of a data directory.
const DATABASE: &str = "store.redb";

/// Three nodes with so many entries, of which a follower has left; which that is.
async fn one_has_left(commands: usize) -> (Cluster, usize) {
    let mut cluster = Cluster::founded_by(3).await;
    let leader = cluster.all_ready(SOON).await;
    cluster.api(leader).await.load(7, commands).await;
    cluster.equal(SOON).await;
    let follower = (leader + 1) % 3;
    cluster.kill(follower).await;
    (cluster, follower)
}

/// Starts the node again: it must come back to the others' state, and the cluster must go on.
async fn heals(mut cluster: Cluster, node: usize, harm: &str) {
    let data = cluster.data(node);
    cluster.start(node);
    cluster.all_ready(SOON).await;
    let api = cluster.api(node).await;
    api.done("after", &add_card("after"), SOON).await;
    cluster.equal(SOON).await;
    let view = api.cluster().await.unwrap();
    assert_eq!((&view["damaged"], &view["ready"]), (&false.into(), &true.into()), "{harm}: {view}");
    println!(
        "{harm}: counted {} entries again, {} snapshots",
        view["counters"]["entries_applied"], view["counters"]["snapshots_installed"]
    );
    // It also starts from what it recovered.
    cluster.kill(node).await;
    cluster.start(node);
    cluster.all_ready(SOON).await;
    cluster.equal(SOON).await;
    assert!(data.join(DATABASE).exists());
}

/// Inverts a few bytes in each of many places, evenly over the file but for its first page, which names its format.
fn flip(path: &Path, places: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).expect("the store is there");
    let length = file.metadata().expect("it has a length").len();
    for place in 0..places {
        let at = 4096 + (length - 4096 - 8) / places * place;
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, at).expect("it is within the file");
        file.write_all_at(&bytes.map(|byte| !byte), at).expect("it can be written");
    }
}

fn cut(path: &Path, to: impl FnOnce(u64) -> u64) {
    let file = OpenOptions::new().write(true).open(path).expect("the store is there");
    let length = file.metadata().expect("it has a length").len();
    file.set_len(to(length)).expect("it can be cut");
}

#[tokio::test]
async fn a_node_whose_store_lost_its_second_half_comes_back_equal() {
    let (cluster, node) = one_has_left(3000).await;
    cut(&cluster.data(node).join(DATABASE), |length| length / 2);
    heals(cluster, node, "cut in half").await;
}

#[tokio::test]
async fn a_node_whose_store_lost_its_last_page_comes_back_equal() {
    let (cluster, node) = one_has_left(3000).await;
    cut(&cluster.data(node).join(DATABASE), |length| length - 4096);
    heals(cluster, node, "cut by a page").await;
}

#[tokio::test]
async fn a_node_with_flipped_bytes_in_its_store_comes_back_equal() {
    let (cluster, node) = one_has_left(3000).await;
    flip(&cluster.data(node).join(DATABASE), 64);
    heals(cluster, node, "flipped bytes").await;
}

#[tokio::test]
async fn a_node_whose_store_is_empty_or_no_database_comes_back_equal() {
    for (harm, content) in [("emptied", &b""[..]), ("overwritten", b"this is no database\n")] {
        let (cluster, node) = one_has_left(500).await;
        fs::write(cluster.data(node).join(DATABASE), content).expect("it can be written");
        heals(cluster, node, harm).await;
    }
}

#[tokio::test]
async fn a_node_with_a_damaged_identity_says_so_and_touches_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let plan = Plan::new("a", directory.path());
    let mut node = plan.start();
    node.ready(SOON).await;
    node.interrupt().await;
    let identity = plan.data.join("identity.key");
    let whole = fs::read(&identity).unwrap();
    fs::write(&identity, &whole[..20]).unwrap();

    let mut node = plan.start();
    let status = node.ended(SOON).await;
    assert_eq!(status.code(), Some(1));
    let log = node.log();
    assert!(log.contains("identity.key: a key is 64 hexadecimal digits"), "{log}");
    assert!(!log.contains("panicked"), "{log}");
    assert_eq!(fs::read(&identity).unwrap(), &whole[..20]);

    fs::write(&identity, &whole).unwrap();
    plan.start().ready(SOON).await;
}
