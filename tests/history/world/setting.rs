use crate::{
    history::Recorder,
    link::Link,
    machine::{Conduct, Machine, Make},
    network::Network,
    planner::{Form, Ground, Planner},
    seed::Seed,
};
use anyhow::{Context, Result};
use ipam_api::{
    client::Write,
    names::PoolName,
    wire::{PoolSpec, ReservationSpec, SubnetSpec, VnetSpec},
};
use serde_json::json;
use std::{
    net::{IpAddr, Ipv4Addr},
    path::Path,
    sync::Arc,
};

const NODES: u8 = 8;
/// What starts and stops pods on each node.
const RUNTIMES: usize = 2;
const PLANNERS: usize = 2;

/// The place in which a run plays, and who plays.
#[derive(Debug)]
pub(crate) struct Setting {
    pub(super) machines: Vec<Machine>,
    pub(super) planners: Vec<Link>,
    pub(super) grounds: Vec<Ground>,
    pub(super) pools: Vec<PoolName>,
}

/// Two subnets of 512 addresses: the first dual-stack. Nodes have theirs at 16 and after, planners reserve between
/// 64 and 128, and blocks are found wherever they are.
const SUBNETS: [(&str, u8, Option<&str>); 2] = [("v/dual", 0, Some("fd00:1::/64")), ("v/four", 2, None)];

fn address(third: u8, fourth: u8) -> IpAddr {
    Ipv4Addr::new(10, 1, third, fourth).into()
}

impl Setting {
    /// Makes VNet, subnets and pools, and the actors.
    pub(super) fn make(
        network: &Network,
        recorder: &Arc<Recorder>,
        below: &Path,
        conduct: Conduct,
    ) -> Result<Self> {
        let founder = Link::new("founder", network, recorder)?;
        let vnet = VnetSpec {
            address_space: vec!["10.1.0.0/16".parse()?, "fd00:1::/48".parse()?],
            service_cidrs: Vec::new(),
        };
        let name = "v".parse()?;
        founder.found("vnet", async |client| client.put_vnet(&name, &vnet, &Write::default()).await)?;
        let nodes = "nodes".parse()?;
        let mut grounds = Vec::new();
        for (path, third, v6) in SUBNETS {
            let v4 = format!("10.1.{third}.0/23");
            let cidrs = [Some(v4.as_str()), v6].into_iter().flatten().map(str::parse);
            let spec = SubnetSpec {
                cidrs: cidrs.collect::<Result<_, _>>()?,
                gateways: Vec::new(),
                reserve_platform: true,
            };
            let path = path.parse()?;
            founder
                .found("subnet", async |client| client.put_subnet(&path, &spec, &Write::default()).await)?;
            let spec = ReservationSpec {
                first: address(third, 16),
                last: address(third, 16 + NODES - 1),
                reason: "the nodes' own".to_owned(),
                for_nodes: true,
            };
            founder.found("reservation", async |client| {
                client.put_reservation(&path, &nodes, &spec, &Write::default()).await
            })?;
            let playground = (64..128).map(|fourth| address(third, fourth)).collect();
            grounds.push(Ground { path, first: address(third, 0), size: 512, playground });
        }
        let pools = [
            ("exact", json!({"subnets": [{"subnet": "v/dual"}], "maxPods": 8, "nodes": 5, "restSeconds": 1})),
            (
                "prefix",
                json!({"subnets": [{"subnet": "v/four"}], "maxPods": 7, "nodes": 5, "alignment": "prefix"}),
            ),
            (
                "spread",
                json!({"subnets": [{"subnet": "v/four"}, {"subnet": "v/dual"}], "maxPods": 6, "nodes": 5,
                       "headroom": 2}),
            ),
        ];
        let planner = Planner::new(&founder, Seed(0), &[], &[]);
        let mut names = Vec::new();
        for (name, spec) in pools {
            let name: PoolName = name.parse()?;
            let spec: PoolSpec = serde_json::from_value(spec)?;
            planner.put_pool(&name, &spec, &Write::create(), Form::Whole);
            planner.pool(&name).with_context(|| format!("no pool {name}"))?;
            names.push(name);
        }
        let machines =
            (0..NODES).map(|n| machine(n, network, recorder, below, conduct)).collect::<Result<_>>()?;
        let planners = (0..PLANNERS).map(|n| Link::new(&format!("planner-{n}"), network, recorder));
        Ok(Self { machines, planners: planners.collect::<Result<_>>()?, grounds, pools: names })
    }
}

/// How VMs of a node may be made: in which pool, with which address.
fn makes(n: u8) -> Result<Vec<Make>> {
    let in_pool = |pool: &str, third| -> Result<Make> {
        Ok(Make { pool: pool.parse()?, addresses: vec![address(third, 16 + n)] })
    };
    Ok(vec![in_pool("exact", 0)?, in_pool("prefix", 2)?, in_pool("spread", 0)?, in_pool("spread", 2)?])
}

fn machine(
    n: u8,
    network: &Network,
    recorder: &Arc<Recorder>,
    below: &Path,
    conduct: Conduct,
) -> Result<Machine> {
    let name = format!("n{n}");
    let keeper = format!("{name}/keeper");
    let runtimes = (0..RUNTIMES).map(|runtime| format!("{name}/{runtime}"));
    let links = std::iter::once(keeper).chain(runtimes).map(|actor| Link::new(&actor, network, recorder));
    let makes = makes(n)?;
    Machine::new(name.parse()?, recorder, below, links.collect::<Result<_>>()?, makes, conduct)
}
