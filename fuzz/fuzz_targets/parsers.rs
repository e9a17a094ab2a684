//! See `rongate_fuzz::parsers`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rongate_fuzz::parsers::run(data));
