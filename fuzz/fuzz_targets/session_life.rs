//! See [`tombolo_fuzz::session_life`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tombolo_fuzz::session_life(bytes));
