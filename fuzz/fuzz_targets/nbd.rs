//! Arbitrary NBD clients of blockd.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| blockd::fuzz::nbd(data));
