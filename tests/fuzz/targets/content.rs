//! Fuzz target; what it checks stands in `bigup_oracles::content`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bigup_oracles::content::check(data));
