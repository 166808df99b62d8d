//! Where a hub is reached, if not under its name.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// `host`, `host:port`, `[v6]` or `[v6]:port`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HubAddress {
    /// A host name or an IP address, without brackets.
    pub host: String,
    /// The port, if one is named.
    pub port: Option<u16>,
}

/// The text is no address of a hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an address is a host, or host:port; an IPv6 address with a port stands in brackets")]
pub struct InvalidHubAddress;

impl FromStr for HubAddress {
    type Err = InvalidHubAddress;

    fn from_str(text: &str) -> Result<Self, InvalidHubAddress> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']').ok_or(InvalidHubAddress)?;
                match rest {
                    "" => (host, None),
                    rest => (host, Some(rest.strip_prefix(':').ok_or(InvalidHubAddress)?)),
                }
            }
            None => match text.split_once(':') {
                None => (text, None),
                // A bare IPv6 address.
                Some((_, rest)) if rest.contains(':') => (text, None),
                Some((host, port)) => (host, Some(port)),
            },
        };
        let port = port
            .map(str::parse)
            .transpose()
            .map_err(|_| InvalidHubAddress)?;
        if host.is_empty() || host.contains(['/', ' ', '@']) || port == Some(0) {
            return Err(InvalidHubAddress);
        }
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for HubAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.port, self.host.contains(':')) {
            (None, _) => f.write_str(&self.host),
            (Some(port), false) => write!(f, "{}:{port}", self.host),
            (Some(port), true) => write!(f, "[{}]:{port}", self.host),
        }
    }
}

impl TryFrom<String> for HubAddress {
    type Error = InvalidHubAddress;

    fn try_from(text: String) -> Result<Self, InvalidHubAddress> {
        text.parse()
    }
}

impl From<HubAddress> for String {
    fn from(address: HubAddress) -> Self {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_be_of_any_kind() {
        for text in ["localhost", "127.0.0.1:8883", "::1", "[::1]:8883"] {
            let address: HubAddress = text.parse().expect(text);
            assert_eq!(address.to_string(), text);
        }
    }
}
