//! See `rongate_fuzz::control`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rongate_fuzz::control::run(data));
