//! Fuzz target; what it checks stands in `bigup_oracles::tus`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bigup_oracles::tus::check(data));
