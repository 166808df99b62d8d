//! See [`tombolo_fuzz::device_json`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tombolo_fuzz::device_json(bytes));
