//! Fuzz target; what it checks stands in `bigup_oracles::upload_headers`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bigup_oracles::upload_headers::check(data));
