//! Arbitrary operations on a context, beside a reference loop.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| aio_reference::fuzz::operations(data));
