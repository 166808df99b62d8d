//! See [`tombolo_fuzz::hub_json`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tombolo_fuzz::hub_json(bytes));
