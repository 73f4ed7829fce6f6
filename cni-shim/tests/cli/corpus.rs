//! What the fuzz targets do, on every toolchain: with the kept corpus, and with each of its texts cut short or with a
//! byte changed.

#[path = "../../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "the fuzz targets are programs of another crate")]
mod targets;

use std::{fs, path::Path};

/// Runs a target over its corpus.
#[track_caller]
fn over(target: fn(&[u8]), name: &str) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut count = 0;
    for file in fs::read_dir(directory).unwrap() {
        let path = file.unwrap().path();
        let text = fs::read(&path).unwrap();
        // Named where a test shows what was printed.
        println!("{}", path.display());
        target(&text);
        // A few dozen of each at most, spread over the text.
        for at in (0..text.len()).step_by(text.len() / 40 + 1) {
            target(&text[..at]);
            let mut changed = text.clone();
            changed[at] ^= 1 << (at % 8);
            target(&changed);
        }
        count += 1;
    }
    assert!(count >= 5, "only {count} in the corpus of {name}");
}

#[test]
fn standard_input_may_be_anything() {
    over(targets::stdin, "stdin");
}

#[test]
fn the_environment_may_be_anything() {
    over(targets::cni_args, "cni_args");
}

#[test]
fn a_prev_result_may_be_anything() {
    over(targets::prev_result, "prev_result");
}

#[test]
fn an_entrys_file_may_be_anything() {
    over(targets::entry, "entry");
}

#[test]
fn a_claims_file_may_be_anything() {
    over(targets::claim, "claim");
}
