//! Who may ask, and how errors look that no route has to do with.

use tokio_util::sync::CancellationToken;

use super::*;
use crate::api::ServeError;

#[tokio::test]
async fn every_method_and_route_checks_host_and_origin() {
    let api = Api::start().await;
    let routes = ["/", "/healthz", "/readyz", "/metrics", "/v1/state", "/v1/commands", "/no/such/route"];
    for path in routes {
        for request in [api.get(path), api.post(path), api.client.delete(api.url(path))] {
            let (status, code, _) = error(request.try_clone().unwrap().header("host", "evil.example")).await;
            assert_eq!((status, code.as_str()), (403, "host_not_allowed"), "{path}");
            let (status, code, _) = error(request.header("origin", "http://evil.example")).await;
            assert_eq!((status, code.as_str()), (403, "origin_not_allowed"), "{path}");
        }
    }
    let own = api.url("");
    assert_eq!(api.get("/v1/state").header("origin", own).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn unknown_routes_and_methods_are_json_errors() {
    let api = Api::start().await;
    let (status, code, message) = error(api.get("/v1/nothing")).await;
    assert_eq!((status, code.as_str()), (404, "no_such_route"));
    assert!(message.contains("/v1/nothing"));
    for path in ["/v1/models/%ff", "/v1/instances/%ff", "/v1/traces/%ff", "/v1/commands/%ff", "/v1/state/%ff"] {
        let (status, code, _) = error(api.get(path)).await;
        assert_eq!((status, code.as_str()), (400, "bad_path"), "{path}");
    }
    let response = api.client.delete(api.url("/v1/state")).send().await.unwrap();
    assert_eq!(header(&response, "allow"), "GET,HEAD");
    let (status, code, _) = error(api.client.delete(api.url("/v1/state"))).await;
    assert_eq!((status, code.as_str()), (405, "method_not_allowed"));
}

#[tokio::test]
async fn with_a_token_only_the_page_and_the_health_are_open() {
    let api = Api::with(|config| config.token = Some("secret".into())).await;
    for path in ["/readyz", "/metrics", "/v1/state", "/v1/events", "/v1/cluster", "/v1/backup", "/no/such/route"] {
        let (status, code, _) = error(api.get(path)).await;
        assert_eq!((status, code.as_str()), (401, "unauthorized"), "{path}");
    }
    let (status, _, _) = error(api.post("/v1/commands").json(&card("m"))).await;
    assert_eq!(status, 401);
    let (status, _, message) = error(api.get("/v1/state").bearer_auth("wrong")).await;
    assert_eq!((status, message.as_str()), (401, "This is not the API's token."));
    for path in ["/", "/healthz", "/openapi.json"] {
        assert_eq!(api.get(path).send().await.unwrap().status(), 200, "{path}");
    }
    assert_eq!(api.get("/v1/state").bearer_auth("secret").send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn answers_carry_no_cross_origin_permission_and_are_not_kept_or_framed() {
    let api = Api::start().await;
    let response = api.get("/v1/state").header("origin", api.url("")).send().await.unwrap();
    assert_eq!(header(&response, "access-control-allow-origin"), "");
    assert_eq!(header(&response, "cache-control"), "no-store");
    assert_eq!(header(&response, "x-content-type-options"), "nosniff");
    assert_eq!(header(&response, "x-frame-options"), "DENY");
    assert_eq!(header(&response, "content-security-policy"), "default-src 'none'");
}

async fn refusal_to_start(change: impl FnOnce(&mut ApiConfig)) -> ServeError {
    let mut config = config();
    change(&mut config);
    let log = FakeLog::default();
    let node = FakeNode::start(log.clone());
    let (models, _) = WorkHandle::new();
    serve(config, node.handle(), models, log, FakeSurroundings::default(), CancellationToken::new()).await.unwrap_err()
}

#[tokio::test]
async fn it_does_not_start_open_to_others_without_a_token_nor_on_a_taken_port() {
    let error = refusal_to_start(|config| config.listen = "0.0.0.0:0".parse().unwrap()).await;
    assert!(error.to_string().contains("may not listen on 0.0.0.0:0 without a token"), "{error}");
    let error = refusal_to_start(|config| config.token = Some("two words".into())).await;
    assert!(matches!(error, ServeError::BadToken));
    let error = refusal_to_start(|config| config.hosts = vec!["no host".into()]).await;
    assert!(matches!(error, ServeError::Host(_)));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let error = refusal_to_start(|config| config.listen = taken.local_addr().unwrap()).await;
    assert!(matches!(error, ServeError::InUse(_)), "{error}");
}

#[tokio::test]
async fn many_that_begin_at_one_taken_port_each_find_one_of_their_own() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap();
    let apis = futures::future::join_all((0..8).map(|_| {
        Api::with(|config| {
            config.listen = listen;
            config.next_free = true;
        })
    }))
    .await;
    let ports: std::collections::BTreeSet<u16> = apis.iter().map(|api| api.served.address.port()).collect();
    assert_eq!(ports.len(), apis.len(), "{ports:?}");
    assert!(ports.iter().all(|port| *port > listen.port()), "{ports:?} after {listen}");
    for api in &apis {
        assert_eq!(api.get("/healthz").send().await.unwrap().status(), 200);
    }
}

#[test]
fn a_configuration_does_not_show_its_token() {
    let config = ApiConfig { token: Some("hunter2".into()), ..config() };
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[tokio::test]
async fn at_the_end_answers_under_way_finish_and_nothing_new_begins() {
    let mut api = Api::start().await;
    api.node.tell(fake::Order::Hold(true));
    let waiting = tokio::spawn(answer(api.post("/v1/commands").json(&card("m"))));
    let follower = api.get("/v1/events?follow=true").send().await.unwrap();
    // The command is with the node once another one behind it would be.
    while api.read("/v1/commands?key=none").await.0 != 404 {}
    api.shutdown.cancel();
    assert_eq!(follower.text().await.unwrap(), "", "a follower's stream ends");
    api.node.tell(fake::Order::Hold(false));
    let (status, reply) = waiting.await.unwrap();
    assert!(status == 200 || status == 503, "{reply}");
    tokio::time::timeout(std::time::Duration::from_secs(5), &mut api.served.task).await.unwrap().unwrap();
    assert!(api.get("/healthz").send().await.unwrap_err().is_connect());
}
