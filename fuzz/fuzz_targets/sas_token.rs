//! See [`tombolo_fuzz::sas_token`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tombolo_fuzz::sas_token(bytes));
