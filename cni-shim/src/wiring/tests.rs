//! Wiring against the kernel, in namespaces of this process.

mod keeping;
mod refusing;
mod talking;
