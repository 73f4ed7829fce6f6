use super::run_full;
use anyhow::{Context, Result};
use std::{net::IpAddr, process::Command, time::Duration};

/// What became of one echo request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Echo {
    /// The answer came after this time.
    After(Duration),
    /// No answer in time.
    Lost,
}

impl Echo {
    /// The time; an error where there was no answer.
    pub fn time(self) -> Result<Duration> {
        match self {
            Self::After(time) => Ok(time),
            Self::Lost => anyhow::bail!("no answer in time"),
        }
    }
}

/// Sends exactly one echo request: what it meets on its way (neighbour discovery above all) is in its time.
/// It is lost if no answer came within `patience`.
///
/// `ping` is that program, entered wherever it is to start from; more flags may stand on it already.
pub fn ping(mut ping: Command, to: IpAddr, patience: Duration) -> Result<Echo> {
    let patience = patience.as_secs_f64().to_string();
    let output = run_full(ping.args(["-n", "-c", "1", "-W", &patience]).arg(to.to_string()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    // 64 bytes from 10.240.1.0: icmp_seq=1 ttl=63 time=0.071 ms
    let Some(rest) = text.lines().find_map(|line| line.split_once(" time=")) else {
        let stderr = String::from_utf8_lossy(&output.stderr);
        // 1: sent, nothing came back; 2: could not even send.
        anyhow::ensure!(output.status.code() == Some(1), "ping {to}: {} {stderr}", output.status);
        return Ok(Echo::Lost);
    };
    let figure = rest.1.split_whitespace().next().unwrap_or_default();
    let milliseconds: f64 = figure.parse().with_context(|| format!("ping {to} printed {text}"))?;
    Ok(Echo::After(Duration::from_secs_f64(milliseconds / 1000.0)))
}
