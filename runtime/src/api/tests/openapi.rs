//! The document of the API says what is: the same routes and methods, and the forms of answers.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_inference::workload::Workload;
use reqwest::Method;

use super::*;
use crate::api::openapi::DOCUMENT;
use crate::api::routes;

fn document() -> Value {
    serde_json::from_str(DOCUMENT).unwrap()
}

/// The document's words for a path of the router.
fn documented(path: &str) -> String {
    path.replace("{*", "{")
}

/// A path that leads there.
fn example(path: &str) -> String {
    let id = "000102030405060708090a0b0c0d0e0f";
    path.split('/').map(|part| if part.starts_with('{') { id } else { part }).collect::<Vec<_>>().join("/")
}

#[tokio::test]
async fn the_document_has_the_routes_of_the_router_and_their_methods() {
    let api = Api::start().await;
    let document = document();
    let listed: BTreeMap<String, BTreeSet<String>> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(path, methods)| (path.clone(), methods.as_object().unwrap().keys().map(|m| m.to_uppercase()).collect()))
        .collect();
    let mut found = BTreeMap::new();
    for path in routes().paths {
        let response = api.client.request(Method::TRACE, api.url(&example(path))).send().await.unwrap();
        assert_eq!(response.status(), 405, "{path}");
        let methods =
            header(&response, "allow").split(',').filter(|method| *method != "HEAD").map(str::to_owned).collect();
        found.insert(documented(path), methods);
    }
    assert_eq!(listed, found, "left what openapi.json says, right what is");
}

#[tokio::test]
async fn the_document_is_served_and_hangs_together() {
    let api = Api::start().await;
    assert_eq!(api.read("/openapi.json").await, (StatusCode::OK, document()));
    let document = document();
    let mut ids = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let place = format!("{method} {path}");
            assert!(operation["summary"].is_string(), "{place} says what it does");
            let named = path.matches('{').count();
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            assert_eq!(parameters.iter().filter(|parameter| parameter["in"] == "path").count(), named, "{place}");
            assert!(ids.insert(operation["summary"].as_str().unwrap().to_owned()), "{place} says the same as another");
        }
    }
    each_reference(&document, &mut |reference| {
        assert!(document.pointer(reference.strip_prefix('#').unwrap()).is_some(), "{reference} leads nowhere");
    });
}

fn each_reference(value: &Value, look: &mut impl FnMut(&str)) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(reference)) = fields.get("$ref") {
                look(reference);
            }
            fields.values().for_each(|value| each_reference(value, look));
        }
        Value::Array(items) => items.iter().for_each(|value| each_reference(value, look)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[tokio::test]
async fn answers_and_errors_have_the_forms_that_the_document_says() {
    let api = Api::start().await;
    for (n, command) in Workload::new(1).take(300).enumerate() {
        let command = json!(command);
        fits(&command, "#/components/schemas/Asked", "a command");
        fits(&json!({ "id": format!("key-{n}"), "command": command }), "#/components/schemas/Asked", "a named command");
        let (status, reply) = api.command(&command).await;
        let form = if status == 200 { "Reply" } else { "ReplyError" };
        fits(&reply, &format!("#/components/schemas/{form}"), &format!("the reply to {command}"));
    }
    assert!(!holds(&json!({ "cancel_task": { "tsak": "0" } }), &json!({ "$ref": "#/components/schemas/Asked" })));
    // Each with the path that the document lists it under.
    let asked = [
        ("/healthz", "/healthz"),
        ("/readyz", "/readyz"),
        ("/openapi.json", "/openapi.json"),
        ("/v1/models", "/v1/models"),
        ("/v1/models/{id}", "/v1/models/no/such"),
        ("/v1/state", "/v1/state"),
        ("/v1/state/{path}", "/v1/state/nodes"),
        ("/v1/state/{path}", "/v1/state/nothing"),
        ("/v1/state", "/v1/state?at_least=100000&timeout=1ms"),
        ("/v1/events", "/v1/events?limit=50"),
        ("/v1/events", "/v1/events?limit=no"),
        ("/v1/cluster", "/v1/cluster?hash=true"),
        ("/v1/commands", "/v1/commands?key=none"),
        ("/v1/commands", "/v1/commands"),
        ("/v1/commands/{id}", "/v1/commands/7"),
        ("/v1/traces/{id}", "/v1/traces/7"),
    ];
    for (path, example) in asked {
        let (status, body) = api.read(example).await;
        let form = form("get", path, status.as_u16());
        assert!(holds(&body, &form), "GET {example}: {status} {body} is not {form}");
    }
    api.node.view(|view| view.ready = false).await;
    let (status, body) = api.read("/readyz").await;
    assert!(holds(&body, &form("get", "/readyz", status.as_u16())), "{body}");
}

/// The form of a JSON answer, as the document has it.
fn form(method: &str, path: &str, status: u16) -> Value {
    let document = document();
    let mut response = &document["paths"][path][method]["responses"][status.to_string()];
    if let Some(reference) = response["$ref"].as_str() {
        response = document.pointer(&reference[1..]).unwrap();
    }
    let form = response["content"]["application/json"]["schema"].clone();
    assert!(!form.is_null(), "{method} {path}: the document has no answer with status {status}");
    form
}

/// Fails unless this has a form that the document names.
pub(super) fn fits(value: &Value, reference: &str, what: &str) {
    let form = json!({ "$ref": reference });
    assert!(holds(value, &form), "{what} is not {reference}: {value}");
}

/// Whether a value has a form: as much of JSON Schema as the document uses.
fn holds(value: &Value, form: &Value) -> bool {
    let document = document();
    let mut forms = vec![form];
    let mut all = true;
    while let Some(form) = forms.pop() {
        for (word, says) in form.as_object().unwrap() {
            let fields = value.as_object();
            all &= match word.as_str() {
                "$ref" => {
                    forms.push(document.pointer(&says.as_str().unwrap()[1..]).unwrap());
                    true
                }
                "description" | "format" | "pattern" | "minLength" => true,
                "const" => value == says,
                "enum" => says.as_array().unwrap().contains(value),
                "anyOf" => says.as_array().unwrap().iter().any(|form| holds(value, form)),
                "allOf" => says.as_array().unwrap().iter().all(|form| holds(value, form)),
                "type" => match says.as_str().unwrap() {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "integer" => value.is_u64() || value.is_i64(),
                    "boolean" => value.is_boolean(),
                    "null" => value.is_null(),
                    other => panic!("no type {other}"),
                },
                "minimum" => value.as_u64().is_none_or(|value| value >= says.as_u64().unwrap()),
                "minItems" => value.as_array().is_none_or(|items| items.len() as u64 >= says.as_u64().unwrap()),
                "items" => value.as_array().is_none_or(|items| items.iter().all(|item| holds(item, says))),
                "minProperties" => fields.is_none_or(|fields| fields.len() as u64 >= says.as_u64().unwrap()),
                "maxProperties" => fields.is_none_or(|fields| fields.len() as u64 <= says.as_u64().unwrap()),
                "required" => fields.is_none_or(|fields| {
                    says.as_array().unwrap().iter().all(|name| fields.contains_key(name.as_str().unwrap()))
                }),
                "properties" => fields.is_none_or(|fields| {
                    fields.iter().all(|(name, value)| says.get(name).is_none_or(|form| holds(value, form)))
                }),
                "additionalProperties" => fields.is_none_or(|fields| {
                    let mut others = fields.iter().filter(|(name, _)| form["properties"].get(name).is_none());
                    match says.as_bool() {
                        Some(may) => may || others.next().is_none(),
                        None => others.all(|(_, value)| holds(value, says)),
                    }
                }),
                other => panic!("the test does not know {other:?}"),
            };
        }
    }
    all
}
