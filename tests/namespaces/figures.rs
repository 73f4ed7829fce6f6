//! Figures that a test claims and reports.

use anyhow::{Context, Result, ensure};
use std::{net::IpAddr, time::Duration};
use vnet_tests::lab::{Echo, Lab};

/// The first packet to a new pod may take this long.
const FIRST_PACKET: Duration = Duration::from_millis(5);

/// First packets and what they took.
#[derive(Debug, Default)]
pub(crate) struct FirstPackets {
    seen: Vec<(IpAddr, Duration)>,
}

impl FirstPackets {
    /// Sends the plain VM's very first packet to an address.
    pub(crate) fn send(&mut self, lab: &Lab, to: IpAddr) -> Result<()> {
        let time = lab.vm.ping(to).and_then(Echo::time).with_context(|| format!("first packet to {to}"))?;
        self.seen.push((to, time));
        Ok(())
    }

    /// Prints them and fails if one took too long.
    pub(crate) fn all_quick(&self) -> Result<()> {
        for (to, time) in &self.seen {
            println!("first packet to {to}: {time:?}");
        }
        let slow: Vec<_> = self.seen.iter().filter(|(_, time)| *time >= FIRST_PACKET).collect();
        ensure!(slow.is_empty(), "first packets slower than {FIRST_PACKET:?}: {slow:?}");
        Ok(())
    }
}
