//! The node agent: what others take away is back before long, and until then CHECK says so.

use anyhow::{Context, Result, ensure};
use std::{
    net::IpAddr,
    time::{Duration, Instant},
};
use vnet_tests::lab::{Attachment, Echo, Families, Lab, Machine, Node, Pod, PoolShape, until};

/// The promise: traffic is back by then.
const PROMISED: Duration = Duration::from_secs(30);
/// What the kernel tells of is seen to at once, not with the next round; this machine may be busy.
const AT_ONCE: Duration = Duration::from_secs(10);
/// Often enough for a test to see a round, seldom enough to tell it from what is done at once.
const EVERY_SECOND: [&str; 2] = ["--every", "1"];

/// A node with one pod, and who talks to it.
struct Town {
    lab: Lab,
    pod: Pod,
    attachment: Attachment,
}

impl Town {
    fn new() -> Result<Self> {
        let lab = Lab::with_ledger(Families::Dual, 1, PoolShape::default())?;
        let pod = lab.nodes[0].sandbox("web-1")?;
        let attachment = lab.nodes[0].add(&pod)?;
        let town = Self { lab, pod, attachment };
        ensure!(town.talks()?, "the pod does not answer as it was made");
        Ok(town)
    }

    fn node(&self) -> &Node {
        &self.lab.nodes[0]
    }

    fn sh(&self, script: &str) -> Result<String> {
        self.node().machine().script(script)
    }

    /// Whether the pod answers in both families to one who has to ask where it is, and reaches him.
    fn talks(&self) -> Result<bool> {
        for address in &self.attachment.addresses {
            forget_neighbours(&self.lab.vm)?;
            if self.lab.vm.ping(*address)? == Echo::Lost {
                return Ok(false);
            }
        }
        for address in self.lab.fabric.addressing().addresses(vnet_tests::lab::PLAIN_VM) {
            if self.node().ping_from(&self.pod, address)? == Echo::Lost {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// CHECK fails, and names what is wrong.
    fn check_names(&self, words: &[&str]) -> Result<()> {
        let reply = self.node().plugin("CHECK", &self.pod, Some(&self.attachment.result))?;
        let error = reply.into_error()?;
        ensure!(error.code == 104, "not as it was made is 104: {error:?}");
        for word in words {
            ensure!(error.text.contains(word), "CHECK does not say {word:?}: {}", error.text);
        }
        Ok(())
    }

    fn until_it_talks(&self, within: Duration) -> Result<Duration> {
        let began = Instant::now();
        until("traffic is back", within, || Ok(self.talks()?.then_some(())))?;
        let took = began.elapsed();
        self.node().check(&self.pod, &self.attachment)?;
        Ok(took)
    }

    /// Breaks something while nobody looks, hears of it by CHECK, and has the agent mend it. Says how long that took.
    fn mended(&self, breaks: impl FnOnce() -> Result<()>, words: &[&str]) -> Result<Duration> {
        let agent = self.node().agent(&EVERY_SECOND)?;
        agent.freeze()?;
        breaks()?;
        self.check_names(words)?;
        agent.thaw()?;
        let took = self.until_it_talks(PROMISED)?;
        println!("{words:?}: back after {took:?}");
        agent.stop()?;
        Ok(took)
    }
}

fn forget_neighbours(machine: &Machine) -> Result<()> {
    machine.script("ip neighbour flush all; ip -6 neighbour flush all").map(|_| ())
}

#[test]
fn an_uplink_that_was_down_answers_for_pods_again() -> Result<()> {
    let town = Town::new()?;
    let breaks = || {
        town.node().flap(&town.lab.fabric)?;
        ensure!(!town.talks()?, "the kernel kept the proxies: nothing was broken");
        Ok(())
    };
    town.mended(breaks, &["no longer answers for 10.240.", "no longer answers for fd00:10::"])?;
    Ok(())
}

/// The kernel tells of links and routes: a round comes at once, however long the pause between two is.
#[test]
fn what_the_kernel_tells_of_is_mended_at_once() -> Result<()> {
    let town = Town::new()?;
    let agent = town.node().agent(&["--every", "60"])?;
    town.node().flap(&town.lab.fabric)?;
    let uplink = town.until_it_talks(AT_ONCE)?;
    for address in &town.attachment.addresses {
        town.sh(&format!("ip route delete {address}"))?;
        town.until_it_talks(AT_ONCE)?;
    }
    println!("uplink back after {uplink:?}");
    ensure!(agent.log().contains("put back"), "it says what it does: {}", agent.log());
    Ok(())
}

/// A service that hangs keeps the agent from nothing.
#[test]
fn a_silent_service_delays_no_repair() -> Result<()> {
    const MARKER: &str = "/run/cni-shim/unreachable";
    let town = Town::new()?;
    town.lab.server.freeze()?;
    // What nobody has heard of: something to say.
    let unheard = town.node().sandbox("unheard")?;
    town.node().add(&unheard)?;
    // A failure so long ago that it is time to ask again; whoever does so notes that.
    let long_ago = r#"{"until":1,"since":1,"reason":"long ago"}"#;
    town.node().machine().write(MARKER, long_ago.as_bytes())?;
    let marker = || town.node().machine().read(MARKER);
    let agent = town.node().agent(&EVERY_SECOND)?;
    until("the agent asks", PROMISED, || Ok((marker() != long_ago).then_some(())))?;
    let asking = marker();
    town.node().flap(&town.lab.fabric)?;
    town.until_it_talks(AT_ONCE)?;
    ensure!(marker() == asking, "the agent waited for no answer all the while: nothing was shown");
    town.lab.server.thaw()?;
    until("the agent tells the service", PROMISED, || {
        Ok(town.lab.agree(town.node()).is_ok_and(|count| count == 2).then_some(()))
    })?;
    agent.stop()
}

#[test]
fn flushed_rules_are_back() -> Result<()> {
    let town = Town::new()?;
    let rules = || town.sh("nft list ruleset | sed 's/packets [0-9]* bytes [0-9]*//'");
    let before = rules()?;
    let breaks = || {
        town.sh("nft flush ruleset")?;
        ensure!(rules()? != before, "nothing was flushed");
        Ok(())
    };
    // Without the rules the pod talks, with anybody's address: what is broken is the guard, and the rules say it.
    let agent = town.node().agent(&EVERY_SECOND)?;
    agent.freeze()?;
    breaks()?;
    town.check_names(&["rules of table inet vnet_ipam are missing"])?;
    agent.thaw()?;
    until("the rules are back", PROMISED, || Ok((rules()? == before).then_some(())))?;
    town.until_it_talks(PROMISED)?;
    Ok(())
}

#[test]
fn a_route_that_was_deleted_by_hand_is_back() -> Result<()> {
    let town = Town::new()?;
    let breaks = || {
        for address in &town.attachment.addresses {
            town.sh(&format!("ip route delete {address}"))?;
        }
        ensure!(!town.talks()?, "the routes were not needed");
        Ok(())
    };
    town.mended(breaks, &["route to 10.240.", "route to fd00:10::", "is gone"])?;
    Ok(())
}

#[test]
fn sysctls_and_neighbours_that_were_changed_are_as_they_were() -> Result<()> {
    let town = Town::new()?;
    let breaks = || {
        let [v4, v6] = town.attachment.addresses[..] else { anyhow::bail!("both families") };
        town.sh(&format!(
            "echo 0 >/proc/sys/net/ipv4/ip_forward; echo 0 >/proc/sys/net/ipv6/conf/all/forwarding
             echo 0 >/proc/sys/net/ipv6/conf/eth0/proxy_ndp
             ip neighbour delete proxy {v4} dev eth0; ip neighbour delete proxy {v6} dev eth0
             ip neighbour flush nud permanent; ip -6 neighbour flush nud permanent"
        ))?;
        ensure!(!town.talks()?, "nothing was broken");
        Ok(())
    };
    town.mended(breaks, &["ip_forward", "forwarding", "proxy_ndp", "no longer answers", "neighbour"])?;
    Ok(())
}

/// A proxy that somebody left behind takes the packets of whoever has the address next. The kernel answers by one of
/// IPv6 even where it has no way to the address but the one that the question came by.
#[test]
fn a_stale_proxy_does_not_stand_in_the_next_owners_way() -> Result<()> {
    let town = Town::new()?;
    let node: ipam_api::wire::Node = town.lab.server.ctl_json(&["node", "show", town.node().name()])?;
    let range = node.block.ranges.first().context("a block has a range")?;
    // The last of the block: no pod has it.
    let (v4, v6) = (range.last, IpAddr::from(range.last6.context("and both families")?));
    town.sh(&format!("ip neighbour add proxy {v4} dev eth0; ip neighbour add proxy {v6} dev eth0"))?;
    let vm = &town.lab.vm;
    let is_answered_for = || -> Result<bool> {
        forget_neighbours(vm)?;
        vm.ping(v6)?;
        Ok(vm.script(&format!("ip neighbour show {v6}"))?.contains("lladdr"))
    };
    ensure!(is_answered_for()?, "nobody answers for {v6}: nothing was broken");
    let agent = town.node().agent(&EVERY_SECOND)?;
    until("nobody answers for it", PROMISED, || Ok((!is_answered_for()?).then_some(())))?;
    let said = agent.log();
    for address in [v4, v6] {
        ensure!(said.contains(&format!("answered for {address}, which no pod has")), "it says so: {said}");
    }
    let owner = town.lab.server.machine();
    owner.script(&format!("ip address add {v6}/64 dev eth0"))?;
    until("the next owner answers", PROMISED, || {
        forget_neighbours(vm)?;
        Ok((vm.ping(v6)? != Echo::Lost).then_some(()))
    })?;
    ensure!(town.talks()?, "the pod's own proxies stayed");
    Ok(())
}

#[test]
fn an_uplink_that_went_and_came_is_taken_up() -> Result<()> {
    let town = Town::new()?;
    let mut agent = town.node().agent(&EVERY_SECOND)?;
    town.node().unplug(&town.lab.fabric)?;
    town.check_fails_without_uplink()?;
    // Some rounds without an uplink.
    until("it says what is missing", PROMISED, || {
        Ok((agent.log().matches("nothing could be looked at").count() >= 2).then_some(()))
    })?;
    ensure!(agent.ended()?.is_none(), "it stays: {}", agent.log());
    ensure!(agent.get("/livez")?.0 == 200, "it lives");
    town.node().plug(&town.lab.fabric)?;
    town.until_it_talks(PROMISED)?;
    agent.stop()
}

impl Town {
    fn check_fails_without_uplink(&self) -> Result<()> {
        let reply = self.node().plugin("CHECK", &self.pod, Some(&self.attachment.result))?;
        let error = reply.into_error()?;
        ensure!(error.text.contains("default route"), "CHECK says what is missing: {error:?}");
        Ok(())
    }
}

#[test]
fn an_agent_starts_before_claim_and_service_are_there() -> Result<()> {
    let lab = Lab::boot(Families::Dual, 1)?;
    lab.server.freeze()?;
    let node = &lab.nodes[0];
    let agent = node.agent(&EVERY_SECOND)?;
    until("it says that nobody answers", PROMISED, || {
        Ok(agent.log().contains("the service has not heard of everything").then_some(()))
    })?;
    ensure!(agent.get("/livez")?.0 == 200, "it lives without either: {}", agent.log());
    ensure!(agent.get("/metrics")?.1.contains("cni_shim_rounds_failed_total"), "and counts");
    lab.server.thaw()?;
    lab.lay_out(PoolShape::default())?;
    let pod = node.sandbox("web-1")?;
    // For as long as the agent's failure speaks for others, ADD asks to try again, which a runtime does.
    let attachment = until("a pod starts", PROMISED, || Ok(node.add(&pod).ok()))?;
    node.flap(&lab.fabric)?;
    until("traffic is back", PROMISED, || {
        forget_neighbours(&lab.vm)?;
        let answers = attachment.addresses.iter().map(|address| lab.vm.ping(*address));
        Ok((!answers.collect::<Result<Vec<_>>>()?.contains(&Echo::Lost)).then_some(()))
    })?;
    Ok(())
}

#[test]
fn a_second_agent_says_that_there_is_one() -> Result<()> {
    let lab = Lab::with_ledger(Families::V4, 1, PoolShape::default())?;
    let node = &lab.nodes[0];
    let first = node.agent(&[])?;
    let said = node.shim(&["agent"]).err().context("a second one stays")?;
    let said = format!("{said:#}");
    ensure!(said.contains("127.0.0.1:8421 is taken") && said.contains("agent runs on this node"), "{said}");
    ensure!(first.get("/livez")?.0 == 200, "the first is not bothered");
    first.stop()
}

/// Once the node forwards, only `accept_ra=2` lets the uplink hear of routers: whoever writes 1 there ends that.
#[test]
fn an_uplink_that_heeded_advertisements_goes_on_heeding_them() -> Result<()> {
    const ACCEPT_RA: &str = "/proc/sys/net/ipv6/conf/eth0/accept_ra";
    let lab = Lab::with_ledger(Families::Dual, 1, PoolShape::default())?;
    let node = &lab.nodes[0];
    let value = || node.machine().script(&format!("cat {ACCEPT_RA}")).map(|text| text.trim().to_owned());
    node.machine().script(&format!("echo 0 >/proc/sys/net/ipv6/conf/all/forwarding; echo 1 >{ACCEPT_RA}"))?;
    let pod = node.sandbox("web-1")?;
    let attachment = node.add(&pod)?;
    ensure!(value()? == "2", "{}", value()?);
    node.machine().script(&format!("echo 1 >{ACCEPT_RA}"))?;
    let error = node.plugin("CHECK", &pod, Some(&attachment.result))?.into_error()?;
    ensure!(error.text.contains("accept_ra is 1, not 2"), "{error:?}");
    let agent = node.agent(&EVERY_SECOND)?;
    until("it is 2 again", PROMISED, || Ok((value()? == "2").then_some(())))?;
    node.check(&pod, &attachment)?;
    agent.stop()
}
