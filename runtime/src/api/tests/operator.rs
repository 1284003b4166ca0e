//! The operator's hand.

use lockstep_replication::{NodeId, Operator, Role};

use super::fake::{ME, OTHER};
use super::*;

impl Api {
    fn operator(&self, path: &str) -> RequestBuilder {
        self.post(&format!("/v1/operator/{path}")).json(&json!({}))
    }
}

#[tokio::test]
async fn what_the_operator_asks_for_reaches_the_node() {
    let api = Api::start().await;
    let forget = format!("forget/{OTHER}");
    for path in ["handover", &forget, "lead-anyway", "leave"] {
        let (status, body) = answer(api.operator(path)).await;
        assert_eq!((status.as_u16(), &body["result"]), (202, &json!("accepted")), "{path}");
    }
    let empty = api.post("/v1/operator/leave").header("content-type", "application/json");
    assert_eq!(answer(empty).await.0, 202, "no body will do");
    let wanted = [Operator::HandOver, Operator::Forget(OTHER), Operator::LeadAnyway, Operator::Leave, Operator::Leave];
    assert_eq!(api.node.operator_asked().await, wanted);
}

#[tokio::test]
async fn what_cannot_be_is_refused_before_it_reaches_the_node() {
    let api = Api::start().await;
    let code = async |request| {
        let (status, code, _) = error(request).await;
        (status, code)
    };
    assert_eq!(code(api.operator("forget/xyz")).await, (400, "bad_node".into()));
    assert_eq!(code(api.operator(&format!("forget/{}", NodeId::example(9)))).await, (404, "unknown_node".into()));
    assert_eq!(code(api.operator(&format!("forget/{ME}"))).await, (409, "forgets_itself".into()));
    assert_eq!(code(api.post("/v1/operator/leave")).await.0, 415, "a page of another site could send this");
    let body = api.post("/v1/operator/leave").json(&json!({ "now": true }));
    assert_eq!(code(body).await, (400, "body_not_empty".into()));
    assert_eq!(code(api.get("/v1/operator/leave")).await.0, 405);
    api.node.view(|view| (view.role, view.leader) = (Role::Seeking, Some(OTHER))).await;
    let (status, body) = answer(api.operator("handover")).await;
    assert_eq!((status.as_u16(), &body["error"]["leader"]), (409, &json!(OTHER)));
    assert_eq!(api.node.operator_asked().await, []);
}
