//! `ipam-server doctor`: what is wrong with a database, for people and for programs.

use crate::{
    clock,
    config::Report,
    store::{DatabaseUrl, Diagnosis, Store},
};
use anyhow::{Context, Result};
use ipam_api::wire::Severity;
use serde_json::json;
use std::fmt::Write;

/// Looks at a database without changing it.
///
/// # Errors
/// It is not there, cannot be read or is of another version.
pub async fn examine(database: &DatabaseUrl) -> Result<Diagnosis> {
    let now = clock::of_service().now();
    Store::diagnose(database, now).await.with_context(|| format!("cannot look at the database {database}"))
}

/// Whether no rule is broken.
#[must_use]
pub fn is_sound(diagnosis: &Diagnosis) -> bool {
    diagnosis.findings.iter().all(|finding| finding.severity != Severity::Broken)
}

/// What was found, as text that ends with a line break.
///
/// # Errors
/// It cannot be set in type.
pub fn report(diagnosis: &Diagnosis, form: Report) -> Result<String> {
    let Diagnosis { recovery, findings } = diagnosis;
    let mut text = String::new();
    match form {
        Report::Json => {
            let document = json!({"recovery": recovery, "findings": findings});
            writeln!(text, "{}", serde_json::to_string_pretty(&document)?)?;
        }
        Report::Table => {
            if let Some(recovery) = recovery {
                writeln!(
                    text,
                    "in recovery since {:.0}: {} nodes not heard of since (docs/operations.md)",
                    recovery.since, recovery.unheard_nodes
                )?;
            }
            for finding in findings {
                let severity = match finding.severity {
                    Severity::Broken => "broken",
                    Severity::Attention => "attention",
                };
                writeln!(text, "{severity:9}  {}  {}", finding.code, finding.object)?;
                writeln!(text, "           {}", finding.detail)?;
                writeln!(text, "           cure: {}", finding.cure)?;
            }
            if findings.is_empty() {
                writeln!(text, "nothing is wrong")?;
            }
        }
    }
    Ok(text)
}
