//! Wiring against the kernel, in namespaces of this process.

mod asking;
mod hostile;
mod keeping;
mod refusing;
mod talking;
