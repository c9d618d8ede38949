//! Arbitrary conversations with a whole blockd.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| blockd::fuzz::vhost_user(data));
