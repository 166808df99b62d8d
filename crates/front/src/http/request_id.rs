//! The name of a request, in its answer and in our log.

use std::{
    fmt::{self, Write as _},
    sync::atomic::{AtomicU64, Ordering},
};

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
        let (a, b, c) = (process >> 32, process >> 16 & 0xffff, process & 0xffff);
        let (d, e) = (count >> 48, count & 0xffff_ffff_ffff);
        let mut id = Self {
            text: [b'0'; LENGTH],
        };
        let mut rest = Cursor(&mut id.text);
        write!(rest, "{a:08x}-{b:04x}-{c:04x}-{d:04x}-{e:012x}")
            .expect("the parts have 36 characters");
        id
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text).expect("hexadecimal digits and dashes are ASCII")
    }
}

/// Writes text into bytes.
struct Cursor<'a>(&'a mut [u8]);

impl fmt::Write for Cursor<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = std::mem::take(&mut self.0);
        let (here, rest) = room.split_at_mut_checked(text.len()).ok_or(fmt::Error)?;
        here.copy_from_slice(text.as_bytes());
        self.0 = rest;
        Ok(())
    }
}

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
