//! `/emulator/certificates`: the certificate authorities that devices may show a certificate of. A real hub has them under its
//! resource in Azure's management API, and wants a proof that the uploader holds the key.

use axum::{Json, extract::State, http::StatusCode};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::{Value, json};

use super::{
    Http,
    answer::HttpError,
    extract::{Path, Payload},
};
use crate::x509::{Authority, AuthorityInfo};

pub(super) async fn list(State(http): State<Http>) -> Json<Vec<Value>> {
    let infos: Vec<_> = http.shell.with(|hub, _| {
        let authorities = hub.authorities().iter();
        authorities.map(Authority::info).cloned().collect()
    });
    Json(infos.iter().map(to_json).collect())
}

/// Takes certificates in PEM: all, or none.
pub(super) async fn add(
    State(http): State<Http>,
    Payload(body): Payload,
) -> Result<Json<Vec<Value>>, HttpError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&body).collect();
    // The library's own words have the bytes in them, one number each.
    let certificates = certificates.map_err(|_| HttpError::invalid(NO_PEM))?;
    if certificates.is_empty() {
        return Err(HttpError::invalid("The body holds no certificate in PEM."));
    }
    let added = http
        .shell
        .with(|hub, _| hub.authorities_mut().add_all(&certificates));
    let added = added.map_err(|error| HttpError::invalid(format!("Not taken: {error}.")))?;
    Ok(Json(added.iter().map(to_json).collect()))
}

pub(super) async fn remove(
    State(http): State<Http>,
    Path(thumbprint): Path<String>,
) -> Result<StatusCode, HttpError> {
    let is_removed = http
        .shell
        .with(|hub, _| hub.authorities_mut().remove(&thumbprint));
    if is_removed {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(HttpError::new(
            StatusCode::NOT_FOUND,
            "NotFound",
            "No certificate authority with this thumbprint is trusted.",
        ))
    }
}

fn to_json(info: &AuthorityInfo) -> Value {
    json!({
        "thumbprint": info.thumbprint,
        "subject": info.subject,
        "notBefore": info.not_before.to_string(),
        "notAfter": info.not_after.to_string(),
    })
}

const NO_PEM: &str = "The body is no PEM. With curl, --data-binary @FILE sends a file as it is; -d takes its line breaks away.";
