#![no_main]
//! See `ddr_fuzz` for what must hold.

libfuzzer_sys::fuzz_target!(|data: &[u8]| ddr_fuzz::run("events", data));
