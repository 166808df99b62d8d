//! X.509 certificates of devices: what a peer showed.

use std::{fmt, sync::Arc};

use rustls::ServerConnection;
use rustls_pki_types::CertificateDer;

/// Who is at the other end of a connection, as far as the TLS handshake tells.
///
/// The handshake has proved that the peer holds the key of its certificate, and nothing else: whether the certificate is good
/// for anything is for the hub to decide.
#[derive(Clone, Default)]
pub struct Peer(Option<Arc<[CertificateDer<'static>]>>);

impl Peer {
    /// A peer that showed no certificate, or one whose certificate does not count.
    pub const ANONYMOUS: Self = Self(None);

    /// A peer that showed these certificates, its own first.
    #[must_use]
    pub fn with_certificates(certificates: &[CertificateDer<'static>]) -> Self {
        Self((!certificates.is_empty()).then(|| certificates.into()))
    }

    /// Who has shaken hands.
    pub(crate) fn of(connection: &ServerConnection) -> Self {
        Self::with_certificates(connection.peer_certificates().unwrap_or_default())
    }

    /// What was shown, the peer's own certificate first; empty if nothing was.
    #[must_use]
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        self.0.as_deref().unwrap_or_default()
    }
}

/// Certificates are long, and their names may be of persons.
impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer")
            .field("certificates", &self.certificates().len())
            .finish()
    }
}
