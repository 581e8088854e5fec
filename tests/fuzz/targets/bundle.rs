//! Fuzz target; what it checks stands in `bigup_oracles::bundle`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bigup_oracles::bundle::check(data));
