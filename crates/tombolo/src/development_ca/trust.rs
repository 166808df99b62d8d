//! How a person makes devices trust the development CA.

use std::fmt;
use std::path::PathBuf;

/// The instructions, to be printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instructions {
    pub(super) name: String,
    pub(super) certificate: PathBuf,
    pub(super) profile: PathBuf,
}

impl fmt::Display for Instructions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            certificate,
            profile,
        } = self;
        let (certificate, profile) = (certificate.display(), profile.display());
        write!(
            f,
            "\
Each phone and watch must trust this machine once. Its CA is called \"{name}\"; it can vouch for local names only.
  iPhone, iPad     1. Send it {profile}
                      (AirDrop, or a mail to yourself) and open it there.
                   2. Settings > General > VPN & Device Management: install the profile.
                   3. Settings > General > About > Certificate Trust Settings: turn it on.
  Apple Watch      Open the same file in Mail or Messages on the watch and install it; or AirDrop it to the paired
                   iPhone and choose the watch when asked where to install.
  Simulators       xcrun simctl keychain booted add-root-cert '{certificate}'
  Mac              security add-trusted-cert -r trustRoot -k ~/Library/Keychains/login.keychain-db '{certificate}'
Remove the profile again when development is over."
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_both_files_and_the_switch_that_people_miss() {
        let instructions = Instructions {
            name: "Tombolo development CA 3fa9c1".into(),
            certificate: "/data/tombolo-ca.cer".into(),
            profile: "/data/tombolo-ca.mobileconfig".into(),
        };
        let text = instructions.to_string();
        for part in [
            "\"Tombolo development CA 3fa9c1\"",
            "/data/tombolo-ca.mobileconfig",
            "add-root-cert '/data/tombolo-ca.cer'",
            "Certificate Trust Settings",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }
}
