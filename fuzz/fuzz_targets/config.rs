//! See `rongate_fuzz::config`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rongate_fuzz::config::run(data));
