//! How new a read must be: `?at_least=INDEX` waits until the entry of that index is applied here.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, StatusCode};
use lockstep_replication::Index;

use super::errors::ApiError;
use super::shared::Context;
use crate::handle::Published;

/// How long a read waits if its client does not say.
const WAIT: Duration = Duration::from_secs(10);

/// How long a read may wait.
const WAIT_AT_MOST: Duration = Duration::from_secs(60);

/// Carries the index of the last entry that the answer knows of. It can be given on as `at_least`.
pub(crate) const INDEX_HEADER: HeaderName = HeaderName::from_static("lockstep-index");

/// The header of an answer from this state; none before the first entry.
pub(crate) fn index_header(published: &Published) -> Option<[(HeaderName, HeaderValue); 1]> {
    let last = published.replica.next().previous()?;
    Some([(INDEX_HEADER, HeaderValue::from(last.0))])
}

/// The newest state, once it is as new as the client wants it.
///
/// # Errors
/// The timeout is malformed, or passed; the node stopped.
pub(crate) async fn published(
    context: &Context,
    at_least: Option<Index>,
    timeout: Option<&str>,
) -> Result<Arc<Published>, ApiError> {
    let wait = timeout.map_or(Ok(WAIT), parse)?;
    let Some(index) = at_least else { return Ok(context.node.now()) };
    let mut changes = context.node.changes();
    let applied = changes.wait_for(|published| published.replica.next() > index);
    tokio::select! {
        applied = tokio::time::timeout(wait, applied) => match applied {
            Ok(Ok(published)) => Ok(published.clone()),
            Ok(Err(_)) => Err(ApiError::stopping()),
            Err(_) => {
                let next = context.node.now().replica.next();
                let message = format!("Entry {index} was not applied here within {wait:?}; the next one is {next}.");
                Err(ApiError::new(StatusCode::GATEWAY_TIMEOUT, "not_applied_in_time", message).with("next", next))
            }
        },
        () = context.shutdown.cancelled() => Err(ApiError::stopping()),
    }
}

/// A time in seconds (`10`, `10s`) or milliseconds (`500ms`), at most [`WAIT_AT_MOST`].
fn parse(text: &str) -> Result<Duration, ApiError> {
    let (number, unit) = text.split_at(text.find(|digit: char| !digit.is_ascii_digit()).unwrap_or(text.len()));
    let wait = match (number.parse(), unit) {
        (Ok(seconds), "" | "s") => Some(Duration::from_secs(seconds)),
        (Ok(millis), "ms") => Some(Duration::from_millis(millis)),
        _ => None,
    };
    wait.filter(|wait| *wait <= WAIT_AT_MOST).ok_or_else(|| {
        let limit = WAIT_AT_MOST.as_secs();
        let message = format!("The timeout is seconds (10) or milliseconds (500ms), at most {limit} s, not {text:?}.");
        ApiError::bad_request("bad_timeout", message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_seconds_or_milliseconds_and_at_most_a_minute() {
        assert_eq!(parse("10").ok(), Some(Duration::from_secs(10)));
        assert_eq!(parse("60s").ok(), Some(Duration::from_secs(60)));
        assert_eq!(parse("500ms").ok(), Some(Duration::from_millis(500)));
        for bad in ["", "61", "ten", "-1", "1h", "99999999999999999999", "1.5"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
