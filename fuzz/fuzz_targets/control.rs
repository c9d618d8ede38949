//! Arbitrary clients of the control socket of blockd.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| blockd::fuzz::control(data));
