//! Looks for secrets in whatever form they may have slipped out.

use std::fmt::Write as _;

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

/// A secret, and every form in which it is looked for.
pub(crate) struct Secret {
    pub(crate) name: String,
    forms: Vec<(&'static str, String)>,
}

/// A secret that was found where it must not be.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Hit {
    pub(crate) place: String,
    pub(crate) secret: String,
    pub(crate) form: &'static str,
}

impl Secret {
    /// A text that nobody may see.
    pub(crate) fn text(name: impl Into<String>, text: &str) -> Self {
        let encoded = utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let mut forms = forms_of(text.as_bytes());
        forms.push(("percent, lower case", lower_escapes(&encoded)));
        forms.push(("percent", encoded));
        forms.push(("plain", text.to_owned()));
        Self::new(name, forms)
    }

    /// Bytes that nobody may see, such as those of a key.
    pub(crate) fn bytes(name: impl Into<String>, bytes: &[u8]) -> Self {
        Self::new(name, forms_of(bytes))
    }

    fn new(name: impl Into<String>, forms: Vec<(&'static str, String)>) -> Self {
        Self {
            name: name.into(),
            forms,
        }
    }

    /// The forms, each with its name.
    pub(crate) fn forms(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.forms.iter().map(|(name, form)| (*name, form.as_str()))
    }
}

/// Every secret in a text.
pub(crate) fn hits<'a>(
    place: &str,
    text: &str,
    secrets: impl IntoIterator<Item = &'a Secret>,
) -> Vec<Hit> {
    let in_text = |secret: &'a Secret| {
        let found = secret.forms().filter(|(_, form)| text.contains(form));
        found
            .map(|(form, _)| Hit {
                place: place.to_owned(),
                secret: secret.name.clone(),
                form,
            })
            .collect::<Vec<_>>()
    };
    secrets.into_iter().flat_map(in_text).collect()
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
        write!(lower, "%{}{rest}", digits.to_lowercase()).unwrap();
    }
    lower
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_found_in_a_longer_text_of_every_alignment() {
        let secret = Secret::text("planted", "s3cr3t/+of.the~test");
        for before in ["", "a", "ab", "abc"] {
            let text = format!("{before}s3cr3t/+of.the~test, and more");
            let encoded = STANDARD_NO_PAD.encode(&text);
            let found = hits("here", &encoded, [&secret]);
            assert!(
                found.iter().any(|hit| hit.form == "base64"),
                "{before}: {found:?}"
            );
        }
    }

    #[test]
    fn another_text_is_no_hit() {
        let secret = Secret::text("planted", "s3cr3t/+of.the~test");
        assert_eq!(hits("here", "s3cr3t/+of.the~tes", [&secret]), []);
    }
}
