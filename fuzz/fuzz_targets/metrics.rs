//! Arbitrary HTTP clients of the metrics of blockd.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| blockd::fuzz::metrics(data));
