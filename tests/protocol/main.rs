//! The node protocol, searched exhaustively at small size.

mod model;
mod mutants;
mod searches;
