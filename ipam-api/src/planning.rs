//! One pure function answers the dry run and does the real thing.
