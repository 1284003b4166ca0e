//! `GET /openapi.json`: all routes of this API, what they take and what they answer. Kept by hand, and kept true by tests
//! (`tests/openapi.rs`).

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};

/// The document.
pub(super) const DOCUMENT: &str = include_str!("openapi.json");

/// `GET /openapi.json`.
pub(crate) async fn document() -> Response {
    ([(CONTENT_TYPE, "application/json")], DOCUMENT).into_response()
}
