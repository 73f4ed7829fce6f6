use anyhow::{Result, ensure};
use std::{
    io::{self, Write},
    process::{Command, Output},
    time::{Duration, Instant},
};
use vnet_tests::lab::{Lab, Node, run_full};

/// A story told on standard output, and the claims it makes on its way.
#[derive(Debug)]
pub(crate) struct Story {
    began: Instant,
    chapters: usize,
    claims: Vec<Claim>,
}

#[derive(Debug)]
struct Claim {
    text: String,
    figure: String,
    holds: bool,
}

impl Story {
    /// Begins it.
    pub(crate) fn begin() -> Self {
        Self { began: Instant::now(), chapters: 0, claims: Vec::new() }
    }

    /// A numbered heading.
    pub(crate) fn chapter(&mut self, title: &str) -> Result<()> {
        self.chapters += 1;
        let heading = format!("{}. {title}", self.chapters);
        writeln!(io::stdout(), "\n{heading}\n{}", "-".repeat(heading.chars().count()))?;
        Ok(())
    }

    /// A sentence.
    pub(crate) fn say(&self, text: &str) -> Result<()> {
        writeln!(io::stdout(), "{text}")?;
        Ok(())
    }

    /// Runs `ipamctl` on the management VM and shows what was typed and what came.
    pub(crate) fn ctl(&self, lab: &Lab, typed: &str) -> Result<String> {
        self.say(&format!("\nmanagement$ ipamctl {typed}"))?;
        self.shown(&mut lab.server.ctl_command(&words(typed)))
    }

    /// Runs `cni-shim` by hand on a node and shows what was typed and what came.
    pub(crate) fn shim(&self, node: &Node, typed: &str) -> Result<()> {
        self.say(&format!("\n{}$ cni-shim {typed} --config {}", node.name(), node.config()))?;
        self.shown(&mut node.shim_command(&words(typed)))?;
        Ok(())
    }

    /// Something that is now shown to hold, or not to.
    pub(crate) fn claim(&mut self, text: &str, figure: &str, holds: bool) -> Result<()> {
        if !holds {
            self.say(&format!("!! does not hold: {text} ({figure})"))?;
        }
        self.claims.push(Claim { text: text.to_owned(), figure: figure.to_owned(), holds });
        Ok(())
    }

    /// Headings so far.
    pub(crate) fn chapters(&self) -> usize {
        self.chapters
    }

    /// Time since it began.
    pub(crate) fn took(&self) -> Duration {
        self.began.elapsed()
    }

    /// Tells why it ends before its end.
    pub(crate) fn interrupted(&self, error: &anyhow::Error) {
        eprintln!("\nThe demo stopped here: {error:#}");
    }

    /// Prints all claims with their figures; whether all hold.
    pub(crate) fn summary(&self) -> bool {
        let width = self.claims.iter().map(|claim| claim.text.chars().count()).max().unwrap_or(0);
        println!("\nSummary\n-------");
        for Claim { text, figure, holds } in &self.claims {
            println!("{} {text:width$}  {figure}", if *holds { "yes" } else { "NO " });
        }
        self.claims.iter().all(|claim| claim.holds)
    }

    /// Shows what a command prints, what it says to people first.
    fn shown(&self, command: &mut Command) -> Result<String> {
        let Output { status, stdout, stderr } = run_full(command)?;
        let said = [stderr, stdout].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        for line in said.lines() {
            self.say(&format!("  {line}"))?;
        }
        ensure!(status.success(), "the last command failed, {status}");
        Ok(said)
    }
}

/// `0.08 ms`
pub(crate) fn milliseconds(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}

/// Splits as a shell does, double quotes included.
fn words(typed: &str) -> Vec<&str> {
    typed
        .split('"')
        .enumerate()
        .flat_map(|(index, part)| if index % 2 == 1 { vec![part] } else { part.split_whitespace().collect() })
        .collect()
}
