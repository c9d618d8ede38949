//! Arbitrary operations on a timer queue, beside a sorted vector.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| aio_timers::fuzz::timer_queue(data));
