use super::document::Document;
use crate::failure::Failure;

/// Indented JSON.
pub(super) fn render(document: &Document) -> Result<String, Failure> {
    let mut text = serde_json::to_string_pretty(document)
        .map_err(|error| Failure::Other(format!("cannot print JSON: {error}")))?;
    text.push('\n');
    Ok(text)
}
