//! Errors as clients see them: a status, a stable code, a sentence, and sometimes facts that help.

use axum::Json;
use axum::http::StatusCode;
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::response::{IntoResponse, Response};
use lockstep_replication::io::NotTaken;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::reply::Reply;

/// Why a request was not answered as asked. Its JSON form is that of OpenAI's API:
/// `{"error": {"code": …, "message": …, "type": …, "param": …}}`.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    /// The field of the request that is wrong.
    param: Option<String>,
    facts: Map<String, Value>,
}

impl ApiError {
    /// An error with a status, a code that programs may rely on, and a sentence for people.
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        ApiError { status, code, message: message.into(), param: None, facts: Map::new() }
    }

    /// Names the field of the request that is wrong.
    pub(crate) fn of(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// Adds a fact beside code and message.
    pub(crate) fn with(mut self, name: &str, value: impl Serialize) -> Self {
        // A value that has no JSON form is left out: the code and the message stand without it.
        if let Ok(value) = serde_json::to_value(value) {
            self.facts.insert(name.to_owned(), value);
        }
        self
    }

    /// The request says something that cannot be.
    pub(crate) fn bad_request(code: &'static str, message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// What was asked for is not there.
    pub(crate) fn not_found(code: &'static str, message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::NOT_FOUND, code, message)
    }

    /// Someone who may not ask, asked.
    pub(crate) fn forbidden(code: &'static str, message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::FORBIDDEN, code, message)
    }

    /// Not now.
    pub(crate) fn unavailable(code: &'static str, message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, code, message)
    }

    /// Something of this node failed.
    pub(crate) fn internal(code: &'static str, message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, code, message)
    }

    /// The process is ending.
    pub(crate) fn stopping() -> Self {
        NotTaken::Leaving.into()
    }

    /// The same as a reply to a line of a stream. Parsers count lines too, but each saw one line alone.
    pub(crate) fn into_line_reply(self, line: u64) -> Reply {
        let reason = self.message.replace(" at line 1 column ", " at column ");
        Reply::Error { line, code: self.code, reason }
    }

    /// Its JSON form.
    pub(crate) fn document(&self) -> Value {
        let mut error =
            json!({ "code": self.code, "message": self.message, "type": kind(self.status), "param": self.param });
        if let Value::Object(fields) = &mut error {
            fields.extend(self.facts.clone());
        }
        json!({ "error": error })
    }

    /// The sentence.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }
}

/// The kind of error, in the words of OpenAI's API.
fn kind(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::FORBIDDEN => "permission_error",
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        status if status.is_server_error() => "server_error",
        _ => "invalid_request_error",
    }
}

/// The stable code of a reason not to take a command.
pub(crate) fn not_taken_code(reason: NotTaken) -> &'static str {
    match reason {
        NotTaken::Full => "full",
        NotTaken::Leaving => "leaving",
        NotTaken::NotReady => "not_ready",
    }
}

impl From<NotTaken> for ApiError {
    fn from(reason: NotTaken) -> Self {
        ApiError::unavailable(not_taken_code(reason), sentence(reason))
    }
}

/// An error's text as a sentence: it begins with a capital letter and ends with a full stop.
pub(crate) fn sentence(text: impl ToString) -> String {
    let text = text.to_string();
    let mut characters = text.chars();
    let first = characters.next().map(char::to_uppercase).into_iter().flatten();
    let mut sentence: String = first.chain(characters).collect();
    if !sentence.ends_with(['.', '!', '?']) {
        sentence.push('.');
    }
    sentence
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = Json(self.document());
        match self.status {
            StatusCode::UNAUTHORIZED => (self.status, [(WWW_AUTHENTICATE, "Bearer")], body).into_response(),
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                (self.status, [(RETRY_AFTER, "1")], body).into_response()
            }
            status => (status, body).into_response(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::sentence;

    #[test]
    fn a_sentence_begins_large_and_ends_with_a_stop() {
        assert_eq!(sentence("no such node"), "No such node.");
        assert_eq!(sentence("Is it running?"), "Is it running?");
        assert_eq!(sentence(""), ".");
    }
}
