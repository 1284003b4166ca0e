//! Why there is no answer, as clients of OpenAI's API expect to be told. Their library sends a request again after 429
//! and 5xx by itself, so what would fail again, or was called off, must be something else.

use axum::http::StatusCode;
use lockstep_inference::gateway::Failure;
use lockstep_inference::refusal::Refusal;
use lockstep_replication::io::NotTaken;

use crate::api::errors::{ApiError, not_taken_code, sentence};

/// No instance of the model is placed.
pub(super) fn no_model(message: String) -> ApiError {
    ApiError::not_found("model_not_found", message).of("model")
}

/// The error for a failed answer.
pub(super) fn error(failure: &Failure) -> ApiError {
    let (status, code) = match failure {
        Failure::Refused(refusal) => return refused(refusal),
        Failure::NotTaken(reason) => (not_taken(*reason), not_taken_code(*reason)),
        Failure::NotOrdered(_) => (StatusCode::SERVICE_UNAVAILABLE, "not_ordered"),
        Failure::Unknown(_) => (StatusCode::GATEWAY_TIMEOUT, "outcome_unknown"),
        Failure::Full(_) => (StatusCode::TOO_MANY_REQUESTS, "too_many_requests"),
        Failure::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
        Failure::TaskGone => (StatusCode::GONE, "task_gone"),
        Failure::InstanceGone(_) => (StatusCode::SERVICE_UNAVAILABLE, "instance_gone"),
        Failure::NodeGone(_) => (StatusCode::SERVICE_UNAVAILABLE, "node_gone"),
        Failure::Runner(_) => (StatusCode::BAD_GATEWAY, "runner_failed"),
        Failure::Request(_) => (StatusCode::BAD_REQUEST, "request_refused"),
        Failure::Anew(_) => (StatusCode::BAD_GATEWAY, "answer_lost"),
        Failure::TokensLost(_) => (StatusCode::BAD_GATEWAY, "answer_lost"),
        Failure::InputLost(_) => (StatusCode::BAD_GATEWAY, "request_lost"),
        Failure::TooSlow { .. } => (StatusCode::REQUEST_TIMEOUT, "too_slow"),
        Failure::TimedOut(_) => (StatusCode::GATEWAY_TIMEOUT, "timed_out"),
    };
    ApiError::new(status, code, sentence(failure))
}

fn not_taken(reason: NotTaken) -> StatusCode {
    match reason {
        NotTaken::Full => StatusCode::TOO_MANY_REQUESTS,
        NotTaken::Leaving | NotTaken::NotReady => StatusCode::SERVICE_UNAVAILABLE,
    }
}

#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "the other refusals are of requests that cannot be granted as they are"
)]
fn refused(refusal: &Refusal) -> ApiError {
    let message = sentence(refusal);
    match refusal {
        Refusal::UnknownModel { .. } | Refusal::NoInstance { .. } => no_model(message),
        Refusal::NoneAvailable { .. } => ApiError::unavailable(refusal.code(), message),
        Refusal::Full { .. } => ApiError::new(StatusCode::TOO_MANY_REQUESTS, refusal.code(), message),
        _ => ApiError::bad_request(refusal.code(), message),
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse as _;
    use lockstep_inference::id::ModelId;

    use super::*;

    #[test]
    fn what_may_come_right_by_itself_is_sent_again_and_nothing_else() {
        let model = || ModelId::new("m");
        let status = |failure| error(&failure).into_response().status().as_u16();
        assert_eq!(status(Failure::Refused(Refusal::NoInstance { model: model() })), 404);
        assert_eq!(status(Failure::Refused(Refusal::UnknownModel { model: model() })), 404);
        assert_eq!(status(Failure::Refused(Refusal::NoneAvailable { model: model() })), 503);
        assert_eq!(status(Failure::Refused(Refusal::Full { what: "tasks".into(), limit: 7 })), 429);
        assert_eq!(status(Failure::NotTaken(NotTaken::Full)), 429);
        assert_eq!(status(Failure::NotTaken(NotTaken::Leaving)), 503);
        assert_eq!(status(Failure::TooLarge { bytes: 2, limit: 1 }), 413);
        assert_eq!(status(Failure::TaskGone), 410);
        assert_eq!(status(Failure::Runner("it crashed".into())), 502);
        assert_eq!(status(Failure::Request("it has too many tokens".into())), 400);
        assert_eq!(error(&Failure::Runner("it crashed".into())).message(), "It crashed.");
    }
}
