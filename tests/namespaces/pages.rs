//! The tests that pages point to are there.

use anyhow::{Result, ensure};
use std::{fs, path::Path};

/// What pages call by the part of its path below one of these.
const BELOW: [&str; 4] = ["tests", "cni-shim/tests", "cni-shim/src", "ipam-server/tests"];

/// `file.rs: test_name`, as a page points to a test.
#[test]
fn the_tests_that_pages_point_to_are_there() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for page in ["SECURITY.md", "docs/failures.md"] {
        let text = fs::read_to_string(root.join(page))?;
        let mut count = 0;
        for pointer in text.split('`').filter(|text| text.contains(".rs: ")) {
            let Some((file, test)) = pointer.split_once(": ") else { continue };
            let code: String = BELOW
                .iter()
                .filter_map(|below| fs::read_to_string(root.join(below).join(file)).ok())
                .collect();
            ensure!(!code.is_empty(), "{page}: there is no {file}");
            ensure!(code.contains(&format!("fn {test}(")), "{page}: {file} has no test {test}");
            count += 1;
        }
        ensure!(count >= 10, "{page} points to {count} tests only");
    }
    Ok(())
}

/// A row without a test is a claim.
#[test]
fn every_failure_has_its_test() -> Result<()> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/failures.md"))?;
    let rows = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| fault "));
    for row in rows {
        ensure!(row.contains(".rs: "), "no test: {row}");
        ensure!(row.matches(" | ").count() == 3, "four columns: {row}");
    }
    Ok(())
}
