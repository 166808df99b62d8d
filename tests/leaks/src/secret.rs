//! What nobody may see, in whatever form.

use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};

/// A secret, with every form in which it is looked for: as it is, in hex, in base64 at any place of a longer text, in
/// percent-encoding, as a list of numbers.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Secret {
    /// What a report calls it.
    pub name: String,
    kind: Kind,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    Text(String),
    Bytes(Vec<u8>),
}

impl Secret {
    /// A text that nobody may see.
    pub fn text(name: impl Into<String>, text: &str) -> Self {
        Self::new(name, Kind::Text(text.to_owned()))
    }

    /// Bytes that nobody may see, such as those of a key.
    pub fn bytes(name: impl Into<String>, bytes: &[u8]) -> Self {
        Self::new(name, Kind::Bytes(bytes.to_owned()))
    }

    fn new(name: impl Into<String>, kind: Kind) -> Self {
        Self {
            name: name.into(),
            kind,
        }
    }

    /// Whether it is so long that nothing else can be taken for it.
    #[must_use]
    pub const fn is_telling(&self) -> bool {
        let bytes = match &self.kind {
            Kind::Text(text) => text.len(),
            Kind::Bytes(bytes) => bytes.len(),
        };
        bytes >= SHORTEST
    }

    /// The forms, each with its name.
    #[must_use]
    pub fn forms(&self) -> Vec<(&'static str, String)> {
        match &self.kind {
            Kind::Text(text) => {
                let encoded = utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
                let mut forms = forms_of(text.as_bytes());
                forms.push(("percent, lower case", lower_escapes(&encoded)));
                forms.push(("percent", encoded));
                forms.push(("plain", text.clone()));
                forms
            }
            Kind::Bytes(bytes) => forms_of(bytes),
        }
    }
}

/// The forms that bytes and texts share.
fn forms_of(bytes: &[u8]) -> Vec<(&'static str, String)> {
    let each = |write: fn(&u8) -> String| bytes.iter().map(write);
    let decimals: Vec<String> = each(u8::to_string).collect();
    let mut forms = vec![
        ("hex", each(|byte| format!("{byte:02x}")).collect()),
        ("HEX", each(|byte| format!("{byte:02X}")).collect()),
        (
            "percent of all",
            each(|byte| format!("%{byte:02x}")).collect(),
        ),
        (
            "PERCENT of all",
            each(|byte| format!("%{byte:02X}")).collect(),
        ),
        ("a list of numbers", decimals.join(", ")),
    ];
    for shift in 0..3 {
        forms.push(("base64", inside(&STANDARD_NO_PAD, bytes, shift)));
        forms.push(("base64url", inside(&URL_SAFE_NO_PAD, bytes, shift)));
    }
    forms
}

/// What is left of the base64 form of bytes wherever they stand in a longer text: what stands `shift` bytes before them in
/// a group of three, and what comes behind them, changes the characters at the ends.
fn inside(engine: &impl base64::Engine, bytes: &[u8], shift: usize) -> String {
    let shifted = [&[0; 2][..shift], bytes].concat();
    let encoded = engine.encode(&shifted);
    let start = (shift * 8).div_ceil(6);
    let end = shifted.len() * 8 / 6;
    encoded[start..end].to_owned()
}

/// `%2F` as `%2f`, which some software writes.
fn lower_escapes(encoded: &str) -> String {
    let mut parts = encoded.split('%');
    let mut lower = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (digits, rest) = part.split_at(2);
        lower.push('%');
        lower.push_str(&digits.to_lowercase());
        lower.push_str(rest);
    }
    lower
}

/// Bytes of the shortest secret that is looked for: base64 of fewer turns up by chance.
const SHORTEST: usize = 8;
