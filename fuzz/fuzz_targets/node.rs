//! See `rongate_fuzz::node`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rongate_fuzz::node::run(data));
