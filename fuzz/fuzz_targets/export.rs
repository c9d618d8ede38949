//! Arbitrary option strings of blockd.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| blockd::fuzz::export(data));
