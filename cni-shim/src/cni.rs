//! The CNI specification's side of the plugin: what arrives by environment and
//! standard input, and what leaves by standard output. Pure.

pub(crate) mod args;
pub(crate) mod env;
pub(crate) mod error;
/// The configuration that a runtime hands over on standard input.
pub mod netconf;
pub(crate) mod result;
pub(crate) mod version;

mod go_json;
mod port_wishes;
mod valid;
mod wishes;

pub use args::CniArgs;
pub use env::{Invocation, Verb};
pub use error::{CniError, Code};
pub use netconf::{NetConf, WhenUnreachable};
pub use port_wishes::chains_portmap;
pub use result::{Dns, Interface, Ip, PluginResult, Route};
pub use valid::ValidAttachments;
pub use version::SpecVersion;
pub use wishes::{WishedIps, Wishes};
