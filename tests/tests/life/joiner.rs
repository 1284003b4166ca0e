//! A joiner is killed in the middle of catching up, again and again: it comes back and completes.

use std::time::{Duration, Instant};

use lockstep_inference::command::Command;
use lockstep_inference::workload::Workload;
use lockstep_tests::cluster::{Cluster, SOON};
use lockstep_tests::proxy::Way;
use lockstep_tests::wait::until;
use serde_json::{Value, json};

const ENTRIES: usize = 100_000;

/// Makes a state of more than a megabyte.
const TASKS: usize = 20_000;

/// How far the joiner is when it is killed, in quarters, each time anew; then it may complete.
const PLACES: [u64; 3] = [0, 1, 2];

/// As late as between continents, so that there is a middle to be met.
const FAR: Way = Way::Slow(Duration::from_millis(40));

/// So many commands that only add to the state, of the realistic mix: tasks that nobody begins, nearly all of them.
fn growing(commands: usize) -> impl Iterator<Item = Value> {
    let grows = |command: &Command| match command {
        Command::SetNodeInfo { .. }
        | Command::AddCard { .. }
        | Command::CreateInstance { .. }
        | Command::PlaceInstance { .. }
        | Command::CreateTask { .. } => true,
        Command::EvictNode { .. }
        | Command::DeleteCard { .. }
        | Command::DeleteInstance { .. }
        | Command::StartTask { .. }
        | Command::FinishTask { .. }
        | Command::CancelTask { .. }
        | Command::DeleteTask { .. } => false,
    };
    Workload::new(1).filter(grows).take(commands).map(|command| json!(command))
}

/// Starts node 1, and kills it as soon as it says that it catches up in this way and is so far (in quarters).
async fn kill_in_mid_transfer(cluster: &mut Cluster, path: &str, quarters: u64) {
    let api = cluster.start(1).api().await;
    let caught = until("the joiner is in the middle of catching up", SOON, async || {
        let answer = api.ready().await?;
        assert!(!answer.status.is_success(), "it was ready before it was seen so far");
        let catch_up = &answer.body["error"]["catch_up"];
        let number = |of: &Value| of.as_u64().unwrap_or_default();
        let (done, of) = match path {
            "snapshot" => (number(&catch_up["bytes"]), number(&catch_up["bytes_of"])),
            _ => (number(&answer.body["error"]["next"]), number(&answer.body["error"]["head_next"])),
        };
        let so_far = catch_up["path"] == path && done * 4 >= of * quarters;
        if so_far { Ok(catch_up.clone()) } else { Err(answer.body.to_string()) }
    })
    .await;
    cluster.kill(1).await;
    println!("killed while catching up: {caught}");
}

/// Starts node 1 once more; it must complete, by the way named.
async fn completes(cluster: &mut Cluster, path: &str) {
    let began = Instant::now();
    cluster.start(1).ready(SOON).await;
    println!("ready {:?} after its last start", began.elapsed());
    let api = cluster.api(1).await;
    until("the joiner says how it came", SOON, async || {
        let view = api.cluster().await?;
        let ended = view["catch_ups"].as_array().ok_or("no list")?;
        if ended.iter().any(|ended| ended["path"] == path) { Ok(()) } else { Err(view.to_string()) }
    })
    .await;
    assert_eq!(cluster.all_ready(SOON).await, 0);
    cluster.equal(SOON).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_joiner_killed_in_the_middle_of_the_log_comes_back_and_completes() {
    let mut cluster = Cluster::new(1, 2).await.set("replication.snapshot_every=0");
    // Little on its way at a time, so that a replay has many places to be broken off.
    cluster = cluster.set("replication.replay_window=524288").set("replication.batch_bytes=65536");
    cluster.plan(1).environment.push(("LOCKSTEP_DISABLE_SNAPSHOT_FETCH".into(), "1".into()));
    cluster.start(0).ready(SOON).await;
    cluster.api(0).await.load(1, ENTRIES).await;
    cluster.around(1, FAR);
    for quarters in PLACES {
        kill_in_mid_transfer(&mut cluster, "log", quarters).await;
    }
    cluster.around(1, Way::Open);
    completes(&mut cluster, "log").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_joiner_killed_in_the_middle_of_a_snapshot_comes_back_and_completes() {
    // A large state in small chunks, so that a transfer has many places to be broken off.
    let mut cluster = Cluster::new(1, 2).await.set("replication.chunk_bytes=16384").set("replication.keep_behind=100");
    cluster.start(0).ready(SOON).await;
    let answers = cluster.api(0).await.submit_many(growing(TASKS)).await.unwrap();
    let undone = answers.iter().find(|answer| answer["result"] != "done");
    assert_eq!(undone, None);
    cluster.around(1, FAR);
    for quarters in PLACES {
        kill_in_mid_transfer(&mut cluster, "snapshot", quarters).await;
    }
    cluster.around(1, Way::Open);
    completes(&mut cluster, "snapshot").await;
}
