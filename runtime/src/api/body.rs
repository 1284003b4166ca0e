//! What requests bring along: their media type, their bytes within a limit and a time, their query, the text in their path.

use std::time::Duration;

use axum::body::{BodyDataStream, HttpBody as _};
use axum::extract::{FromRequestParts, Path, Query, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, Uri};
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use serde::de::DeserializeOwned;

use super::errors::{ApiError, sentence};

/// The longest single command, and the longest line of a stream, in bytes.
pub(crate) const COMMAND_BYTES_AT_MOST: usize = 1 << 20;

/// How long a body that is read whole may take to come.
const BODY_WITHIN: Duration = Duration::from_secs(30);

/// How long what comes of a body that is too long is passed over.
const PASSED_OVER_FOR: Duration = Duration::from_secs(1);

/// The forms in which commands come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Media {
    /// One document.
    Json,
    /// One document a line.
    Lines,
}

impl Media {
    /// What the request says that its body is.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Media> {
        let full = headers.get(CONTENT_TYPE)?.to_str().ok()?;
        let essence = full.split(';').next().unwrap_or_default().trim();
        match essence.to_ascii_lowercase().as_str() {
            "application/json" => Some(Media::Json),
            "application/x-ndjson" => Some(Media::Lines),
            _ => None,
        }
    }
}

/// The error for a body of another type.
pub(crate) fn unsupported(wanted: &str) -> ApiError {
    let message = format!("Send {wanted} and say so in the Content-Type header.");
    ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message)
}

/// The bytes of a JSON body. A page of another site cannot send this type without asking first, which it is refused.
pub(crate) async fn json_bytes(request: Request) -> Result<Bytes, ApiError> {
    json_pieces(request, COMMAND_BYTES_AT_MOST, |_| Ok(())).await
}

/// As [`json_bytes`], of a route with another limit. `admit` hears how many bytes there are before more are read: who is
/// to hold them may refuse.
pub(crate) async fn json_pieces(
    request: Request,
    limit: usize,
    mut admit: impl FnMut(usize) -> Result<(), ApiError>,
) -> Result<Bytes, ApiError> {
    if Media::of(request.headers()) != Some(Media::Json) {
        return Err(unsupported("application/json"));
    }
    let body = request.into_body();
    let announced = body.size_hint().lower();
    let mut pieces = body.into_data_stream();
    if announced > limit as u64 {
        return Err(too_large(limit, &mut pieces).await);
    }
    let reading = async {
        let mut bytes = BytesMut::new();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|error| ApiError::bad_request("unreadable_body", sentence(error)))?;
            if bytes.len() + piece.len() > limit {
                return Err(too_large(limit, &mut pieces).await);
            }
            bytes.extend_from_slice(&piece);
            admit(bytes.len())?;
        }
        Ok(bytes.freeze())
    };
    tokio::time::timeout(BODY_WITHIN, reading).await.unwrap_or_else(|_| {
        let message = format!("The body did not come within {} s.", BODY_WITHIN.as_secs());
        Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", message))
    })
}

/// The error for a body beyond the limit. What still comes of it is passed over for a moment: a client that is sending when
/// its connection closes may never read why.
async fn too_large(limit: usize, rest: &mut BodyDataStream) -> ApiError {
    let pass_over = async { while let Some(Ok(_)) = rest.next().await {} };
    let _ = tokio::time::timeout(PASSED_OVER_FOR, pass_over).await;
    let message = format!("The body may have at most {limit} bytes.");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
}

/// The query of a request; unknown and malformed parameters are named.
pub(crate) fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, ApiError> {
    match Query::try_from_uri(uri) {
        Ok(Query(query)) => Ok(query),
        Err(rejection) => Err(ApiError::bad_request("bad_query", sentence(rejection.body_text()))),
    }
}

/// The text that a route's path leaves open, decoded. What cannot be decoded is an error like all others.
#[derive(Debug)]
pub(crate) struct PathText(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for PathText {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<PathText, ApiError> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(text)) => Ok(PathText(text)),
            Err(rejection) => Err(ApiError::bad_request("bad_path", sentence(rejection.body_text()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_media_type_is_read_whatever_its_case_and_parameters() {
        let of = |text: &'static str| {
            Media::of(&HeaderMap::from_iter([(CONTENT_TYPE, axum::http::HeaderValue::from_static(text))]))
        };
        assert_eq!(of("Application/JSON; charset=utf-8"), Some(Media::Json));
        assert_eq!(of("application/x-ndjson"), Some(Media::Lines));
        assert_eq!(of("text/plain"), None);
        assert_eq!(of("application/jsonp"), None);
        assert_eq!(Media::of(&HeaderMap::new()), None);
    }
}
