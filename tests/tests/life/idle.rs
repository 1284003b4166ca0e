//! An idle cluster writes nothing to its log.

use std::time::{Duration, Instant};

use lockstep_tests::cluster::{Cluster, SOON};
use lockstep_tests::wait::until;

/// Nodes that have just come describe themselves and their links: after so long without an entry they have.
const SETTLED: Duration = Duration::from_secs(3);

/// How long it is watched.
const IDLE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_head_of_an_idle_cluster_does_not_move() {
    let mut cluster = Cluster::founded_by(3).await;
    let leader = cluster.all_ready(SOON).await;
    let api = cluster.api(leader).await;
    let mut last = (0, Instant::now());
    let settled = until("the cluster has nothing to write any more", SOON, async || {
        let head = api.cluster().await?["head_next"].as_u64().ok_or("no head")?;
        if head != last.0 {
            last = (head, Instant::now());
        }
        if last.1.elapsed() >= SETTLED { Ok(head) } else { Err(format!("the head is {head}")) }
    })
    .await;

    let began = Instant::now();
    while began.elapsed() < IDLE {
        let head = api.cluster().await.unwrap()["head_next"].as_u64();
        assert_eq!(head, Some(settled), "it moved after {:?}: {:?}", began.elapsed(), api.events(settled).await);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(cluster.all_ready(SOON).await, leader);
    assert_eq!(cluster.equal(SOON).await.0, settled);
}
