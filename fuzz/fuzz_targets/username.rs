//! See [`tombolo_fuzz::username`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tombolo_fuzz::username(bytes));
