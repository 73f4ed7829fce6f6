//! Ports of a node that lead to its pods: from everywhere, to one holder each, through all that others do.

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Value, json};
use std::{
    net::IpAddr,
    process::Command,
    time::{Duration, Instant},
};
use vnet_tests::lab::{
    Answering, Attachment, Families, Heard, Lab, Machine, Node, PLAIN_VM, Pod, PoolShape, ask, ask_from,
    until,
};

const PROTOCOLS: [&str; 3] = ["tcp", "udp", "sctp"];

/// How long a change takes to be seen at most.
const SOON: Duration = Duration::from_secs(20);

fn mapping(protocol: &str, host_port: u16) -> Value {
    json!({"hostPort": host_port, "containerPort": 80, "protocol": protocol})
}

fn answering(node: &Node, pod: &Pod, protocol: &str) -> Result<Answering> {
    Answering::start(|program| node.inside(pod, program), protocol, 80, pod.name())
}

fn on(machine: &Machine) -> impl Fn(&str) -> Command {
    |program| machine.enter(program)
}

fn of_family(addresses: &[IpAddr], like: IpAddr) -> Result<IpAddr> {
    let same = addresses.iter().find(|address| address.is_ipv4() == like.is_ipv4());
    same.copied().with_context(|| format!("no address like {like} among {addresses:?}"))
}

/// What the kernel has of host ports.
fn elements(node: &Node) -> Result<String> {
    node.machine().script(
        "for set in host-ports-4 host-ports-6 host-ports-at-4 host-ports-at-6; do
             nft list map inet vnet_ipam $set | grep -A9 elements || true
         done
         for set in hairpin-4 hairpin-6; do nft list set inet vnet_ipam $set | grep -A9 elements || true; done",
    )
}

#[test]
fn a_pod_is_reached_from_everywhere() -> Result<()> {
    let lab = Lab::with_ledger(Families::Dual, 2, PoolShape::default())?;
    let (one, two) = (&lab.nodes[0], &lab.nodes[1]);
    let (web, beside, elsewhere) = (one.sandbox("web")?, one.sandbox("beside")?, two.sandbox("elsewhere")?);
    let mut ports: Vec<Value> = PROTOCOLS.map(|protocol| mapping(protocol, 8080)).into();
    ports.push(json!({"HostPort": 9001, "ContainerPort": 80, "HostIP": "127.0.0.1"}));
    ports.push(json!({"hostPort": 9002, "containerPort": 80, "hostIP": one.addresses()[0]}));
    let attachment = one.add_with_ports(&web, &json!(ports))?;
    let web_addresses = attachment.addresses.clone();
    let beside_addresses = one.add(&beside)?.addresses;
    let elsewhere_addresses = two.add(&elsewhere)?.addresses;
    let _answering =
        PROTOCOLS.map(|protocol| answering(one, &web, protocol)).into_iter().collect::<Result<Vec<_>>>()?;
    let vm = lab.fabric.addressing().addresses(PLAIN_VM);

    for protocol in PROTOCOLS {
        for at in one.addresses() {
            let heard = |who: &str, said: Result<Heard>, seen: &[IpAddr]| -> Result<()> {
                let (said, wanted) = (said?, Heard::from("web", of_family(seen, *at)?));
                ensure!(said == wanted, "{protocol} {at} from {who}: {said:?}, not {wanted:?}");
                Ok(())
            };
            let inside =
                |node: &Node, pod: &Pod| ask(|program| node.inside(pod, program), protocol, *at, 8080);
            // Who asks is seen as it is, but for the pod itself: its answers must come back through the node.
            heard("the VM", ask(on(&lab.vm), protocol, *at, 8080), &vm)?;
            heard("the node", ask(on(one.machine()), protocol, *at, 8080), one.addresses())?;
            heard("another node", ask(on(two.machine()), protocol, *at, 8080), two.addresses())?;
            heard("the pod beside", inside(one, &beside), &beside_addresses)?;
            heard("a pod elsewhere", inside(two, &elsewhere), &elsewhere_addresses)?;
            heard("the pod itself", inside(one, &web), one.addresses())?;
        }
        let localhost = "127.0.0.1".parse()?;
        let said = ask(on(one.machine()), protocol, localhost, 8080)?;
        ensure!(said == Heard::from("web", one.addresses()[0]), "{protocol} from 127.0.0.1: {said:?}");
    }
    // Whoever asks at ::1 hears at once that nobody is there.
    let said = ask(on(one.machine()), "tcp", "::1".parse()?, 8080)?;
    ensure!(matches!(&said, Heard::Nothing(why) if why.contains("refused")), "::1: {said:?}");

    // Ports of one address of the node.
    let [v4, v6] = [one.addresses()[0], one.addresses()[1]];
    for (machine, at, port, reached) in [
        (one.machine(), "127.0.0.1".parse()?, 9001, true),
        (one.machine(), v4, 9001, false),
        (&lab.vm, v4, 9001, false),
        (&lab.vm, v4, 9002, true),
        (&lab.vm, v6, 9002, false),
        (one.machine(), "127.0.0.1".parse()?, 9002, false),
    ] {
        let said = ask(on(machine), "tcp", at, port)?;
        ensure!(said.is_nothing() != reached, "{at} {port} from {}: {said:?}", machine.name());
    }
    one.check(&web, &attachment)?;

    one.del(&web, Some(&attachment))?;
    for at in one.addresses() {
        let said = ask(on(&lab.vm), "tcp", *at, 8080)?;
        ensure!(matches!(&said, Heard::Nothing(why) if why.contains("refused")), "after DEL: {said:?}");
    }
    let left = elements(one)?;
    ensure!(left.is_empty(), "after DEL: {left}");
    ensure!(web_addresses.len() == 2);
    Ok(())
}

#[test]
fn a_pod_does_not_reach_what_listens_on_the_nodes_loopback() -> Result<()> {
    let lab = Lab::with_ledger(Families::V4, 1, PoolShape::default())?;
    let node = &lab.nodes[0];
    let pod = node.sandbox("curious")?;
    node.add_with_ports(&pod, &json!([mapping("tcp", 8080)]))?;
    let host = node.machine();
    host.script(
        "nft add table inet probe
         nft add counter inet probe seen
         nft add chain inet probe input '{ type filter hook input priority 0; }'
         nft add rule inet probe input tcp dport 7777 counter name seen",
    )?;
    // The pod's own kernel would keep such a packet, if nobody told it otherwise.
    node.machine().script(&format!(
        "ip netns exec {netns} sh -euc '
             echo 1 >/proc/sys/net/ipv4/conf/eth0/route_localnet
             ip route delete local 127.0.0.0/8 dev lo table local
             ip route delete local 127.0.0.1 dev lo table local
             ip route add 127.0.0.0/8 via 169.254.1.1 dev eth0'",
        netns = pod.netns()
    ))?;
    let seen = || -> Result<bool> {
        ask(|program| node.inside(&pod, program), "tcp", "127.0.0.1".parse()?, 7777)?;
        Ok(!host.script("nft list counter inet probe seen")?.contains("packets 0 "))
    };
    ensure!(!seen()?, "a pod got through to the node's loopback");
    // Else the silence would prove nothing.
    host.script("nft flush chain inet vnet_ipam spoofing")?;
    ensure!(seen()?, "the probe reaches nothing anyway");
    Ok(())
}

#[test]
fn a_port_of_the_nodes_loopback_leads_nobody_else_to_the_pod() -> Result<()> {
    let lab = Lab::with_ledger(Families::V4, 1, PoolShape::default())?;
    let node = &lab.nodes[0];
    let pod = node.sandbox("private")?;
    let port = json!({"hostPort": 9001, "containerPort": 80, "protocol": "udp", "hostIP": "127.0.0.1"});
    node.add_with_ports(&pod, &json!([port]))?;
    let _answering = answering(node, &pod, "udp")?;
    let localhost: IpAddr = "127.0.0.1".parse()?;
    ensure!(!ask(on(node.machine()), "udp", localhost, 9001)?.is_nothing(), "the node itself is led there");
    // A neighbour that sends to the node's MAC what its own kernel would keep.
    lab.vm.script(&format!(
        "echo 1 >/proc/sys/net/ipv4/conf/eth0/route_localnet
         ip route delete local 127.0.0.0/8 dev lo table local
         ip route delete local 127.0.0.1 dev lo table local
         ip route add 127.0.0.0/8 via {} dev eth0",
        node.addresses()[0]
    ))?;
    let host = node.machine();
    host.script(
        "nft add table inet probe
         nft add counter inet probe seen
         nft add chain inet probe forward '{ type filter hook forward priority 0; }'
         nft add rule inet probe forward udp dport 80 counter name seen",
    )?;
    let seen = || -> Result<bool> {
        ask(on(&lab.vm), "udp", localhost, 9001)?;
        Ok(!host.script("nft list counter inet probe seen")?.contains("packets 0 "))
    };
    ensure!(!seen()?, "a neighbour got through to a port of the node's loopback");
    // Else the silence would prove nothing.
    host.script("nft flush chain inet vnet_ipam spoofing")?;
    ensure!(seen()?, "the probe reaches nothing anyway");
    Ok(())
}

#[test]
fn a_taken_port_is_refused() -> Result<()> {
    let lab = Lab::with_ledger(Families::Dual, 1, PoolShape::default())?;
    let node = &lab.nodes[0];
    let refused = |name: &str, mapping: Value, words: &[&str]| -> Result<()> {
        let pod = node.sandbox(name)?;
        let error = node.plugin_with_ports("ADD", &pod, &json!([mapping]))?.into_error()?;
        ensure!(error.code == 11 && words.iter().all(|word| error.text.contains(word)), "{error:?}");
        Ok(())
    };
    {
        let _host = Answering::start(on(node.machine()), "tcp", 8081, "host")?;
        refused("a", mapping("tcp", 8081), &["tcp 8081", "a program of the host"])?;
        let _host = Answering::start(on(node.machine()), "udp", 8082, "host")?;
        refused(
            "b",
            json!({"hostPort": 8082, "containerPort": 80, "protocol": "udp", "hostIP": "127.0.0.1"}),
            &["udp 127.0.0.1:8082"],
        )?;
        // The number is free with the other protocol.
        node.add_with_ports(&node.sandbox("c")?, &json!([mapping("udp", 8081), mapping("tcp", 8082)]))?;
    }
    let holder = node.sandbox("holder")?;
    node.add_with_ports(&holder, &json!([mapping("tcp", 8081), mapping("sctp", 8083)]))?;
    refused("d", mapping("sctp", 8083), &["sctp 8083", holder.container_id()])?;
    refused(
        "e",
        json!({"hostPort": 8081, "containerPort": 80, "hostIP": "10.240.0.10"}),
        &["tcp 10.240.0.10:8081", holder.container_id()],
    )?;
    ensure!(
        node.journal()?.iter().filter(|entry| entry.state.is_live()).count() == 2,
        "who was refused holds nothing"
    );

    node.del(&holder, None)?;
    let next = node.sandbox("next")?;
    node.add_with_ports(&next, &json!([mapping("tcp", 8081), mapping("sctp", 8083)]))?;
    let _answering = answering(node, &next, "tcp")?;
    let said = ask(on(&lab.vm), "tcp", node.addresses()[1], 8081)?;
    ensure!(!said.is_nothing(), "{said:?}");
    Ok(())
}

#[test]
fn a_udp_flow_follows_to_the_next_pod() -> Result<()> {
    let lab = Lab::with_ledger(Families::Dual, 1, PoolShape::default())?;
    let node = &lab.nodes[0];
    let ports = json!([mapping("udp", 8053)]);
    // A client that never stops, and never from another port: one flow in each family.
    let hear = || -> Result<Vec<Heard>> {
        node.addresses().iter().map(|at| ask_from(on(&lab.vm), 5053, "udp", *at, 8053)).collect()
    };
    // Each question keeps alive what the kernel remembers: it would be asked in vain for ever.
    let heard_from = |name: &str| -> Result<()> {
        let seen = lab.fabric.addressing().addresses(PLAIN_VM);
        let wanted: Vec<Heard> = seen.iter().map(|vm| Heard::from(name, *vm)).collect();
        until(name, SOON, || Ok((hear()? == wanted).then_some(())))
    };
    let old = node.sandbox("old")?;
    let attachment = node.add_with_ports(&old, &ports)?;
    let _old = answering(node, &old, "udp")?;
    heard_from("old")?;
    // It asks the pod itself as well.
    let direct = ask(on(&lab.vm), "udp", attachment.addresses[0], 80)?;
    ensure!(!direct.is_nothing(), "{direct:?}");
    node.del(&old, Some(&attachment))?;
    // The kernel writes addresses of IPv6 in full there.
    let full = attachment.addresses.iter().map(|address| match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => address.segments().map(|part| format!("{part:04x}")).join(":"),
    });
    let full: Vec<String> = full.map(|address| format!("={address} ")).collect();
    until("the pod's connections are forgotten", SOON, || {
        let tracked = node.machine().script("cat /proc/net/nf_conntrack")?;
        Ok((!full.iter().any(|address| tracked.contains(address))).then_some(()))
    })?;
    ensure!(hear()?.iter().all(Heard::is_nothing), "who answers?");

    let new = node.sandbox("new")?;
    let again = node.add_with_ports(&new, &ports)?;
    ensure!(again.addresses != attachment.addresses, "the first one's addresses rest");
    let _new = answering(node, &new, "udp")?;
    heard_from("new")
}

#[test]
fn what_others_flush_comes_back() -> Result<()> {
    let lab = Lab::with_ledger(Families::Dual, 1, PoolShape::default())?;
    let node = &lab.nodes[0];
    let web = node.sandbox("web")?;
    let attachment = node.add_with_ports(&web, &json!([mapping("tcp", 8080)]))?;
    let _answering = answering(node, &web, "tcp")?;
    let before = elements(node)?;
    node.machine().script("nft flush ruleset; echo 0 | tee /proc/sys/net/ipv4/conf/vn*/route_localnet")?;
    ensure!(ask(on(&lab.vm), "tcp", node.addresses()[0], 8080)?.is_nothing(), "through what?");
    let error = node.plugin("CHECK", &web, Some(&attachment.result))?.into_error()?;
    let words = ["rules of table inet vnet_ipam", "tcp 0.0.0.0:8080", "tcp [::]:8080", "route_localnet"];
    ensure!(error.code == 104 && words.iter().all(|word| error.text.contains(word)), "{error:?}");

    let _agent = node.agent(&["--every", "1"])?;
    let all = |word: &str| {
        until(word, SOON, || {
            let mut reached = Vec::new();
            for (machine, at) in [
                (&lab.vm, node.addresses()[0]),
                (&lab.vm, node.addresses()[1]),
                (node.machine(), "127.0.0.1".parse()?),
            ] {
                reached.push(!ask(on(machine), "tcp", at, 8080)?.is_nothing());
            }
            Ok(reached.iter().all(|reached| *reached).then_some(()))
        })
    };
    all("the port leads to the pod again")?;
    ensure!(elements(node)? == before, "{}", elements(node)?);
    node.check(&web, &attachment)?;

    // What leads to nobody goes, once a round sees it; what leads to the pod stays.
    node.machine()
        .script("nft add element inet vnet_ipam host-ports-4 '{ tcp . 9999 : 10.240.1.29 . 80 }'")?;
    until("the stale port is gone", SOON, || Ok((elements(node)? == before).then_some(())))?;
    all("the port still leads to the pod")
}

#[test]
fn ports_that_went_with_journal_and_rules_are_missed() -> Result<()> {
    let lab = Lab::with_ledger(Families::V4, 1, PoolShape::default())?;
    let node = &lab.nodes[0];
    let web = node.sandbox("web")?;
    let ports = json!([mapping("tcp", 8080)]);
    let attachment = node.add_with_ports(&web, &ports)?;
    let asked = node.netconf().clone().with("runtimeConfig", json!({"portMappings": ports}));
    let check = || node.plugin_with("CHECK", &web, &asked.json(Some(&attachment.result)));
    check()?.into_result()?;
    node.machine().script("nft flush ruleset; rm -rf /run/cni-shim/addresses /run/cni-shim/header.json")?;
    node.shim(&["sync"])?;
    // Everything else is put back.
    let agent = node.agent(&["--every", "1"])?;
    until("CHECK misses the port alone", SOON, || {
        let text = check()?.into_error()?.text;
        let alone = text.contains("tcp 0.0.0.0:8080 was asked for") && !text.contains("vnet_ipam");
        Ok(alone.then_some(()))
    })?;
    agent.stop()?;
    node.del(&web, Some(&attachment))?;
    let again = node.add_with_ports(&web, &ports)?;
    let _answering = answering(node, &web, "tcp")?;
    ensure!(!ask(on(&lab.vm), "tcp", node.addresses()[0], 8080)?.is_nothing(), "{:?}", again.addresses);
    Ok(())
}

/// In a full block an address has its next holder at once, whose connections must not be forgotten with the last one's.
#[test]
fn the_next_holder_of_an_address_waits_until_the_last_one_is_forgotten() -> Result<()> {
    const HOLD: &str = "/run/hold";
    // Long enough for an ADD that does not wait.
    const LOOK: Duration = Duration::from_millis(300);
    let lab = Lab::with_ledger(Families::V4, 1, PoolShape { max_pods: 1, rest_seconds: 0 })?;
    let node = &lab.nodes[0];
    let old = node.sandbox("old")?;
    let ports = json!([mapping("udp", 8053)]);
    let attachment = node.add_with_ports(&old, &ports)?;
    let _old = answering(node, &old, "udp")?;
    ensure!(
        !ask(on(&lab.vm), "udp", node.addresses()[0], 8053)?.is_nothing(),
        "nothing is there to be forgotten"
    );
    node.machine().script(&format!("touch {HOLD}"))?;
    let fault = format!("CNI_SHIM_FAULT=forget-before-looking:{HOLD}");
    node.plugin_under(&["env", &fault], "DEL", &old, Some(&attachment.result))?.into_result()?;
    until("somebody is about to forget", SOON, || {
        Ok(node
            .machine()
            .script(&format!("test -e {HOLD}.reached && echo yes || true"))?
            .contains("yes")
            .then_some(()))
    })?;
    let new = node.sandbox("new")?;
    let reply = std::thread::scope(|scope| {
        let added = scope.spawn(|| node.plugin("ADD", &new, None));
        let has_entry = || {
            let journal = node.journal()?;
            Ok(journal.iter().any(|entry| entry.container_id.as_str() == new.container_id()).then_some(()))
        };
        until("the next holder has its entry", SOON, has_entry)?;
        let seen = Instant::now();
        while !added.is_finished() && seen.elapsed() < LOOK {
            std::thread::yield_now();
        }
        let has_ended = added.is_finished();
        node.machine().script(&format!("rm {HOLD}"))?;
        let reply = added.join().map_err(|_| anyhow!("ADD panicked"))??;
        ensure!(!has_ended || reply.took >= Duration::from_secs(1), "it did not wait: {:?}", reply.took);
        Ok(reply)
    })?;
    let next = Attachment::of(reply)?;
    ensure!(next.addresses == attachment.addresses, "the block has no other");
    until("nobody forgets any more", SOON, || {
        let free = node.machine().script("flock -n /run/cni-shim/forgetting.lock echo free || true")?;
        Ok(free.contains("free").then_some(()))
    })?;
    let connections = || -> Result<usize> {
        let tracked = node.machine().script("cat /proc/net/nf_conntrack")?;
        let address = format!("={} ", next.addresses[0]);
        Ok(tracked.lines().filter(|line| line.contains(&address)).count())
    };
    ensure!(connections()? == 0, "connections of the last holder are left");
    // The next holder's own are remembered and answered.
    let _new = answering(node, &new, "udp")?;
    let said = ask(on(&lab.vm), "udp", next.addresses[0], 80)?;
    ensure!(said == Heard::from("new", lab.fabric.addressing().addresses(PLAIN_VM)[0]), "{said:?}");
    ensure!(connections()? > 0, "they were forgotten as well");
    Ok(())
}
