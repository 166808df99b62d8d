//! What is not emulated.

use axum::http::StatusCode;

use super::answer::HttpError;

/// The name is in the REST reference's list of error codes; 501 is none of a hub's answers, and so cannot be taken for one.
pub(super) fn refuse(what: &'static str) -> HttpError {
    HttpError::new(
        StatusCode::NOT_IMPLEMENTED,
        "FeatureNotSupported",
        format!("{what} are not emulated."),
    )
}
