//! A message's body inside a JSON document.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How bytes stand in a JSON string.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub enum Encoding {
    /// The string is the body's text.
    #[default]
    #[serde(rename = "utf-8")]
    Utf8,
    /// The string is the base64 form of the body.
    #[serde(rename = "base64")]
    Base64,
}

/// A body that says it is base64 and is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body is not base64 text, as its encoding says")]
pub struct NotBase64;

impl Encoding {
    /// Text for bytes that are UTF-8, base64 for all others.
    #[must_use]
    pub fn encode(bytes: &[u8]) -> (String, Self) {
        std::str::from_utf8(bytes).map_or_else(
            |_| (BASE64.encode(bytes), Self::Base64),
            |text| (text.to_owned(), Self::Utf8),
        )
    }

    /// The bytes that a string stands for.
    ///
    /// # Errors
    ///
    /// It should be base64 and is not.
    pub fn decode(self, body: String) -> Result<Bytes, NotBase64> {
        match self {
            Self::Utf8 => Ok(body.into()),
            Self::Base64 => BASE64.decode(body).map(Bytes::from).map_err(|_| NotBase64),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_stays_readable() {
        assert_eq!(
            Encoding::encode("größe\0".as_bytes()),
            ("größe\0".to_owned(), Encoding::Utf8)
        );
        assert_eq!(
            Encoding::encode(&[0xff, 0]),
            ("/wA=".to_owned(), Encoding::Base64)
        );
        assert_eq!(
            Encoding::Base64.decode("not base64".to_owned()),
            Err(NotBase64)
        );
    }

    proptest! {
        #[test]
        fn every_body_comes_back(bytes: Vec<u8>) {
            let (body, encoding) = Encoding::encode(&bytes);
            prop_assert_eq!(encoding.decode(body), Ok(Bytes::from(bytes)));
        }
    }
}
