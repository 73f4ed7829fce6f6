//! The CNI plugin and node agent.
//!
//! * [`plugin`] and [`by_hand`]: what `main` calls.
//! * [`agent`]: what stays on a node and keeps the datapath true.
//! * [`attach`]: the stories of each verb and of a sync.
//! * [`cni`]: the specification's words, pure.
//! * [`install`]: what is put on a node for its runtime, and taken away again.
//! * [`journal`]: the node's own record of its attachments.
//! * [`mac`]: what interfaces are told by.
//! * [`ports`]: what a node's ports lead to.
//! * [`service`]: calls to the service, and what counts as an answer.
//! * [`tally`]: what the node's verbs have done, for metrics.
//! * [`wiring`]: netlink, one file a mode.

pub mod agent;
pub mod attach;
pub mod by_hand;
pub mod cni;
pub mod fault;
pub mod install;
pub mod journal;
pub mod log;
pub mod mac;
pub mod plugin;
pub mod ports;
pub mod service;
pub mod tally;
pub mod wiring;
