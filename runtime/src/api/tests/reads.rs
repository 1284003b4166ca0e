//! Health, readiness, the state and its parts, the cluster, metrics, the page, backups.

use std::sync::atomic::Ordering;

use lockstep_replication::view::{CatchUp, CatchUpPath};

use super::fake::{ME, OTHER, Order};
use super::*;

#[tokio::test]
async fn health_follows_the_node_and_readiness_its_catch_up() {
    let api = Api::start().await;
    assert_eq!(api.read("/healthz").await, (StatusCode::OK, json!({ "status": "alive" })));
    assert_eq!(api.read("/readyz").await, (StatusCode::OK, json!({ "ready": true, "next": 2 })));
    api.node
        .view(|view| {
            view.ready = false;
            view.not_ready = Some("it is 90 entries behind".into());
            let path = CatchUpPath::Snapshot;
            view.catch_up = Some(CatchUp { path, bytes: 1, bytes_of: 4, entries_behind: 90 });
        })
        .await;
    let (status, body) = api.read("/readyz").await;
    assert_eq!(status, 503);
    assert_eq!(body["error"]["code"], "not_ready");
    assert_eq!(body["error"]["message"], "It is 90 entries behind.");
    let catch_up = json!({ "path": "snapshot", "bytes": 1, "bytes_of": 4, "entries_behind": 90 });
    assert_eq!(body["error"]["catch_up"], catch_up);
    assert_eq!(api.read("/healthz").await.0, 200, "a node that catches up lives");

    let mut changes = api.node.handle().changes();
    api.node.tell(Order::Stop);
    while changes.changed().await.is_ok() {}
    let (status, code, _) = error(api.get("/healthz")).await;
    assert_eq!((status, code.as_str()), (503, "stopped"));
}

#[tokio::test]
async fn the_state_is_read_whole_or_by_path() {
    let api = Api::start().await;
    assert_eq!(api.command(&card("acme/small")).await.0, 200);
    let (_, state) = api.read("/v1/state").await;
    assert_eq!(state["cards"]["acme/small"]["layers"], 1);
    assert_eq!(api.read("/v1/state/cards").await.1, state["cards"]);
    assert_eq!(api.read("/v1/state/cards/").await.1, state["cards"]);
    assert_eq!(api.read("/v1/state/cards/acme%2Fsmall/layers").await.1, 1);
    let (status, body) = api.read("/v1/state/cards/other").await;
    assert_eq!((status.as_u16(), &body["error"]["code"]), (404, &json!("no_such_key")));
    assert_eq!(body["error"]["exist"], json!(["acme/small"]));
    assert_eq!(error(api.get("/v1/state/%ff")).await.0, 400);
    let (status, _, message) = error(api.get("/v1/state?at_last=1")).await;
    assert_eq!(status, 400);
    assert!(message.contains("unknown field `at_last`"), "{message}");
}

#[tokio::test]
async fn reads_carry_their_index_and_wait_for_a_newer_one() {
    let api = Api::start().await;
    let response = api.get("/v1/state").send().await.unwrap();
    assert_eq!(header(&response, "lockstep-index"), "1");
    for path in ["/v1/state", "/v1/state/cards", "/v1/events", "/v1/cluster"] {
        let index: u64 = header(&api.get(path).send().await.unwrap(), "lockstep-index").parse().unwrap();
        let waiting = api.get(&format!("{path}?at_least={}", index + 1)).send();
        let (waited, done) = tokio::join!(waiting, async { api.command(&card(path)).await });
        assert_eq!(done.0, 200);
        assert_eq!(header(&waited.unwrap(), "lockstep-index"), (index + 1).to_string(), "{path}");
    }
    let (status, code, _) = error(api.get("/v1/state?at_least=99&timeout=10ms")).await;
    assert_eq!((status, code.as_str()), (504, "not_applied_in_time"));
    for bad in ["timeout=61", "timeout=soon", "at_least=-1", "at_least=x"] {
        assert_eq!(error(api.get(&format!("/v1/state?{bad}"))).await.0, 400, "{bad}");
    }
}

#[tokio::test]
async fn the_cluster_is_the_nodes_view_and_what_lies_around_it() {
    let api = Api::start().await;
    let (status, cluster) = api.read("/v1/cluster").await;
    assert_eq!(status, 200);
    assert_eq!(cluster["me"], ME.to_string());
    assert_eq!(cluster["role"]["leading"], cluster["session"]);
    assert_eq!(cluster["session"]["clock"], 1);
    assert_eq!((&cluster["next"], &cluster["lag"]), (&json!(2), &json!(0)));
    assert_eq!(cluster["nodes"][OTHER.to_string()]["lag"], Value::Null);
    assert_eq!(cluster["counters"]["gaps"], 0);
    assert_eq!(cluster["set_aside"][0]["name"], "1-7.aside");
    assert_eq!(cluster["state_hash"], Value::Null);
    assert_eq!(cluster["nodes"][OTHER.to_string()]["telemetry"], Value::Null);
    let hash = api.node.handle().now().replica.digest().to_string();
    assert_eq!(api.read("/v1/cluster?hash=true").await.1["state_hash"], hash);

    api.node
        .view(|view| {
            view.role = lockstep_replication::Role::Seeking;
            view.nodes.get_mut(&OTHER).unwrap().stored = Some(lockstep_replication::Index(1));
        })
        .await;
    let (_, cluster) = api.read("/v1/cluster").await;
    assert_eq!((&cluster["role"], &cluster["session"]), (&json!("seeking"), &Value::Null));
    assert_eq!(cluster["nodes"][OTHER.to_string()]["lag"], 1);

    api.node.tell(Order::Hear(OTHER, 7));
    let (_, cluster) = api.read("/v1/cluster?at_least=2").await;
    assert_eq!(cluster["nodes"][OTHER.to_string()]["telemetry"]["memory_free_bytes"], 7);
}

#[tokio::test]
async fn metrics_show_node_process_and_network_in_one_text() {
    let api = Api::start().await;
    api.node.view(|view| view.counters.gaps = 5).await;
    let response = api.get("/metrics").send().await.unwrap();
    assert!(header(&response, "content-type").starts_with("application/openmetrics-text"));
    let text = response.text().await.unwrap();
    for line in [
        "lockstep_ready 1",
        "lockstep_leading 1",
        "lockstep_applied_next 2",
        "lockstep_gaps_total 5",
        "network_bytes 7",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    let memory = text.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes ")).unwrap();
    assert!(memory.parse::<u64>().unwrap() > 1 << 20);
    assert!(text.ends_with("# EOF\n") && text.matches("# EOF").count() == 1);
}

#[tokio::test]
async fn the_page_stands_alone() {
    let api = Api::start().await;
    let response = api.get("/").send().await.unwrap();
    assert_eq!(header(&response, "content-type"), "text/html; charset=utf-8");
    assert!(header(&response, "content-security-policy").contains("connect-src 'self'"));
    let page = response.text().await.unwrap();
    assert!(page.contains("/v1/cluster") && !page.contains("src="), "nothing is loaded from elsewhere");
}

#[tokio::test]
async fn a_backup_is_streamed_whole_or_fails() {
    let api = Api::start().await;
    let response = api.get("/v1/backup").send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(header(&response, "content-disposition").contains("lockstep.backup"));
    assert_eq!(response.bytes().await.unwrap().len(), 1_000_000);
    api.around.backup_fails.store(true, Ordering::SeqCst);
    let (status, code, message) = error(api.get("/v1/backup")).await;
    assert_eq!((status, code.as_str(), message.as_str()), (500, "backup_failed", "The disk is gone."));
}
