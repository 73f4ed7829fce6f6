//! The node's own record of its attachments.
//!
//! One journal a node, whatever the number of networks: one lock, one claim,
//! one count of boots, one file an address. Nothing here talks to the service
//! or the kernel's networking; whoever holds the lock does neither.

pub(crate) mod attachment_lock;
pub(crate) mod boot;
pub(crate) mod claim;
pub(crate) mod ended;
pub(crate) mod entry;
pub(crate) mod error;
pub mod files;
pub(crate) mod leaving;
pub(crate) mod machine;
pub(crate) mod networks;
pub mod pick;
pub(crate) mod picture;
pub mod rebuild;
pub(crate) mod store;
pub(crate) mod strangers;
pub(crate) mod telling;
pub(crate) mod undo;

pub use attachment_lock::AttachmentLock;
pub use boot::Uptime;
pub use claim::{ClaimFile, Forgotten, Standing};
pub use ended::Ended;
pub use entry::{Conflict, Entry};
pub use error::JournalError;
pub use leaving::{Attaching, Leaving};
pub use machine::{Card, Firmware, Machine};
pub use networks::{NetworkAsks, Networks};
pub use pick::{Past, Pick};
pub use picture::{Picture, Unsound};
pub use rebuild::Found;
pub use store::{Header, Journal, Locked, Readiness};
pub use strangers::{News, Stranger, Strangers};
pub use telling::{Listed, Listing, Outcome, Refusal, Settled};
pub use undo::{FileWas, FoundFile, Places, SysctlWas, Undo};
