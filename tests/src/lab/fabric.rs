use super::{Addressing, Binaries, Machine, until};
use anyhow::Result;
use std::{net::IpAddr, time::Duration};

/// Offset of the gateway, which is the fabric itself.
const GATEWAY: u64 = 1;
/// Longest wait for a cable to carry packets.
const CARRIES_WITHIN: Duration = Duration::from_secs(15);
/// A port's state in sysfs: `BR_STATE_FORWARDING` of the kernel.
const FORWARDING: &str = "3";

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
        self.bring_up(machine, offset)
    }

    /// What a machine's network manager does when the cable is in: `eth0` up, with its addresses and a default
    /// route per family, whatever of that is there already.
    pub fn bring_up(&self, machine: &Machine, offset: u64) -> Result<()> {
        let addresses: String = self
            .addressing
            .interfaces(offset)
            .iter()
            .map(|address| format!("ip address replace {address} dev eth0\n"))
            .collect();
        let routes: String = self
            .addressing
            .addresses(GATEWAY)
            .iter()
            .map(|gateway| format!("ip {} route replace default via {gateway} dev eth0\n", family(gateway)))
            .collect();
        machine.script(&format!("ip link set eth0 up\n{addresses}{routes}"))?;
        self.until_carrying(machine, offset)
    }

    /// Waits for what the kernel does some time after the commands, however busy it is: it brings both ends into
    /// service, and makes new IPv6 addresses answer, which are `tentative` until then. What is sent before is lost.
    fn until_carrying(&self, machine: &Machine, offset: u64) -> Result<()> {
        let port = format!("/sys/class/net/p{offset}/brport/state");
        until("the cable carries packets", CARRIES_WITHIN, || {
            let forwards = self.machine.read(&port).trim() == FORWARDING;
            let up = machine.read("/sys/class/net/eth0/operstate").trim() == "up";
            let answers = |machine: &Machine, dev| -> Result<bool> {
                Ok(machine.script(&format!("ip -6 address show dev {dev} tentative"))?.is_empty())
            };
            let carries = forwards && up && answers(machine, "eth0")? && answers(&self.machine, "br0")?;
            Ok(carries.then_some(()))
        })
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
