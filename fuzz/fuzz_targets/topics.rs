//! See [`tombolo_fuzz::topics`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tombolo_fuzz::topics(bytes));
