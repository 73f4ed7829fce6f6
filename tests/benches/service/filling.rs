//! What lies in the database before anything is measured.

use crate::{
    database::Database,
    load::{self, Plot},
    service::Service,
};
use anyhow::Result;
use ipam_api::{
    client::Write,
    wire::{PoolSpec, ReservationSpec, SubnetSpec, VnetSpec},
};
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr};

/// How much is in the plan and in the ledger.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pools: u8,
    nodes_of_a_pool: u32,
}

/// Live allocations of every node.
const HELD: i64 = 10;
/// Pods of a node of the filling.
const PODS: u32 = 30;
/// Nodes of the clients, and pods of each.
const LOAD: (u32, u32) = (640, 1000);
/// Where own addresses of nodes begin in each subnet.
const OWN: u32 = 4;

/// The own address of the nth node of a subnet.
pub(crate) fn own(base: Ipv4Addr, n: u32) -> IpAddr {
    Ipv4Addr::from(u32::from(base) + OWN + n).into()
}

impl Size {
    /// 1,000 live allocations on 100 nodes.
    pub(crate) const SMALL: Self = Self { pools: 1, nodes_of_a_pool: 100 };
    /// 1,000,000 live allocations on 100,000 nodes.
    pub(crate) const LARGE: Self = Self { pools: 10, nodes_of_a_pool: 10_000 };

    /// Makes VNet, subnets and pools by the service, then nodes and allocations past it; then the clients' nodes.
    pub(crate) async fn fill(self, database: &Database, service: &Service, admin: &str) -> Result<Vec<Plot>> {
        let client = service.client(Some(admin))?;
        let vnet = VnetSpec { address_space: vec!["10.0.0.0/8".parse()?], service_cidrs: Vec::new() };
        client.put_vnet(&"v".parse()?, &vnet, &Write::default()).await?;
        for pool in 0..self.pools {
            let cidr = format!("10.{}.0.0/13", u32::from(pool) * 8);
            make_pool(service, admin, &format!("p{pool}"), &cidr, (self.nodes_of_a_pool, PODS)).await?;
        }
        testdb::fill(&mut database.connect().await, self.nodes_of_a_pool.into(), HELD).await;
        database.settle().await?;
        make_pool(service, admin, "load", "10.128.0.0/12", LOAD).await?;
        let base = Ipv4Addr::new(10, 128, 0, 0);
        let nodes = (0..LOAD.0).map(|n| Ok((format!("load-{n}").parse()?, own(base, n))));
        let nodes: Vec<_> = nodes.collect::<Result<_>>()?;
        load::register(service, admin, &"load".parse()?, nodes.into_iter()).await
    }
}

/// Makes a subnet and a pool of so many nodes with so many pods, and room for 100 own addresses more.
pub(crate) async fn make_pool(
    service: &Service,
    admin: &str,
    name: &str,
    cidr: &str,
    (nodes, pods): (u32, u32),
) -> Result<()> {
    let client = service.client(Some(admin))?;
    let path = format!("v/{name}");
    let subnet = SubnetSpec { cidrs: vec![cidr.parse()?], gateways: Vec::new(), reserve_platform: true };
    client.put_subnet(&path.parse()?, &subnet, &Write::default()).await?;
    let (base, _) = cidr.split_once('/').unwrap_or((cidr, ""));
    let base: Ipv4Addr = base.parse()?;
    let reservation = ReservationSpec {
        first: own(base, 0),
        last: own(base, nodes + 99),
        reason: "nodes".to_owned(),
        for_nodes: true,
    };
    client.put_reservation(&path.parse()?, &"nodes".parse()?, &reservation, &Write::default()).await?;
    let pool: PoolSpec = serde_json::from_value(
        json!({"subnets": [{"subnet": path}], "maxPods": pods, "nodes": nodes + 10, "surge": 0}),
    )?;
    client.put_pool(&name.parse()?, &pool, &Write::default()).await?;
    Ok(())
}
