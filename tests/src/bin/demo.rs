//! Whole-system tests in namespaces.
fn main() {}
