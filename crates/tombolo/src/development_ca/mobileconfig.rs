//! The CA's certificate as a configuration profile, which iOS and watchOS install from a message or a web page.
//!
//! Keys as in Apple's "Configuration Profile Reference"; the payload is `com.apple.security.root`. The identifiers are
//! made from the certificate, so that installing the same CA again replaces the profile and another CA stands beside it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};

use super::hex;

/// Writes the profile. `name` goes into XML as it is: the CA's own name has no character that XML minds.
pub(super) fn profile(certificate: &CertificateDer<'_>, name: &str) -> String {
    let mark = hex(&Sha256::digest(certificate)[..8]);
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
	<key>PayloadType</key>
	<string>Configuration</string>
	<key>PayloadVersion</key>
	<integer>1</integer>
	<key>PayloadIdentifier</key>
	<string>tombolo.development-ca.{mark}</string>
	<key>PayloadUUID</key>
	<string>{profile}</string>
	<key>PayloadDisplayName</key>
	<string>{name}</string>
	<key>PayloadDescription</key>
	<string>Lets this device trust the Tombolo gateway on one developer's machine. The certificate can vouch for local names only. Remove it when development is over.</string>
	<key>PayloadRemovalDisallowed</key>
	<false/>
	<key>PayloadContent</key>
	<array>
		<dict>
			<key>PayloadType</key>
			<string>com.apple.security.root</string>
			<key>PayloadVersion</key>
			<integer>1</integer>
			<key>PayloadIdentifier</key>
			<string>tombolo.development-ca.{mark}.root</string>
			<key>PayloadUUID</key>
			<string>{root}</string>
			<key>PayloadDisplayName</key>
			<string>{name}</string>
			<key>PayloadCertificateFileName</key>
			<string>{file}</string>
			<key>PayloadContent</key>
			<data>{content}</data>
		</dict>
	</array>
</dict>
</plist>
"#,
        profile = uuid(certificate, "profile"),
        root = uuid(certificate, "root"),
        file = super::CERTIFICATE_DER,
        content = STANDARD.encode(certificate),
    )
}

/// A UUID of version 8, which is a hash of the maker's choice (RFC 9562, 5.8).
fn uuid(certificate: &CertificateDer<'_>, purpose: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(purpose);
    hash.update(certificate);
    let mut bytes = hash.finalize();
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let text = hex(&bytes[..16]).to_uppercase();
    [
        &text[..8],
        &text[8..12],
        &text[12..16],
        &text[16..20],
        &text[20..],
    ]
    .join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carries_the_certificate_under_stable_identifiers() {
        let certificate = CertificateDer::from(vec![1, 2, 3]);
        let first = profile(&certificate, "Tombolo development CA 3fa9c1");
        assert_eq!(
            first,
            profile(&certificate, "Tombolo development CA 3fa9c1")
        );
        assert!(first.contains("<data>AQID</data>"));
        assert!(first.contains("<string>com.apple.security.root</string>"));

        let root = uuid(&certificate, "root");
        assert_eq!(root.len(), 36);
        assert_eq!(&root[14..15], "8");
        assert_ne!(root, uuid(&certificate, "profile"));
        assert_ne!(root, uuid(&CertificateDer::from(vec![1, 2, 4]), "root"));
    }
}
