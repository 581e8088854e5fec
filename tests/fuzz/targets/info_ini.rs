//! Fuzz target; what it checks stands in `bigup_oracles::info_ini`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bigup_oracles::info_ini::check(data));
