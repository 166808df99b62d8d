//! See [`tombolo_fuzz::request_head`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tombolo_fuzz::request_head(bytes));
