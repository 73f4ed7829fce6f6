//! The lab itself: what the other tests stand on.

use anyhow::Result;
use std::{fs, path::Path};
use vnet_tests::lab::{Addressing, Binaries, Fabric, Families, Machine, require_root};

#[test]
fn machines_reach_each_other_and_vanish_when_dropped() -> Result<()> {
    require_root()?;
    let binaries = Binaries::find()?;
    let fabric = Fabric::build(Addressing::new(Families::Dual), &binaries)?;
    let one = Machine::boot("one", &binaries)?;
    let two = Machine::boot("two", &binaries)?;
    fabric.plug(&one, 10)?;
    fabric.plug(&two, 11)?;
    for address in fabric.addressing().addresses(11).into_iter().chain(fabric.addressing().addresses(1)) {
        one.ping(address)?.time()?;
    }
    let processes = [fabric.machine().pid(), one.pid(), two.pid()];
    drop((one, two, fabric));
    for pid in processes {
        assert!(!Path::new("/proc").join(pid.to_string()).exists(), "process {pid} still there");
    }
    assert!(!fs::read_to_string("/proc/net/dev")?.contains("br0"), "a bridge outside the lab's namespaces");
    Ok(())
}
