//! See [`tombolo_fuzz::batches`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tombolo_fuzz::batches(bytes));
