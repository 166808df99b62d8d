//! The search: all forms of all secrets, and all shapes, in one pass over a text.

use aho_corasick::{AhoCorasick, BuildError, MatchKind};

use crate::Secret;

/// Finds secrets in texts.
pub struct Search {
    automaton: AhoCorasick,
    /// What each pattern of the automaton stands for.
    meanings: Vec<Meaning>,
}

/// What was found where it must not be. Says which secret, never what it is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Leak {
    /// Where.
    pub place: String,
    /// Which line there, from 1 on.
    pub line: usize,
    /// What.
    pub secret: String,
    /// In which form.
    pub form: &'static str,
}

/// What looks like a secret, whoever has made it: a word, and behind it so many characters that a secret is made of.
/// What is masked (`sig=***`) does not.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    word: &'static str,
    least: usize,
}

enum Meaning {
    Secret { name: String, form: &'static str },
    Shape(Shape),
}

impl Search {
    /// Looks for these secrets.
    ///
    /// # Errors
    ///
    /// There are more of them than a machine can hold.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Result<Self, BuildError> {
        let mut patterns = Vec::new();
        let mut meanings = Vec::new();
        for secret in secrets {
            for (form, text) in secret.forms() {
                patterns.push(text);
                meanings.push(Meaning::Secret {
                    name: secret.name.clone(),
                    form,
                });
            }
        }
        for shape in Shape::ALL {
            patterns.push(shape.word.to_owned());
            meanings.push(Meaning::Shape(shape));
        }
        // Secrets may lie inside each other, so all matches count.
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::Standard)
            .build(patterns)?;
        Ok(Self {
            automaton,
            meanings,
        })
    }

    /// Every leak in a text.
    #[must_use]
    pub fn leaks(&self, place: &str, text: &str) -> Vec<Leak> {
        let matches = self.automaton.find_overlapping_iter(text);
        matches
            .filter_map(|found| {
                let (secret, form) = match &self.meanings[found.pattern().as_usize()] {
                    Meaning::Secret { name, form } => (name.clone(), *form),
                    Meaning::Shape(shape) if shape.is_filled(&text[found.end()..]) => {
                        (format!("what follows {}", shape.word), "shape")
                    }
                    Meaning::Shape(_) => return None,
                };
                let before = &text.as_bytes()[..found.start()];
                Some(Leak {
                    place: place.to_owned(),
                    line: 1 + before.iter().filter(|byte| **byte == b'\n').count(),
                    secret,
                    form,
                })
            })
            .collect()
    }
}

impl Shape {
    /// Signatures, keys of connection strings, gateway tokens.
    pub const ALL: [Self; 5] = [
        Self {
            word: "sig=",
            least: 20,
        },
        Self {
            word: "sig%3D",
            least: 20,
        },
        Self {
            word: "SharedAccessKey=",
            least: 16,
        },
        Self {
            word: "tmb_",
            least: 20,
        },
        Self {
            word: "PRIVATE KEY-----\n",
            least: 20,
        },
    ];

    fn is_filled(self, rest: &str) -> bool {
        let is_of_secrets = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/%-_=".contains(byte);
        rest.bytes().take(self.least).filter(is_of_secrets).count() == self.least
    }
}

/// Every leak of these secrets in a text.
///
/// # Panics
///
/// There are more secrets than a machine can hold.
pub fn hits<'a>(
    place: &str,
    text: &str,
    secrets: impl IntoIterator<Item = &'a Secret>,
) -> Vec<Leak> {
    let search = Search::new(secrets).expect("a test has few secrets");
    search.leaks(place, text)
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};

    use super::*;

    fn planted() -> Secret {
        Secret::text("planted", "s3cr3t/+of.the~test")
    }

    #[test]
    fn a_secret_is_found_in_a_longer_text_of_every_alignment() {
        for before in ["", "a", "ab", "abc"] {
            let text = format!("{before}s3cr3t/+of.the~test, and more");
            let encoded = STANDARD_NO_PAD.encode(&text);
            let found = hits("here", &encoded, [&planted()]);
            assert!(
                found.iter().any(|leak| leak.form == "base64"),
                "{before}: {found:?}"
            );
        }
    }

    #[test]
    fn every_form_is_found_with_its_line() {
        let key = Secret::bytes("key", &[7, 200, 31, 4, 99, 250, 0, 1]);
        let search = Search::new([&planted(), &key]).unwrap();
        for secret in [planted(), key] {
            for (form, text) in secret.forms() {
                let leaks = search.leaks("log", &format!("one\ntwo {text} two\nthree"));
                let is_it = |leak: &&Leak| leak.secret == secret.name && leak.form == form;
                let leak = leaks.iter().find(is_it).expect(form);
                assert_eq!(leak.line, 2);
            }
        }
    }

    #[test]
    fn another_text_is_no_leak() {
        assert_eq!(hits("here", "s3cr3t/+of.the~tes", [&planted()]), []);
    }

    #[test]
    fn what_looks_like_a_secret_is_one_unless_it_is_masked() {
        for (text, leaks) in [
            ("sr=x&sig=AbCd%2BfGh%2FjKlMnOpQrSt&se=1", 1),
            ("sr%3Dx%26sig%3DAbCdEfGhIjKlMnOpQrStUv", 1),
            ("sig=***&se=1", 0),
            ("sig=short", 0),
            ("HostName=h;SharedAccessKey=MDEyMzQ1Njc4OWFiY2Rl", 1),
            ("SharedAccessKey=...", 0),
            ("Bearer tmb_0123456789abcdefghij-_", 1),
            ("tmb_...", 0),
            ("-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIFRq", 1),
        ] {
            assert_eq!(hits("here", text, []).len(), leaks, "{text}");
        }
    }
}
