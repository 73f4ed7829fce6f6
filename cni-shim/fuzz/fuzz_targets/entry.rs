#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| cni_shim_fuzz::entry(input));
