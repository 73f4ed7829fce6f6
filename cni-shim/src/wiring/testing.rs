//! A small VNet for tests: namespaces of threads of this process, a bridge in one of its own, a
//! node and a VM on it. Everything vanishes with the last file that holds a namespace.

use super::{
    Host, Mac, Pod, Turn, Uplink,
    host::{self, Preparation},
    link::{self, End},
    masquerade::{Egress, Pods},
    transparent::{Unwiring, Wired, Wiring, unwire, wire},
    uplink,
};
use ipam_api::names::Attachment;
use nix::sched::{CloneFlags, setns, unshare};
use std::{
    fs::File,
    net::IpAddr,
    os::fd::AsRawFd,
    path::PathBuf,
    process::{Command, Output},
    thread,
};

pub(super) const NODE_V4: &str = "10.240.0.10";
pub(super) const NODE_V6: &str = "fd00:10::10";
pub(super) const VM_V4: &str = "10.240.0.20";
pub(super) const VM_V6: &str = "fd00:10::20";

/// A network namespace, held by an open file.
pub(super) struct Ns(File);

impl Ns {
    pub(super) fn new() -> Self {
        let file = thread::scope(|scope| {
            scope
                .spawn(|| {
                    unshare(CloneFlags::CLONE_NEWNET).unwrap();
                    File::open("/proc/thread-self/ns/net").unwrap()
                })
                .join()
                .unwrap()
        });
        let ns = Self(file);
        ns.sh(
            "ip link set lo up; sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.all.accept_dad=0",
        );
        ns
    }

    /// A namespace as a runtime makes it: nothing in it, the loopback interface down.
    pub(super) fn bare() -> Self {
        let ns = Self::new();
        ns.sh("ip link set lo down");
        ns
    }

    /// The path by which another part of this process opens it.
    pub(super) fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }

    /// Runs a closure on a thread inside.
    pub(super) fn run<T: Send>(&self, action: impl FnOnce() -> T + Send) -> T {
        let result = thread::scope(|scope| {
            scope
                .spawn(|| {
                    setns(&self.0, CloneFlags::CLONE_NEWNET).unwrap();
                    action()
                })
                .join()
        });
        match result {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    pub(super) fn try_sh(&self, script: &str) -> Output {
        self.run(|| Command::new("sh").args(["-ec", script]).output().unwrap())
    }

    /// Runs a shell script inside; its standard output.
    pub(super) fn sh(&self, script: &str) -> String {
        let output = self.try_sh(script);
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Round trip of the first packet in milliseconds; none when nothing came back.
    pub(super) fn ping(&self, to: &str, options: &str) -> Option<f64> {
        let output = self.try_sh(&format!("ping -n -c1 -W1 {options} {to}"));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let time = text.split("time=").nth(1)?.split(' ').next()?;
        time.parse().ok()
    }

    /// Echo requests that arrived, both families.
    pub(super) fn echoes(&self) -> u64 {
        let text = self.sh("cat /proc/self/net/snmp /proc/self/net/snmp6");
        let icmp: Vec<Vec<&str>> = text
            .lines()
            .filter(|line| line.starts_with("Icmp:"))
            .map(|line| line.split(' ').collect())
            .collect();
        let column = icmp[0].iter().position(|name| *name == "InEchos").unwrap();
        let v4: u64 = icmp[1][column].parse().unwrap();
        let v6 = text.lines().find(|line| line.starts_with("Icmp6InEchos")).unwrap();
        v4 + v6.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    }

    /// Everything that a wiring could leave behind.
    pub(super) fn state(&self) -> String {
        self.sh(
            "ip -d link | sed 's/promiscuity.*//'; ip addr | grep inet; ip route show table all; ip -6 route show table all;
             ip neigh show nud permanent; ip neigh show proxy; ip -6 neigh show proxy",
        )
    }
}

/// Joins `ns` to the bridge as `eth0`.
fn plug(bridge: &Ns, ns: &Ns, port: &str, mac: Mac) {
    bridge.run(|| {
        let mut host = Host::open().unwrap();
        let ends = (End { name: port, mac: Mac([2, 0, 0, 0, 9, mac.0[5]]) }, End { name: "eth0", mac });
        let request = link::create_pair(&ends.0, &ends.1, ns.0.as_raw_fd(), 1400);
        host.netlink.one(request).unwrap().ok().unwrap();
    });
    bridge.sh(&format!("ip link set {port} master br0 up"));
    ns.sh("ip link set eth0 up");
}

/// A bridge, a node and a VM.
pub(super) struct Lab {
    pub(super) node: Ns,
    pub(super) vm: Ns,
    _bridge: Ns,
    directory: tempfile::TempDir,
}

impl Lab {
    pub(super) fn new() -> Self {
        let lab = Self {
            node: Ns::new(),
            vm: Ns::new(),
            _bridge: Ns::new(),
            directory: tempfile::tempdir().unwrap(),
        };
        lab._bridge.sh("ip link add br0 type bridge && ip link set br0 up");
        plug(&lab._bridge, &lab.node, "node", Mac([2, 0, 0, 0, 0, 1]));
        plug(&lab._bridge, &lab.vm, "vm", Mac([2, 0, 0, 0, 0, 2]));
        for (ns, v4, v6) in [(&lab.node, NODE_V4, NODE_V6), (&lab.vm, VM_V4, VM_V6)] {
            ns.sh(&format!(
                "ip addr add {v4}/16 dev eth0; ip addr add {v6}/64 dev eth0 nodad;
                 ip route add default via 10.240.0.1"
            ));
        }
        lab.wait_for_bridge();
        lab
    }

    /// A port forwards only once its carrier is noticed; what comes before says nothing about us.
    pub(super) fn wait_for_bridge(&self) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while self.node.ping(VM_V4, "").is_none() || self.node.ping(VM_V6, "").is_none() {
            assert!(std::time::Instant::now() < deadline, "the bridge does not forward");
        }
    }

    /// Runs as the shim does: on the node, with both sockets.
    pub(super) fn with<T: Send>(
        &self,
        pod: &Ns,
        action: impl FnOnce(&mut Host, &mut Pod, &Uplink) -> T + Send,
    ) -> T {
        let path = pod.path();
        self.node.run(move || {
            let (mut host, mut pod) = (Host::open().unwrap(), Pod::open(&path).unwrap());
            let uplink = uplink::find(&mut host, None).unwrap();
            action(&mut host, &mut pod, &uplink)
        })
    }

    /// The file that those hold who set the node up.
    pub(super) fn turn(&self) -> Turn {
        Turn::at(File::create(self.directory.path().join("host.lock")).unwrap(), |_| {})
    }

    pub(super) fn prepare(&self, addresses: &[IpAddr]) -> Vec<String> {
        self.node.run(|| {
            let uplink = uplink::find(&mut Host::open().unwrap(), None).unwrap();
            let preparation = Preparation { addresses, ..Preparation::default() };
            host::prepare(&uplink, &preparation, &self.turn(), nobody).unwrap()
        })
    }

    pub(super) fn wire(&self, pod: &Ns, attachment: &Attachment, addresses: &[IpAddr]) -> Wired {
        self.with(pod, |host, pod, uplink| {
            wire(host, pod, &wiring(attachment, addresses, uplink, &node_addresses()))
        })
        .unwrap()
    }

    /// A wired pod of its own.
    pub(super) fn pod(&self, container: &str, addresses: &[&str]) -> (Ns, Attachment, Vec<IpAddr>) {
        let (pod, attachment, addresses) = (Ns::bare(), attachment(container), ips(addresses));
        self.prepare(&addresses);
        self.wire(&pod, &attachment, &addresses);
        (pod, attachment, addresses)
    }

    pub(super) fn unwire(&self, attachment: &Attachment, addresses: &[IpAddr]) -> Vec<String> {
        self.node.run(|| {
            let unwiring = Unwiring { uplink: Some("eth0"), ..unwiring(attachment, addresses) };
            unwire(&mut Host::open().unwrap(), None, &unwiring).unwrap().removed
        })
    }
}

/// Who lives where nobody is masqueraded.
pub(super) fn nobody() -> (Pods, ()) {
    (Pods::default(), ())
}

pub(super) fn wiring<'a>(
    attachment: &'a Attachment,
    addresses: &'a [IpAddr],
    uplink: &'a Uplink,
    node_addresses: &'a [IpAddr],
) -> Wiring<'a> {
    let egress = Egress::Plain;
    Wiring { attachment, addresses, node_addresses, uplink, mtu: 0, mac: None, ports: &[], egress }
}

pub(super) fn unwiring<'a>(attachment: &'a Attachment, addresses: &'a [IpAddr]) -> Unwiring<'a> {
    Unwiring { attachment, addresses, uplink: None, mac: None, ports: &[] }
}

pub(super) fn node_addresses() -> Vec<IpAddr> {
    ips(&[NODE_V4, NODE_V6])
}

pub(super) fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

pub(super) fn attachment(container: &str) -> Attachment {
    Attachment {
        network: "prod".parse().unwrap(),
        container_id: container.parse().unwrap(),
        if_name: "eth0".parse().unwrap(),
    }
}
