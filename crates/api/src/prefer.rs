//! The header `Prefer` (RFC 7240).

use std::{iter, time::Duration};

/// What a request prefers. Preferences that this API does not know are passed over, as RFC 7240 asks.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Prefer {
    /// `wait=N` or `wait`: how long the answer may take.
    pub wait: Option<Wait>,
    /// `respond-async`: answer as soon as the request is safe, without waiting for the hub.
    pub respond_async: bool,
}

/// How long an answer may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    /// `wait` without a number: as long as the call itself holds good.
    Usual,
    /// `wait=N`. Not capped here: each call has its own most.
    For(Duration),
}

/// A `wait` that is not a whole number of seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the preference wait is a whole number of seconds, for example \"wait=25\"")]
pub struct InvalidPrefer;

impl Prefer {
    /// Reads the values of all `Prefer` headers of a request. Of a preference that stands twice the first counts.
    ///
    /// # Errors
    ///
    /// `wait` has a value that is not a number.
    pub fn parse<'a>(values: impl IntoIterator<Item = &'a str>) -> Result<Self, InvalidPrefer> {
        let mut prefer = Self::default();
        for preference in values.into_iter().flat_map(|value| split(value, ',')) {
            // Parameters behind the first ';' belong to the preference; neither of ours has any.
            let preference = split(preference, ';').next().unwrap_or_default();
            let (name, value) = preference
                .split_once('=')
                .map_or((preference, None), |(name, value)| (name, Some(value)));
            let name = name.trim();
            if name.eq_ignore_ascii_case("respond-async") {
                prefer.respond_async = true;
            } else if name.eq_ignore_ascii_case("wait") && prefer.wait.is_none() {
                prefer.wait = Some(Wait::parse(value.unwrap_or_default())?);
            }
        }
        Ok(prefer)
    }

    /// How long an answer may take: `usual` if the request does not say how long, `most` if it asks for more.
    #[must_use]
    pub fn wait_or(&self, usual: Duration, most: Duration) -> Duration {
        self.wait.unwrap_or(Wait::Usual).within(usual, most)
    }
}

impl Wait {
    /// The time that is meant: `usual` if none is said, `most` if it is more.
    #[must_use]
    pub fn within(self, usual: Duration, most: Duration) -> Duration {
        match self {
            Self::Usual => usual.min(most),
            Self::For(time) => time.min(most),
        }
    }

    fn parse(value: &str) -> Result<Self, InvalidPrefer> {
        let value = value.trim();
        let digits = value
            .strip_prefix('"')
            .and_then(|value| value.strip_suffix('"'))
            .unwrap_or(value);
        if digits.is_empty() {
            // An empty value is no value (RFC 7240, section 2).
            return Ok(Self::Usual);
        }
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(InvalidPrefer);
        }
        // A number too large for its type is longer than any wait.
        Ok(Self::For(Duration::from_secs(
            digits.parse().unwrap_or(u64::MAX),
        )))
    }
}

/// Splits at a separator that stands outside of quotes.
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    iter::from_fn(move || {
        let text = rest?;
        let (mut is_quoted, mut is_escaped) = (false, false);
        let end = text.find(|c| {
            let is_end = c == separator && !is_quoted;
            is_quoted ^= c == '"' && !is_escaped;
            is_escaped = c == '\\' && is_quoted && !is_escaped;
            is_end
        });
        let (part, after) = match end {
            Some(end) => (&text[..end], Some(&text[end + separator.len_utf8()..])),
            None => (text, None),
        };
        rest = after;
        Some(part)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_it_knows_and_passes_over_the_rest() {
        let cases = [
            (&[][..], None, false),
            (&[""], None, false),
            (&["wait=25"], Some(25), false),
            (&["WAIT = 0"], Some(0), false),
            (&["wait=\"7\""], Some(7), false),
            (&["respond-async, wait=10"], Some(10), true),
            (&["respond-async", "wait=10"], Some(10), true),
            (&["wait=3; foo=bar, return=minimal"], Some(3), false),
            (&["wait=3, wait=9"], Some(3), false),
            (&["foo=\"a,wait=9\\\",b;\", wait=2"], Some(2), false),
            (&["waiting=x, await=-1"], None, false),
            (&["wait=99999999999999999999"], Some(u64::MAX), false),
        ];
        for (values, wait, respond_async) in cases {
            let expected = Prefer {
                wait: wait.map(|seconds| Wait::For(Duration::from_secs(seconds))),
                respond_async,
            };
            assert_eq!(
                Prefer::parse(values.iter().copied()),
                Ok(expected),
                "{values:?}"
            );
        }
    }

    #[test]
    fn a_bad_wait_is_an_error() {
        for bad in ["wait=x", "wait=-1", "wait=1.5", "wait=+5", "wait=1 2"] {
            assert_eq!(Prefer::parse([bad]), Err(InvalidPrefer), "{bad}");
        }
    }

    #[test]
    fn a_wait_without_a_number_is_the_usual_one() {
        for value in [
            "wait",
            "wait=",
            "wait=\"\"",
            "Wait ; x=1",
            "respond-async, wait",
        ] {
            let prefer = Prefer::parse([value]).unwrap();
            assert_eq!(prefer.wait, Some(Wait::Usual), "{value}");
        }
    }

    #[test]
    fn a_wait_is_capped() {
        let most = Duration::from_secs(50);
        let usual = Duration::from_secs(25);
        let prefer = |seconds: Option<u64>| Prefer {
            wait: seconds.map(|seconds| Wait::For(Duration::from_secs(seconds))),
            respond_async: false,
        };
        assert_eq!(prefer(None).wait_or(usual, most), usual);
        assert_eq!(Wait::Usual.within(most, usual), usual);
        assert_eq!(prefer(Some(49)).wait_or(usual, most).as_secs(), 49);
        assert_eq!(prefer(Some(50)).wait_or(usual, most), most);
        assert_eq!(prefer(Some(51)).wait_or(usual, most), most);
    }

    proptest! {
        #[test]
        fn never_panics(values: Vec<String>) {
            let _ = Prefer::parse(values.iter().map(String::as_str));
        }

        #[test]
        fn finds_the_wait_among_others(n: u32, before in "[a-z]{1,3}=\"[^\"\\\\]*\"") {
            let value = format!("{before}, wait={n}");
            prop_assume!(!before.starts_with("wait"));
            prop_assert_eq!(Prefer::parse([value.as_str()]).map(|p| p.wait), Ok(Some(Wait::For(Duration::from_secs(n.into())))));
        }
    }
}
