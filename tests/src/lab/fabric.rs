use super::{Addressing, Binaries, Machine};
use anyhow::Result;
use std::net::IpAddr;

/// Offset of the gateway, which is the fabric itself.
const GATEWAY: u64 = 1;

/// The layer-2 segment: a bridge in a namespace of its own that also is the gateway.
#[derive(Debug)]
pub struct Fabric {
    machine: Machine,
    addressing: Addressing,
}

impl Fabric {
    /// Builds it without ports.
    pub fn build(addressing: Addressing, binaries: &Binaries) -> Result<Self> {
        let machine = Machine::boot("fabric", binaries)?;
        machine.script(
            "ip link add br0 address 02:00:00:00:00:01 type bridge stp_state 0 forward_delay 0 mcast_snooping 0
             ip link set br0 up",
        )?;
        for gateway in addressing.interfaces(GATEWAY) {
            machine.script(&format!("ip address add {gateway} dev br0"))?;
        }
        Ok(Self { machine, addressing })
    }

    /// The addresses it gives out.
    #[must_use]
    pub fn addressing(&self) -> &Addressing {
        &self.addressing
    }

    /// Connects a machine by `eth0`, with the addresses at `offset` and a default route per family.
    pub fn plug(&self, machine: &Machine, offset: u64) -> Result<()> {
        let pid = machine.pid();
        // The MAC is the offset's, so that a machine keeps it over a reboot.
        let [.., high, low] = offset.to_be_bytes();
        // Outside the fabric's PID namespace, where the machine's PID means something.
        self.machine.script_net(&format!(
            "ip link add p{offset} type veth peer name eth0 address 02:00:00:01:{high:02x}:{low:02x} netns {pid}
             ip link set p{offset} master br0 up"
        ))?;
        let addresses: String = self
            .addressing
            .interfaces(offset)
            .iter()
            .map(|address| format!("ip address add {address} dev eth0\n"))
            .collect();
        let routes: String = self
            .addressing
            .addresses(GATEWAY)
            .iter()
            .map(|gateway| format!("ip {} route add default via {gateway} dev eth0\n", family(gateway)))
            .collect();
        machine.script(&format!("ip link set eth0 up\n{addresses}{routes}"))?;
        Ok(())
    }

    /// Takes a machine's cable out.
    pub fn unplug(&self, offset: u64) -> Result<()> {
        self.machine.script(&format!("ip link delete p{offset}"))?;
        Ok(())
    }

    /// The fabric as a machine, for looking at what crosses it.
    #[must_use]
    pub fn machine(&self) -> &Machine {
        &self.machine
    }
}

fn family(address: &IpAddr) -> &'static str {
    if address.is_ipv4() { "-4" } else { "-6" }
}
