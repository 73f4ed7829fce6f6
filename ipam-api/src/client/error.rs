use crate::wire::{Problem, ProblemType};
use std::time::Duration;

/// Why nothing of ours was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unreachability {
    /// No connection came about.
    NoConnection,
    /// TLS did not come about: one end does not trust the other, or they do not understand each other.
    Tls,
    /// No whole answer in time.
    Timeout,
    /// The connection broke, or what came over it is not HTTP.
    Broken,
}

/// Why a request has not the answer asked for.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClientError {
    /// The service answered with one of its problems.
    #[error("{}", problem.detail)]
    Problem {
        /// The HTTP status.
        status: u16,
        /// What it says.
        problem: Box<Problem>,
        /// How long to wait before another try, where the service says so.
        retry_after: Option<Duration>,
    },
    /// No answer: nobody can say whether the request was carried out.
    #[error("cannot reach {server}: {reason}")]
    Unreachable {
        /// The service asked.
        server: String,
        /// In which way.
        how: Unreachability,
        /// The cause, for people.
        reason: String,
    },
    /// An answer that is not the service's: another program's, a proxy's, or one this client is too old for.
    #[error("{server} gave an answer that is not the service's ({status}: {reason})")]
    Unexpected {
        /// The service asked.
        server: String,
        /// The HTTP status.
        status: u16,
        /// Why it is not.
        reason: String,
        /// The start of the body.
        excerpt: String,
    },
    /// The service's address cannot be used.
    #[error("server {server:?} cannot be used: {reason}")]
    InvalidServer {
        /// What was given.
        server: String,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// Certificates or a private key that TLS cannot use.
    #[error("{reason}")]
    InvalidTls {
        /// What is wrong with them and what would be right; never what they are.
        reason: String,
    },
    /// The request has something that HTTP cannot carry.
    #[error("the request cannot be sent: {reason}")]
    Unsendable {
        /// What is wrong with it.
        reason: String,
    },
}

impl ClientError {
    /// The service's problem, if it is one.
    #[must_use]
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Problem { problem, .. } => Some(problem),
            _ => None,
        }
    }

    /// The kind of the service's problem, if it is one.
    #[must_use]
    pub fn kind(&self) -> Option<ProblemType> {
        self.problem().map(|problem| problem.kind)
    }

    /// The problem of a refusal: 409 or 507 with one of our types. A node goes
    /// on from its block after any other error (protocol, P5).
    #[must_use]
    pub fn refusal(&self) -> Option<&Problem> {
        match self {
            Self::Problem { status: 409 | 507, problem, .. } => Some(problem),
            _ => None,
        }
    }
}
