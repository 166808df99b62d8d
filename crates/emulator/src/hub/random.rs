//! Random bytes, from a source that is handed in: the system's in a running emulator, a seed in a simulation.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use iothub::sas::Key;

/// A source of random bytes. Keys come from it, so outside tests it must be fit for that.
pub struct Random(Box<Fill>);

type Fill = dyn FnMut(&mut [u8]) + Send;

impl Random {
    /// A source that fills a slice at each call.
    pub fn new(fill: impl FnMut(&mut [u8]) + Send + 'static) -> Self {
        Self(Box::new(fill))
    }

    /// The system's source.
    ///
    /// # Panics
    ///
    /// At its use, if the system has none: nothing here can do without.
    #[must_use]
    pub fn system() -> Self {
        Self::new(|bytes| {
            getrandom::fill(bytes).expect("the system has a source of random bytes");
        })
    }

    /// The same bytes for the same seed. Its keys can be guessed: for tests.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        let mut generator = fastrand::Rng::with_seed(seed);
        Self::new(move |bytes| generator.fill(bytes))
    }

    /// A key of 32 bytes, as long as the hub's own ("Create and read the identity registry").
    pub fn key(&mut self) -> Key {
        Key::from_bytes(self.bytes::<32>().to_vec()).expect("32 bytes are within 16 to 64")
    }

    /// 32 hexadecimal digits, the start of a tracking id.
    pub(crate) fn hex(&mut self) -> String {
        self.bytes::<16>()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect()
    }

    /// A lock token: 32 hexadecimal digits in the form of a GUID.
    pub(crate) fn guid(&mut self) -> String {
        let hex = self.hex();
        [
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..],
        ]
        .join("-")
    }

    /// An identity's entity tag: the base64 form of decimal digits, such as `ODAxMjMyNDI2` (seen on a live hub).
    pub(super) fn etag(&mut self) -> String {
        BASE64.encode(self.number().to_string())
    }

    /// A number of nine digits.
    pub(super) fn number(&mut self) -> u32 {
        100_000_000 + u32::from_le_bytes(self.bytes()) % 900_000_000
    }

    pub(super) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        (self.0)(&mut bytes);
        bytes
    }
}

impl fmt::Debug for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Random(..)")
    }
}
