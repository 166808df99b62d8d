//! See [`tombolo_fuzz::property_bag`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tombolo_fuzz::property_bag(bytes));
