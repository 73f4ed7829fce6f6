use super::document::Document;
use crate::failure::Failure;

/// One YAML document.
pub(super) fn render(document: &Document) -> Result<String, Failure> {
    serde_norway::to_string(document).map_err(|error| Failure::Other(format!("cannot print YAML: {error}")))
}
