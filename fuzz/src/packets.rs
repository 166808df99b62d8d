//! Just enough of MQTT to judge what is written: the fixed header (MQTT 3.1.1, section 2.2), read by hand.

/// Checks that bytes are whole packets whose types are among `allowed`.
pub(crate) fn check(mut bytes: &[u8], allowed: &[u8]) {
    while let Some((head, rest)) = bytes.split_first() {
        let kind = head >> 4;
        assert!(allowed.contains(&kind), "a packet of type {kind}");
        let digits = rest
            .iter()
            .position(|digit| digit & 0x80 == 0)
            .filter(|last| *last < 4);
        let (digits, rest) = rest.split_at(digits.expect("a length has 1 to 4 digits") + 1);
        let length = digits
            .iter()
            .rev()
            .fold(0, |length, digit| length << 7 | usize::from(digit & 0x7f));
        assert!(length <= rest.len(), "half a packet of type {kind}");
        bytes = &rest[length..];
    }
}
