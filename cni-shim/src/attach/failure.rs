//! Failures of the layers below, in the codes of the specification and our own.

use crate::{
    cni::{CniError, Code},
    journal::JournalError,
    wiring::WiringError,
};
use ipam_api::wire::{Problem, ProblemType};

impl From<JournalError> for CniError {
    fn from(error: JournalError) -> Self {
        let (code, msg) = match &error {
            JournalError::OtherNode { .. } | JournalError::OtherDirectories { .. } => {
                (Code::InvalidConfig, "the journal cannot be used")
            }
            JournalError::Answer(_) => (Code::Refused, "the service's answer cannot be used"),
            _ => (Code::Journal, "the journal cannot be used"),
        };
        Self::new(code, msg).details(error.to_string())
    }
}

impl From<WiringError> for CniError {
    fn from(error: WiringError) -> Self {
        let (code, msg) = match &error {
            WiringError::NetnsIsHost { .. } => (Code::InvalidNetns, "CNI_NETNS is not valid"),
            WiringError::NetnsGone { .. } | WiringError::NetnsUnusable { .. } => {
                (Code::Environment, "CNI_NETNS is not valid")
            }
            WiringError::InterfaceExists { .. } => (Code::Environment, "CNI_IFNAME is taken"),
            WiringError::NoUplink { .. } => (Code::InvalidConfig, "uplink is not valid"),
            error if error.is_transient() => (Code::TryAgain, "the kernel could not do it now"),
            _ => (Code::Datapath, "the pod's interface cannot be wired"),
        };
        Self::new(code, msg).details(error.to_string())
    }
}

/// What a refusal of the service is to the runtime.
pub(super) fn refused(problem: &Problem) -> CniError {
    let (code, msg) = match problem.kind {
        ProblemType::StaleClaim => (Code::StaleClaim, "the service no longer knows this node's claim"),
        ProblemType::Exhausted | ProblemType::NoContiguousBlock => {
            (Code::Exhausted, "the service has no address for this pod")
        }
        _ => (Code::Refused, "the service refused"),
    };
    CniError::new(code, msg).details(problem.detail.clone())
}

/// An error of DEL in words that no runtime takes for "nothing was left to do":
/// go-cni counts a text with one of these as success and does not try again.
pub(crate) fn retriable(mut error: CniError) -> CniError {
    for text in [&mut error.msg, &mut error.details] {
        for taken in ["not found", "no such file or directory"] {
            while let Some(at) = text.to_ascii_lowercase().find(taken) {
                text.replace_range(at..at + taken.len(), "missing");
            }
        }
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retriable_failure_does_not_read_like_a_harmless_one() {
        let error =
            CniError::new(Code::Io, "lock: No such file or directory").details("x Not Found, not found");
        let error = retriable(error);
        assert_eq!(error.msg, "lock: missing");
        assert_eq!(error.details, "x missing, missing");
    }

    #[test]
    fn refusals_have_our_own_codes() {
        let code = |kind| refused(&Problem::new(kind, "x")).code.number();
        assert_eq!(code(ProblemType::StaleClaim), 101);
        assert_eq!(code(ProblemType::Exhausted), 102);
        assert_eq!(code(ProblemType::AddressTaken), 100);
    }
}
