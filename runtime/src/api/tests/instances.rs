//! Instances are created, placed, foreseen, shown and deleted; cards come and go.

use super::fake::{ME, OTHER, Order};
use super::openapi::fits;
use super::*;

const GIB: u64 = 1 << 30;

/// Two nodes that are up, with 20 and 10 GiB free, and the model `acme/large` of 24 GiB in 3 layers.
async fn api() -> Api {
    let api = Api::start().await;
    api.node.tell(Order::Hear(ME, 20 * GIB));
    api.node.tell(Order::Hear(OTHER, 10 * GIB));
    let card = json!({ "name": "Large", "weights_bytes": 24 * GIB, "layers": 3, "context_tokens": 1 });
    let (status, reply) = answer(api.post("/v1/models").json(&json!({ "model": "acme/large", "card": card }))).await;
    assert_eq!(status, 200, "{reply}");
    api
}

async fn place(api: &Api, body: Value) -> (u16, Value) {
    let (status, body) = answer(api.post("/v1/instances/place").json(&body)).await;
    (status.as_u16(), body)
}

#[tokio::test]
async fn an_instance_is_placed_as_it_was_foreseen_and_shown() {
    let api = api().await;
    let (status, seen) = api.read("/v1/instances/preview?model=acme/large").await;
    let rank =
        |node, needs: u64, free: u64| json!({ "node": node, "needs_bytes": needs * GIB, "free_bytes": free * GIB });
    assert_eq!((status, &seen["ranks"]), (StatusCode::OK, &json!([rank(ME, 16, 20), rank(OTHER, 8, 10)])));
    fits(&seen, "#/components/schemas/Preview", "the preview");

    let (status, placed) = place(&api, json!({ "model": "acme/large" })).await;
    assert_eq!((status, &placed["result"]), (200, &json!("done")), "{placed}");
    fits(&placed, "#/components/schemas/Created", "the reply");
    let id = placed["instance"]["id"].as_str().unwrap();
    assert_eq!(placed["id"], id, "what a command creates is named after it");
    let nodes: Vec<&Value> = placed["instance"]["ranks"].as_array().unwrap().iter().map(|rank| &rank["node"]).collect();
    assert_eq!(nodes, [&json!(ME), &json!(OTHER)]);

    let (status, shown) = api.read(&format!("/v1/instances/{id}")).await;
    assert_eq!((status, &shown), (StatusCode::OK, &placed["instance"]));
    assert_eq!((&shown["ready"], &shown["ranks"][1]["status"]), (&json!(false), &json!("idle")));
    assert_eq!(api.read("/v1/instances").await.1, json!({ "instances": [shown] }));
    let full = error(api.get("/v1/instances/preview?model=acme/large")).await;
    assert_eq!((full.0, full.1.as_str()), (409, "no_room"), "what is promised is not free");

    let (status, gone) = answer(api.client.delete(api.url(&format!("/v1/instances/{id}")))).await;
    assert_eq!((status, &gone["result"]), (StatusCode::OK, &json!("done")));
    assert_eq!(api.read("/v1/instances").await.1, json!({ "instances": [] }));
    assert_eq!(error(api.get(&format!("/v1/instances/{id}"))).await.0, 404);
    let again = error(api.client.delete(api.url(&format!("/v1/instances/{id}")))).await;
    assert_eq!((again.0, again.1.as_str()), (409, "unknown_instance"));
}

#[tokio::test]
async fn an_instance_is_created_on_named_nodes_once_for_each_key() {
    let api = api().await;
    let create = || {
        let body = json!({ "model": "acme/large", "nodes": [OTHER], "instance": null });
        answer(api.post("/v1/instances").header("idempotency-key", "once").json(&body))
    };
    let (first, again) = (create().await.1, create().await.1);
    assert_eq!((&again["because"], &again["instance"]), (&json!("done_before"), &first["instance"]));
    assert_eq!(first["instance"]["ranks"][0]["node"], json!(OTHER));
    let given = json!({ "model": "acme/large", "nodes": [ME], "instance": "000102030405060708090a0b0c0d0e0f" });
    let (_, created) = answer(api.post("/v1/instances").json(&given)).await;
    assert_eq!(created["instance"]["id"], "000102030405060708090a0b0c0d0e0f");
}

#[tokio::test]
async fn what_cannot_be_placed_is_refused_with_what_is_missing() {
    let api = api().await;
    let refused = place(&api, json!({ "model": "acme/large", "ranks": 1 })).await;
    assert_eq!((refused.0, &refused.1["code"]), (409, &json!("no_room")));
    let message = refused.1["error"]["message"].as_str().unwrap();
    let wanted = "Model acme/large needs 24.0 GiB of memory on one node; the most free is 20.0 GiB on node";
    assert!(message.starts_with(wanted), "{message}");
    let (status, code, foreseen) = error(api.get("/v1/instances/preview?model=acme/large&ranks=1")).await;
    assert_eq!((status, code.as_str(), foreseen.as_str()), (409, "no_room", message), "the preview says the same");
    let code = async |body: Value| place(&api, body).await.1["error"]["code"].clone();
    assert_eq!(code(json!({ "model": "acme/large", "ranks": 3 })).await, "too_few_nodes");
    assert_eq!(code(json!({ "model": "acme/large", "ranks": 4 })).await, "too_few_layers");
    assert_eq!(code(json!({ "model": "acme/large", "ranks": 0 })).await, "zero");
    assert_eq!(code(json!({ "model": "nobody/knows-it" })).await, "unknown_model");
}

#[tokio::test]
async fn malformed_requests_are_answered_with_what_is_wrong() {
    let api = api().await;
    for path in ["/v1/instances", "/v1/instances/place", "/v1/models"] {
        assert_eq!(error(api.post(path)).await.0, 415, "{path}");
        for body in [json!({}), json!([]), json!({ "modle": "m" }), json!({ "model": 7 }), json!(null)] {
            let (status, code, _) = error(api.post(path).json(&body)).await;
            assert_eq!((status, code.as_str()), (400, "malformed_json"), "{path} {body}");
        }
        let json = api.post(path).header("content-type", "application/json");
        assert_eq!(error(json.body("{")).await.1, "malformed_json", "{path}");
        let key = api.post(path).header("idempotency-key", "two words").json(&json!({}));
        assert_eq!(error(key).await.1, "bad_key", "{path}");
    }
    assert_eq!(error(api.get("/v1/instances/7")).await.1, "bad_id");
    assert_eq!(error(api.client.delete(api.url("/v1/instances/7"))).await.1, "bad_id");
    assert_eq!(error(api.get("/v1/instances/preview")).await.1, "bad_query");
    assert_eq!(error(api.get("/v1/instances/preview?model=m&ranks=-1")).await.1, "bad_query");
    assert_eq!(error(api.get("/v1/instances?limit=7")).await.1, "bad_query");
    let foreign = api.client.delete(api.url("/v1/models/acme/large")).header("origin", "http://example.org");
    assert_eq!(error(foreign).await.0, 403);
}

#[tokio::test]
async fn a_custom_card_comes_and_goes_whatever_slashes_are_in_its_name() {
    let api = api().await;
    assert_eq!(api.read("/v1/state/cards/acme%2Flarge/custom").await.1, json!(true));
    place(&api, json!({ "model": "acme/large" })).await;
    let delete = |path: &str| answer(api.client.delete(api.url(path)));
    let (status, refused) = delete("/v1/models/acme/large").await;
    assert_eq!((status.as_u16(), &refused["code"]), (409, &json!("model_in_use")));
    let instances = api.read("/v1/instances").await.1;
    let id = instances["instances"][0]["id"].as_str().unwrap();
    assert_eq!(delete(&format!("/v1/instances/{id}")).await.0, 200);
    assert_eq!(delete("/v1/models/acme%2Flarge").await.0, 200);
    assert_eq!(delete("/v1/models/acme/large").await.1["code"], "unknown_model");
}
