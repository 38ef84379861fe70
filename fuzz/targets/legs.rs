#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mls_channel::fuzzing::legs(data));
