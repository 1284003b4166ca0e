//! What clients are told of a command: the one JSON form for single commands, lines of a stream and later questions.

use axum::Json;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use lockstep_inference::Inference;
use lockstep_replication::io::{NotTaken, Unknown};
use lockstep_replication::message::{DoneMark, Refused};
use lockstep_replication::{CommandId, Index, Outcome};
use serde::Serialize;
use serde_json::Value;

use super::errors::{ApiError, not_taken_code, sentence};

/// What became of a command. Fields that do not apply are left out.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub(crate) enum Reply {
    /// It holds.
    Done {
        /// The command's name.
        id: CommandId,
        /// Where in the log.
        index: Index,
        /// How many known nodes hold it, where this is known.
        #[serde(skip_serializing_if = "Option::is_none")]
        held: Option<u32>,
        /// Of how many.
        #[serde(skip_serializing_if = "Option::is_none")]
        of: Option<u32>,
        /// Why there is no new entry for it.
        #[serde(skip_serializing_if = "Option::is_none")]
        because: Option<NoEntry>,
    },
    /// It changed nothing, and will not.
    Refused(Reason),
    /// This node did not take it; it changed nothing, and will not.
    NotTaken(Reason),
    /// It may hold, or come to.
    Unknown(Reason),
    /// It waits for its outcome.
    Pending {
        /// The command's name.
        id: CommandId,
        /// Where it stands in the log, if it does: too few nodes hold it yet.
        #[serde(skip_serializing_if = "Option::is_none")]
        index: Option<Index>,
    },
    /// A line of a stream that is no command.
    Error {
        /// Which, counted from 1.
        line: u64,
        /// For programs.
        code: &'static str,
        /// A sentence.
        reason: String,
    },
}

/// Why a command that holds made no new entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum NoEntry {
    /// The state was as it asks already.
    NothingToDo,
    /// It was done when it was sent before.
    DoneBefore,
}

/// Why a command is not done.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Reason {
    /// The command's name.
    pub(crate) id: CommandId,
    /// For programs.
    pub(crate) code: &'static str,
    /// A sentence.
    pub(crate) reason: String,
}

impl Reply {
    /// Tells a client about an outcome. `mark` says how many nodes hold entries that were there before.
    pub(crate) fn of(id: CommandId, outcome: Outcome<Inference>, mark: Option<DoneMark>) -> Reply {
        let reason = |code, reason: String| Reason { id, code, reason: sentence(reason) };
        let before = |index, because| {
            let mark = mark.filter(|mark| mark.index >= index);
            let (held, of) = (mark.map(|mark| mark.held), mark.map(|mark| mark.of));
            Reply::Done { id, index, held, of, because: Some(because) }
        };
        match outcome {
            Outcome::Done { index, held, of } => {
                Reply::Done { id, index, held: Some(held), of: Some(of), because: None }
            }
            Outcome::Refused(Refused::Nothing(index)) => before(index, NoEntry::NothingToDo),
            Outcome::Refused(Refused::DoneBefore(index)) => before(index, NoEntry::DoneBefore),
            Outcome::Refused(Refused::Application(refusal)) => {
                Reply::Refused(reason(refusal.code(), refusal.to_string()))
            }
            Outcome::Refused(Refused::TooLong { bytes, limit }) => {
                let text = format!("its entry would have {bytes} bytes, the limit is {limit}");
                Reply::Refused(reason("too_long", text))
            }
            Outcome::Refused(Refused::Before) => {
                let text = "it was refused before, by a leader that is gone or has forgotten why";
                Reply::Refused(reason("refused_before", text.into()))
            }
            Outcome::NotTaken(why) => Reply::not_taken(id, why),
            Outcome::Unknown(why) => Reply::Unknown(reason(unknown_code(why), why.to_string())),
        }
    }

    /// This node takes no commands now.
    pub(crate) fn not_taken(id: CommandId, why: NotTaken) -> Reply {
        Reply::NotTaken(Reason { id, code: not_taken_code(why), reason: sentence(why) })
    }

    fn status(&self) -> StatusCode {
        match self {
            Reply::Done { .. } => StatusCode::OK,
            Reply::Pending { .. } => StatusCode::ACCEPTED,
            Reply::Refused(_) => StatusCode::CONFLICT,
            Reply::NotTaken(_) => StatusCode::SERVICE_UNAVAILABLE,
            Reply::Unknown(_) => StatusCode::GATEWAY_TIMEOUT,
            Reply::Error { .. } => StatusCode::BAD_REQUEST,
        }
    }

    /// The JSON of an answer that has this reply alone: where the status is an error, with `error` as in all errors.
    fn document(&self) -> Value {
        let mut document = serde_json::to_value(self).unwrap_or_default();
        if let Reply::Refused(why) | Reply::NotTaken(why) | Reply::Unknown(why) = self {
            document["error"] = ApiError::new(self.status(), why.code, &why.reason).document()["error"].take();
        }
        document
    }

    /// The answer to a command, with a fact beside its reply.
    pub(crate) fn with(&self, name: &str, fact: Value) -> Response {
        let mut document = self.document();
        document[name] = fact;
        (self.status(), Json(document)).into_response()
    }

    /// The answer to somebody who asks what became of a command: knowing it is a success, whatever it was.
    pub(crate) fn told(&self) -> Response {
        Json(self).into_response()
    }
}

fn unknown_code(why: Unknown) -> &'static str {
    match why {
        Unknown::TimedOut => "timed_out",
        Unknown::Skipped => "skipped",
        Unknown::Contested => "contested",
        Unknown::SetAside => "set_aside",
        Unknown::Stopped => "stopped",
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let body = Json(self.document());
        match self.status() {
            StatusCode::SERVICE_UNAVAILABLE => {
                (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "1")], body).into_response()
            }
            status => (status, body).into_response(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(outcome: Outcome<Inference>, mark: Option<DoneMark>) -> String {
        serde_json::to_string(&Reply::of(CommandId([1; 16]), outcome, mark)).unwrap()
    }

    #[test]
    fn a_reply_names_result_id_and_what_applies() {
        let id = "01010101010101010101010101010101";
        let done = Outcome::Done { index: Index(7), held: 2, of: 3 };
        assert_eq!(json(done, None), format!(r#"{{"result":"done","id":"{id}","index":7,"held":2,"of":3}}"#));
        assert_eq!(
            json(Outcome::Refused(Refused::DoneBefore(Index(7))), None),
            format!(r#"{{"result":"done","id":"{id}","index":7,"because":"done_before"}}"#)
        );
        assert_eq!(
            json(Outcome::NotTaken(NotTaken::Leaving), None),
            format!(
                r#"{{"result":"not_taken","id":"{id}","code":"leaving","reason":"This node is stopping: ask another one."}}"#
            )
        );
    }

    #[test]
    fn an_error_reply_has_the_form_of_all_errors_too() {
        let reply = Reply::of(CommandId::default(), Outcome::Unknown(Unknown::TimedOut), None);
        assert_eq!(reply.status(), StatusCode::GATEWAY_TIMEOUT);
        let document = reply.document();
        assert_eq!(document["error"]["code"], "timed_out");
        assert_eq!(document["error"]["message"], document["reason"]);
        assert_eq!(document["error"]["type"], "server_error");
        assert!(document["error"].as_object().unwrap().contains_key("param"));
    }
}
