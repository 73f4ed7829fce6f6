//! Which of two requests of a node wins.
