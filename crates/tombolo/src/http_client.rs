//! An HTTP client for this machine's own servers.

use std::time::Duration;

use anyhow::{Context as _, Result};
use reqwest::{Certificate, Client, ClientBuilder};

/// Begins a client that trusts these roots and nothing else, and goes to no proxy.
pub(crate) fn trusting(roots: impl IntoIterator<Item = Certificate>) -> ClientBuilder {
    Client::builder()
        .tls_certs_only(roots)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(TIME)
}

/// The end of the making of a client.
pub(crate) fn build(client: ClientBuilder) -> Result<Client> {
    client.build().context("could not make an HTTP client")
}

/// What an answer that is no success says is wrong: the problem's detail, or the body as it is.
pub(crate) fn problem(body: &[u8]) -> String {
    let detail = serde_json::from_slice::<api::Problem>(body).ok();
    let detail = detail.map(|problem| problem.detail);
    detail.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned())
}

const TIME: Duration = Duration::from_secs(20);
