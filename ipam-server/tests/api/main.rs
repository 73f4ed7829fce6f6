//! The HTTP API over a real database, every answer checked against the document.

mod app;
mod document;
mod examples;
mod fuzz;
mod process;
mod refusals;
mod resources;
mod schema;
