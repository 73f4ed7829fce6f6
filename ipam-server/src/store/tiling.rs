//! The chain of extents of a subnet, changed by difference.
