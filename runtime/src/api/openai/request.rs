//! What a request for a chat completion must say, and what of it matters here.

use lockstep_inference::id::ModelId;
use serde_json::{Map, Value};

use crate::api::errors::{ApiError, sentence};

/// Who may speak in a conversation.
const ROLES: [&str; 6] = ["system", "developer", "user", "assistant", "tool", "function"];

/// What of a request matters here. The rest is its runner's.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chat {
    /// The model.
    pub(super) model: ModelId,
    /// To stop after so many tokens, if it says.
    pub(super) max_tokens: Option<u32>,
    /// Whether the answer is to come in parts.
    pub(super) stream: bool,
    /// Whether the last part is to say what the task took.
    pub(super) include_usage: bool,
}

impl Chat {
    /// Reads a request.
    ///
    /// # Errors
    /// It is malformed, or asks for what is not here.
    pub(super) fn parse(json: &[u8]) -> Result<Chat, ApiError> {
        let malformed = |error| ApiError::bad_request("malformed_json", sentence(error));
        let request = match serde_json::from_slice(json).map_err(malformed)? {
            Value::Object(request) => request,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                return Err(ApiError::bad_request("invalid_value", "The request must be a JSON object."));
            }
        };
        let model = match given(&request, "model") {
            Some(Value::String(model)) if !model.is_empty() => ModelId::new(model),
            Some(other) => return Err(wrong("model", "the name of a model", other).of("model")),
            None => return Err(missing("model", "GET /v1/models lists the models")),
        };
        messages(&request)?;
        let stream = flag(&request, "stream", "stream")?;
        let include_usage = match given(&request, "stream_options") {
            None => false,
            Some(_) if !stream => {
                let message = "`stream_options` is for streamed answers: set `stream` to true, or leave it out.";
                return Err(ApiError::bad_request("invalid_value", message).of("stream_options"));
            }
            Some(Value::Object(options)) => flag(options, "include_usage", "stream_options.include_usage")?,
            Some(other) => return Err(wrong("stream_options", "an object", other).of("stream_options")),
        };
        if count(&request, "n")?.is_some_and(|n| n != 1) {
            let message = "One answer is given to a request: `n` must be 1; send the request again for another one.";
            return Err(ApiError::bad_request("unsupported_value", message).of("n"));
        }
        let max_tokens = match count(&request, "max_completion_tokens")? {
            Some(count) => Some(count),
            None => count(&request, "max_tokens")?,
        };
        Ok(Chat { model, max_tokens, stream, include_usage })
    }
}

fn messages(request: &Map<String, Value>) -> Result<(), ApiError> {
    let messages = match given(request, "messages") {
        Some(Value::Array(messages)) if !messages.is_empty() => messages,
        Some(other) => return Err(wrong("messages", "a list of at least one message", other).of("messages")),
        None => return Err(missing("messages", "give at least one, as {\"role\": \"user\", \"content\": …}")),
    };
    for (n, message) in messages.iter().enumerate() {
        let place = format!("messages[{n}]");
        let Value::Object(message) = message else {
            return Err(wrong(&place, "an object", message).of(place));
        };
        let place = format!("messages[{n}].role");
        match given(message, "role") {
            Some(Value::String(role)) if ROLES.contains(&role.as_str()) => {}
            Some(other) => return Err(wrong(&place, &format!("one of {}", ROLES.join(", ")), other).of(place)),
            None => return Err(missing(&place, &format!("it is one of {}", ROLES.join(", ")))),
        }
        content(message, &format!("messages[{n}].content"))?;
    }
    Ok(())
}

/// Content is text, or parts that say of which type they are. One who calls tools may say nothing.
fn content(message: &Map<String, Value>, place: &str) -> Result<(), ApiError> {
    let parts = match given(message, "content") {
        Some(Value::String(_)) => return Ok(()),
        Some(Value::Array(parts)) => parts,
        None if given(message, "tool_calls").or(given(message, "function_call")).is_some() => return Ok(()),
        None => return Err(missing(place, "it is a text, or a list of parts")),
        Some(other) => return Err(wrong(place, "a text, or a list of parts", other).of(place)),
    };
    for (n, part) in parts.iter().enumerate() {
        if !part["type"].is_string() {
            let place = format!("{place}[{n}]");
            return Err(wrong(&place, "an object with a type, such as \"text\"", part).of(place));
        }
    }
    Ok(())
}

/// A field; `null` is as good as none.
fn given<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    object.get(name).filter(|value| !value.is_null())
}

fn flag(object: &Map<String, Value>, name: &str, place: &str) -> Result<bool, ApiError> {
    match given(object, name) {
        None => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(other) => Err(wrong(place, "true or false", other).of(place)),
    }
}

fn count(object: &Map<String, Value>, name: &str) -> Result<Option<u32>, ApiError> {
    let Some(value) = given(object, name) else { return Ok(None) };
    match value.as_u64().and_then(|count| u32::try_from(count).ok()) {
        Some(count) if count > 0 => Ok(Some(count)),
        Some(_) | None => Err(wrong(name, &format!("a whole number from 1 to {}", u32::MAX), value).of(name)),
    }
}

fn missing(place: &str, hint: &str) -> ApiError {
    ApiError::bad_request("missing_required_parameter", format!("`{place}` is missing: {hint}.")).of(place)
}

/// Shows what stands there only where it is short: it is the client's own, but answers end up in logs.
fn wrong(place: &str, wanted: &str, found: &Value) -> ApiError {
    let found = match found {
        Value::Null | Value::Bool(_) | Value::Number(_) => found.to_string(),
        Value::String(text) if text.is_empty() => "empty".to_owned(),
        Value::String(_) => "a text".to_owned(),
        Value::Array(items) if items.is_empty() => "an empty list".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    };
    ApiError::bad_request("invalid_value", format!("`{place}` must be {wanted}, this is {found}."))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(request: &Value) -> Result<Chat, Value> {
        Chat::parse(&serde_json::to_vec(request).unwrap()).map_err(|error| error.document()["error"].clone())
    }

    fn with(name: &str, value: Value) -> Value {
        let mut request = json!({ "model": "acme/small", "messages": [{ "role": "user", "content": "Hello" }] });
        request[name] = value;
        request
    }

    #[test]
    fn what_matters_is_taken_out_and_the_rest_is_not_our_business() {
        let request = json!({
            "model": "acme/small", "stream": true, "stream_options": { "include_usage": true }, "max_tokens": 7,
            "temperature": 0.5, "no_such_field": [1], "n": 1, "stop": null,
            "messages": [
                { "role": "system", "content": "Be brief." },
                { "role": "user", "content": [
                    { "type": "text", "text": "What is this?" },
                    { "type": "image_url", "image_url": { "url": "data:image/png;base64,AAAA" } },
                ] },
                { "role": "assistant", "content": null, "tool_calls": [] },
            ],
        });
        let wanted = Chat { model: ModelId::new("acme/small"), max_tokens: Some(7), stream: true, include_usage: true };
        assert_eq!(parse(&request), Ok(wanted));
        let newer = with("max_completion_tokens", json!(3));
        assert_eq!(parse(&newer).unwrap().max_tokens, Some(3));
        assert_eq!(parse(&with("stream", Value::Null)).unwrap().max_tokens, None);
    }

    #[test]
    fn a_mistake_names_its_field() {
        let of = |name, value| {
            let error = parse(&with(name, value)).unwrap_err();
            assert_eq!(error["type"], "invalid_request_error");
            let message = error["message"].as_str().unwrap();
            assert!(message.ends_with('.') && !message.contains("secret"), "{message}");
            error["param"].as_str().unwrap().to_owned()
        };
        let user =
            |content: Value| json!([{ "role": "user", "content": "Hello" }, { "role": "user", "content": content }]);
        assert_eq!(of("model", Value::Null), "model");
        assert_eq!(of("model", json!("")), "model");
        assert_eq!(of("model", json!(7)), "model");
        assert_eq!(of("messages", Value::Null), "messages");
        assert_eq!(of("messages", json!([])), "messages");
        assert_eq!(of("messages", json!("secret")), "messages");
        assert_eq!(of("messages", json!(["secret"])), "messages[0]");
        assert_eq!(of("messages", json!([{ "content": "secret" }])), "messages[0].role");
        assert_eq!(of("messages", json!([{ "role": "secret", "content": "secret" }])), "messages[0].role");
        assert_eq!(of("messages", user(Value::Null)), "messages[1].content");
        assert_eq!(of("messages", user(json!({ "text": "secret" }))), "messages[1].content");
        assert_eq!(of("messages", user(json!(["secret"]))), "messages[1].content[0]");
        assert_eq!(of("stream", json!("yes")), "stream");
        assert_eq!(of("stream_options", json!({ "include_usage": true })), "stream_options");
        for n in [json!(0), json!(2), json!("1"), json!(1.5), json!(-1)] {
            assert_eq!(of("n", n), "n");
        }
        for count in [json!(0), json!(-1), json!(1.5), json!("7"), json!(1_u64 << 32)] {
            assert_eq!(of("max_tokens", count), "max_tokens");
        }
        assert!(Chat::parse(b"{\"model\": ").is_err_and(|error| error.message().contains("column")));
        assert!(Chat::parse(b"[]").is_err());
    }
}
