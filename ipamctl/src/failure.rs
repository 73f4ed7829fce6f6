//! How a command ends that did not do what was asked.

use crate::output::table;
use ipam_api::{
    client::{ClientError, Unreachability},
    wire::{Problem, ProblemType, SubnetShortage},
};
use std::{
    fmt::Write as _,
    io::{self, Write as _},
    process::ExitCode,
};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The service did not do it, or was not there.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// It does not fit: said by the service as a refusal.
    #[error("{}", .0.detail)]
    Refused(Box<Problem>),
    /// It does not fit: said by a plan.
    #[error("{sentence}")]
    DoesNotFit { sentence: String, shortages: Vec<SubnetShortage> },
    /// The command line contradicts itself.
    #[error("{0}")]
    Usage(String),
    /// Whoever read stdout has gone away.
    #[error("stdout is closed")]
    StdoutClosed,
    /// Everything else.
    #[error("{0}")]
    Other(String),
}

impl Failure {
    /// The failure behind an error of stdout.
    #[expect(clippy::needless_pass_by_value, reason = "made for map_err")]
    pub(crate) fn stdout(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::StdoutClosed,
            _ => Self::Other(format!("cannot write to stdout: {error}")),
        }
    }

    /// The failure of a change whose only lack can be room: a plan that does not fit.
    pub(crate) fn of_plan(error: ClientError) -> Self {
        match error {
            ClientError::Problem { problem, .. }
                if matches!(problem.kind, ProblemType::Exhausted | ProblemType::NoContiguousBlock) =>
            {
                Self::Refused(problem)
            }
            other => Self::Client(other),
        }
    }

    /// Says it on stderr; the status to end with.
    pub(crate) fn report(self) -> ExitCode {
        if matches!(self, Self::StdoutClosed) {
            return ExitCode::SUCCESS;
        }
        let _ = io::stderr().write_all(self.text().as_bytes());
        ExitCode::from(self.status())
    }

    fn status(&self) -> u8 {
        match self {
            Self::StdoutClosed => 0,
            Self::Client(ClientError::InvalidServer { .. }) | Self::Usage(_) => 2,
            Self::Client(_) | Self::Other(_) => 1,
            Self::DoesNotFit { .. } | Self::Refused(_) => 3,
        }
    }

    fn text(&self) -> String {
        let mut text = format!("error: {self}");
        match self {
            Self::Client(error) => text.push_str(cure(error)),
            Self::Refused(_) | Self::DoesNotFit { .. } => {}
            Self::Usage(_) | Self::StdoutClosed | Self::Other(_) => {}
        }
        text.push('\n');
        match self {
            Self::Refused(problem) => describe(&mut text, problem),
            Self::Client(error) => {
                if let Some(problem) = error.problem() {
                    describe(&mut text, problem);
                }
            }
            Self::DoesNotFit { shortages, .. } => text.push_str(&shortage_table(shortages)),
            Self::Usage(_) | Self::StdoutClosed | Self::Other(_) => {}
        }
        text
    }
}

/// What to do about an error whose own words do not say it.
fn cure(error: &ClientError) -> &'static str {
    match error {
        ClientError::Unreachable { how: Unreachability::NoConnection, .. } => {
            ": start the service (ipam-server serve), or name it with --server or IPAM_SERVER"
        }
        ClientError::Unreachable { how: Unreachability::Tls, .. } => {
            ": check that --server is the service by the name that its certificate has, and --ca-file its CA's; \
             --cert-file has to be from the CA that the service takes node certificates from"
        }
        ClientError::Unreachable { how: Unreachability::Broken, server, .. }
            if server.starts_with("http:") =>
        {
            ": look whether it was done, then run the command again; a service with TLS wants https://"
        }
        ClientError::Unreachable { .. } => {
            ": nobody can say whether it was done; look, then run the command again"
        }
        ClientError::Unexpected { .. } => ": check that --server or IPAM_SERVER names the address service",
        ClientError::Problem { .. }
        | ClientError::InvalidServer { .. }
        | ClientError::InvalidTls { .. }
        | ClientError::Unsendable { .. } => "",
    }
}

/// The particulars of a problem: fields, then numbers.
fn describe(text: &mut String, problem: &Problem) {
    // A single one usually is the sentence itself.
    for error in problem.errors.iter().filter(|error| !problem.detail.contains(&error.detail)) {
        let _ = writeln!(text, "  {}: {}", error.pointer, error.detail);
    }
    if !problem.subnets.is_empty() {
        text.push_str(&shortage_table(&problem.subnets));
        return;
    }
    let numbers = [
        ("need", problem.need),
        ("have", problem.have),
        ("largest free", problem.largest_free),
        ("nodes that fit", problem.nodes_that_fit),
    ];
    let numbers: Vec<String> =
        numbers.iter().filter_map(|(name, number)| number.map(|number| format!("{name} {number}"))).collect();
    if !numbers.is_empty() {
        let _ = writeln!(text, "  {}", numbers.join(", "));
    }
}

fn shortage_table(shortages: &[SubnetShortage]) -> String {
    if shortages.is_empty() {
        return String::new();
    }
    let header = ["SUBNET", "NEED", "HAVE", "LARGEST FREE", "FIT WITH SURGE"];
    let rows = shortages.iter().map(|lack| {
        vec![
            lack.subnet.to_string(),
            lack.need.to_string(),
            lack.have.to_string(),
            lack.largest_free.to_string(),
            lack.nodes_that_fit.to_string(),
        ]
    });
    table::grid(&header, rows)
}
