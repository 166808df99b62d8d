//! The name of a request, in its answer and in our log.

use std::sync::atomic::{AtomicU64, Ordering};

/// Makes request ids: random bits of this process, and a count. They are names, not secrets.
pub(crate) struct RequestIds {
    process: u64,
    count: AtomicU64,
}

/// A request's name, in the form of a GUID as IoT Hub has it.
#[derive(Clone, Copy)]
pub(crate) struct RequestId {
    text: [u8; LENGTH],
}

impl RequestIds {
    pub(crate) fn new() -> Result<Self, getrandom::Error> {
        Ok(Self {
            process: getrandom::u64()?,
            count: AtomicU64::new(0),
        })
    }

    pub(crate) fn next(&self) -> RequestId {
        RequestId::new(self.process, self.count.fetch_add(1, Ordering::Relaxed))
    }
}

impl RequestId {
    fn new(process: u64, count: u64) -> Self {
        let bytes = [process.to_be_bytes(), count.to_be_bytes()];
        let mut digits = bytes
            .as_flattened()
            .iter()
            .flat_map(|byte| [byte >> 4, byte & 0xf].map(|digit| DIGITS[usize::from(digit)]));
        let text = std::array::from_fn(|place| match place {
            8 | 13 | 18 | 23 => b'-',
            _ => digits.next().unwrap_or(b'0'),
        });
        Self { text }
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text).expect("hexadecimal digits and dashes are ASCII")
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";
/// 32 digits and 4 dashes.
const LENGTH: usize = 36;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_is_a_guid() {
        let id = RequestId::new(0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210);
        assert_eq!(id.as_str(), "01234567-89ab-cdef-fedc-ba9876543210");
        assert_eq!(
            RequestId::new(0, 1).as_str(),
            "00000000-0000-0000-0000-000000000001"
        );
    }
}
