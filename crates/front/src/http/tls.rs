//! The certificate of the device API, which can be exchanged while connections are open.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::RwLock;
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

/// Why the certificate could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read, or has no PEM block of the kind that is needed.
    #[error("{file} has no readable PEM {what}")]
    Pem {
        /// The file.
        file: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// Why.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// The certificate file has no certificate.
    #[error("{0} holds no certificate")]
    Empty(PathBuf),
    /// The key is of a kind that cannot be used, or is not the certificate's.
    #[error("the key in {key_file} does not go with the certificate in {certificate_file}")]
    Mismatch {
        /// Where the certificate is.
        certificate_file: PathBuf,
        /// Where the key is.
        key_file: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// TLS itself cannot be set up.
    #[error("TLS could not be set up")]
    Tls(#[source] rustls::Error),
    /// The task that reads the files was stopped.
    #[error("the files could not be read")]
    Stopped(#[source] io::Error),
}

/// The certificate that new handshakes get.
#[derive(Debug)]
pub(crate) struct Certificate {
    certificate_file: PathBuf,
    key_file: PathBuf,
    current: RwLock<Arc<CertifiedKey>>,
}

impl Certificate {
    /// Reads the files.
    pub(crate) async fn load(
        certificate_file: PathBuf,
        key_file: PathBuf,
    ) -> Result<Arc<Self>, CertificateError> {
        let current = read(&certificate_file, &key_file).await?;
        Ok(Arc::new(Self {
            certificate_file,
            key_file,
            current: RwLock::new(current),
        }))
    }

    /// Reads the files again. Connections keep what they have; the old certificate stays if the new one is unusable.
    pub(crate) async fn reload(&self) -> Result<(), CertificateError> {
        let fresh = read(&self.certificate_file, &self.key_file).await?;
        *self.current.write() = fresh;
        Ok(())
    }

    /// TLS 1.2 and 1.3 with HTTP/2 and HTTP/1.1. No early data: a replayed request would be a second one.
    pub(crate) fn server_config(self: &Arc<Self>) -> Result<ServerConfig, CertificateError> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(CertificateError::Tls)?
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Watches come back often and briefly: a ticket saves them half of the handshake, and costs us no memory.
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(CertificateError::Tls)?;
        Ok(config)
    }
}

impl ResolvesServerCert for Certificate {
    /// One certificate for every name: which names are served is decided by `:authority`, never by SNI, because
    /// clients use one connection for several names.
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.read().clone())
    }
}

async fn read(
    certificate_file: &Path,
    key_file: &Path,
) -> Result<Arc<CertifiedKey>, CertificateError> {
    let (certificate_file, key_file) = (certificate_file.to_owned(), key_file.to_owned());
    tokio::task::spawn_blocking(move || read_blocking(certificate_file, key_file))
        .await
        .map_err(|error| CertificateError::Stopped(io::Error::other(error)))?
}

fn read_blocking(
    certificate_file: PathBuf,
    key_file: PathBuf,
) -> Result<Arc<CertifiedKey>, CertificateError> {
    let chain = CertificateDer::pem_file_iter(&certificate_file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|source| CertificateError::Pem {
            file: certificate_file.clone(),
            what: "certificate",
            source,
        })?;
    if chain.is_empty() {
        return Err(CertificateError::Empty(certificate_file));
    }
    let key = PrivateKeyDer::from_pem_file(&key_file).map_err(|source| CertificateError::Pem {
        file: key_file.clone(),
        what: "private key",
        source,
    })?;
    let key = CertifiedKey::from_der(chain, key, &provider()).map_err(|source| {
        CertificateError::Mismatch {
            certificate_file,
            key_file,
            source,
        }
    })?;
    Ok(Arc::new(key))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
