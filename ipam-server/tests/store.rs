//! The store's planning side, its tokens and events, on a database file of its own.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "store/attack.rs"]
mod attack;
#[path = "store/claims.rs"]
mod claims;
#[path = "store/doctor.rs"]
mod doctor;
#[path = "store/dump.rs"]
mod dump;
#[path = "store/events.rs"]
mod events;
#[path = "common/filled.rs"]
mod filled;
#[path = "store/lack.rs"]
mod lack;
#[path = "store/nodes.rs"]
mod nodes;
#[path = "store/pools.rs"]
mod pools;
#[path = "store/random.rs"]
mod random;
#[path = "store/recovery.rs"]
mod recovery;
#[path = "store/replace.rs"]
mod replace;
#[path = "store/reservations.rs"]
mod reservations;
#[path = "store/resize.rs"]
mod resize;
#[path = "store/subnets.rs"]
mod subnets;
#[path = "store/support.rs"]
mod support;
#[path = "store/tokens.rs"]
mod tokens;
#[path = "store/upkeep.rs"]
mod upkeep;
#[path = "store/usage.rs"]
mod usage;
#[path = "store/views.rs"]
mod views;
#[path = "store/vnets.rs"]
mod vnets;
