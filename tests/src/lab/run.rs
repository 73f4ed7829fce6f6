use anyhow::{Context, Result, bail};
use std::process::{Command, Output, Stdio};

/// Runs a command to its end and returns what it printed; fails with both its outputs if it fails.
pub fn run(command: &mut Command) -> Result<String> {
    let output = run_full(command)?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{}: {}", output.status, [stdout.trim(), stderr.trim()].join(" ").trim());
    }
    Ok(stdout)
}

/// Runs a command to its end, whatever that is, without input.
pub fn run_full(command: &mut Command) -> Result<Output> {
    command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting {}", command.get_program().to_string_lossy()))
}
