//! The official client of OpenAI's API, unmodified, against every node.

use std::path::Path;
use std::process::Stdio;

use lockstep_tests::cluster::{Cluster, SOON};
use lockstep_tests::inference::{no_tasks, place_echo, ready};
use tokio::process::Command;

/// Names the interpreter of an environment that has the package `openai`. Without it this test says so and passes.
const PYTHON: &str = "LOCKSTEP_OPENAI_PYTHON";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_official_client_lists_models_and_streams_from_every_node() {
    let Some(python) = std::env::var_os(PYTHON) else {
        println!("not run: {PYTHON} names no interpreter that has the package openai");
        return;
    };
    let mut cluster = Cluster::founded_by(3).await;
    let id = cluster.id(1).await;
    let mut urls = Vec::new();
    for node in 0..3 {
        let api = cluster.api(node).await;
        if node == 0 {
            place_echo(&api, "demo/echo", std::slice::from_ref(&id), &[]).await;
        }
        ready(&api, "demo/echo").await;
        urls.push(format!("http://{}", api.address()));
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/openai_client.py");
    let client = Command::new(python)
        .arg(script)
        .arg("demo/echo")
        .args(&urls)
        .env("NO_PROXY", "*")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(6 * SOON, client).await.expect("it ends in time").expect("it can be started");
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{complained}");
    println!("{said}");
    no_tasks(&cluster.api(2).await).await;
}
