//! Points at which a test stops ADD, DEL, a sync, an installation (feature `fault-points`; nothing in a release).
//!
//! `CNI_SHIM_FAULT=NAME` ends the process there as SIGKILL would;
//! `CNI_SHIM_FAULT=NAME!` is a defect that is found there (a panic), and
//! `CNI_SHIM_FAULT=NAME:PATH` makes `PATH.reached` there and waits as long as `PATH` exists.

/// The points, in the order in which each verb passes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Point {
    /// ADD: both locks and the pod's namespace are there, nothing is picked.
    AddBeforeIntent,
    /// ADD: the entry is made, nobody has heard of it.
    AddAfterIntent,
    /// ADD, and whoever else sets the node up: its rules were made anew, nothing more is done.
    SetUpAfterRules,
    /// ADD: the pod is wired; the service's answer may be there or not.
    AddAfterWire,
    /// ADD: the service has answered, the entry does not know yet.
    AddAfterPut,
    /// ADD: the entry is `wired`, nothing is printed.
    AddAfterWired,
    /// ADD that failed: what it made is unwired, its entry still lives.
    UndoAfterUnwire,
    /// ADD that failed: its entry is `released`, the service has not heard of it.
    UndoAfterReleased,
    /// DEL: the entry is `releasing`, the pod is wired.
    DelAfterReleasing,
    /// DEL: the pod is unwired, the entry still lives.
    DelAfterUnwire,
    /// DEL: the entry is `released`, the service has not heard of it.
    DelAfterReleased,
    /// DEL: the service has answered, the entry does not know yet.
    DelAfterDelete,
    /// GC: what there is in the journal is known, nothing is taken away. Each attachment that is then
    /// passes the points of a DEL.
    GcAfterBegin,
    /// Sweep: what looks like a leak for long enough is known, nothing is locked. It then passes the points of a DEL.
    SweepBeforeLock,
    /// Agent: ports that lead to nobody are known, and none of them is gone.
    KeepBeforeWithdraw,
    /// Forgetting, after a DEL: nothing is forgotten.
    ForgetBeforeLooking,
    /// Sync: the journal is listed, nothing is sent.
    SyncAfterListing,
    /// Sync: the service has answered, no entry knows yet.
    SyncAfterAnswer,
    /// A lost journal: its entries are there again, its header is not.
    RebuildBeforeHeader,
    /// Installing a file: what was found is written down, nothing is changed.
    InstallAfterNote,
    /// Installing a file: it is written, but not under its name.
    InstallAfterDraft,
    /// Installing a file: it is in its place.
    InstallAfterPlace,
    /// Installing: the node is set up, its runtime does not know.
    InstallAfterSetUp,
    /// Uninstalling: a file is as it was found, and still written down.
    UninstallAfterFile,
    /// Uninstalling: the files are as they were, all else is not.
    UninstallAfterFiles,
    /// Uninstalling: the rules are gone.
    UninstallAfterRules,
    /// Uninstalling: which sysctls are put back is decided and written down.
    UninstallAfterDecision,
    /// Uninstalling: all is as it was, and still written down.
    UninstallAfterSysctls,
}

#[cfg(feature = "fault-points")]
impl Point {
    fn name(self) -> &'static str {
        match self {
            Self::AddBeforeIntent => "add-before-intent",
            Self::AddAfterIntent => "add-after-intent",
            Self::SetUpAfterRules => "set-up-after-rules",
            Self::AddAfterWire => "add-after-wire",
            Self::AddAfterPut => "add-after-put",
            Self::AddAfterWired => "add-after-wired",
            Self::UndoAfterUnwire => "undo-after-unwire",
            Self::UndoAfterReleased => "undo-after-released",
            Self::DelAfterReleasing => "del-after-releasing",
            Self::DelAfterUnwire => "del-after-unwire",
            Self::DelAfterReleased => "del-after-released",
            Self::DelAfterDelete => "del-after-delete",
            Self::GcAfterBegin => "gc-after-begin",
            Self::SweepBeforeLock => "sweep-before-lock",
            Self::KeepBeforeWithdraw => "keep-before-withdraw",
            Self::ForgetBeforeLooking => "forget-before-looking",
            Self::SyncAfterListing => "sync-after-listing",
            Self::SyncAfterAnswer => "sync-after-answer",
            Self::RebuildBeforeHeader => "rebuild-before-header",
            Self::InstallAfterNote => "install-after-note",
            Self::InstallAfterDraft => "install-after-draft",
            Self::InstallAfterPlace => "install-after-place",
            Self::InstallAfterSetUp => "install-after-set-up",
            Self::UninstallAfterFile => "uninstall-after-file",
            Self::UninstallAfterFiles => "uninstall-after-files",
            Self::UninstallAfterRules => "uninstall-after-rules",
            Self::UninstallAfterDecision => "uninstall-after-decision",
            Self::UninstallAfterSysctls => "uninstall-after-sysctls",
        }
    }
}

/// Stops here if a test asks for it.
#[cfg(feature = "fault-points")]
pub fn at(point: Point) {
    use nix::sys::signal::{Signal, raise};
    let Ok(asked) = std::env::var("CNI_SHIM_FAULT") else { return };
    assert!(asked.strip_suffix('!') != Some(point.name()), "asked for at {}", point.name());
    match asked.split_once(':') {
        None if asked == point.name() => {
            // Nothing gets to clean up, as when the runtime's patience ends.
            let _ = raise(Signal::SIGKILL);
        }
        Some((name, path)) if name == point.name() => {
            let _ = std::fs::write(format!("{path}.reached"), "");
            while std::fs::exists(path).unwrap_or(false) {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        }
        _ => {}
    }
}

/// Nothing: this build has no fault points.
#[cfg(not(feature = "fault-points"))]
pub fn at(_: Point) {}
