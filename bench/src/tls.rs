//! TLS for all parts of the bench: one authority, one certificate, the gateway's cryptography.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The protocol name of HTTP/1.1 in ALPN.
pub(crate) const HTTP1: &[u8] = b"http/1.1";
/// The protocol name of HTTP/2 in ALPN.
pub(crate) const HTTP2: &[u8] = b"h2";

/// Where a process listens, by what name, and whom to trust about that.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Endpoint {
    /// On loopback.
    pub(crate) address: SocketAddr,
    /// The name in the certificate, for SNI and `Host`.
    pub(crate) name: String,
    /// The certificate of the bench's own authority.
    pub(crate) ca_file: PathBuf,
}

impl Endpoint {
    /// Opens a connection.
    pub(crate) async fn connect(&self, tls: &TlsConnector) -> anyhow::Result<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(self.address)
            .await
            .with_context(|| format!("could not reach {} at {}", self.name, self.address))?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from(self.name.clone())?;
        tls.connect(name, tcp)
            .await
            .with_context(|| format!("the TLS handshake with {} failed", self.name))
    }
}

/// A client that trusts the bench's authority alone and offers these protocols.
pub(crate) fn client(ca_file: &Path, protocols: &[&[u8]]) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca_file)? {
        roots
            .add(certificate)
            .context("could not trust the authority")?;
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .context("could not set up TLS")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

/// A server with this certificate that takes HTTP/2 and HTTP/1.1.
pub(crate) fn server(
    certificate_file: &Path,
    key_file: &Path,
) -> anyhow::Result<Arc<ServerConfig>> {
    let key = PrivateKeyDer::from_pem_file(key_file)
        .with_context(|| format!("could not read the key {}", key_file.display()))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .context("could not set up TLS")?
        .with_no_client_auth()
        .with_single_cert(certificates(certificate_file)?, key)
        .context("could not use the certificate")?;
    config.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .with_context(|| format!("could not read the certificates in {}", path.display()))
}
