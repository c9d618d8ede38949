//! Arbitrary guest memory under a virtqueue of blockd.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| blockd::fuzz::virtqueue(data));
