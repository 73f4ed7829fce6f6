//! Allocations as people and programs look at them.

use crate::store::{
    Page, Result, StoreError,
    book::Row,
    db::{Tx, Value, args, statements},
    error::Kind,
};
use ipam_api::{
    line::{Line, Offset},
    names::{Attachment, NetworkName, NodeName},
    wire::{Allocation, HeldAddress, Listing},
};
use ipnet::IpNet;
use sqlx::FromRow;
use std::net::IpAddr;

/// Which allocations a list has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllocationFilter {
    /// Only those of this node.
    pub node: Option<NodeName>,
    /// Only those of this network.
    pub network: Option<NetworkName>,
    /// Only those of pods of this name.
    pub pod: Option<String>,
    /// Only those of pods of this namespace.
    pub namespace: Option<String>,
    /// Only the one that holds this address.
    pub address: Option<IpAddr>,
}

#[derive(FromRow)]
struct Listed {
    #[sqlx(flatten)]
    row: Row,
    cidr4: Option<String>,
    cidr6: Option<String>,
    gateway4: Option<String>,
    gateway6: Option<String>,
}

#[derive(FromRow)]
struct SubnetLine {
    id: i64,
    cidr4: Option<String>,
    cidr6: Option<String>,
}

/// The list with one predicate that drives it; `$1` and `$2` are the key of the
/// last item of the page before, `$3` the limit, `$4` to `$8` the filters.
macro_rules! listing {
    ($driver:literal) => {
        concat!(
            "SELECT allocation.*, subnet.cidr4, subnet.cidr6, subnet.gateway4, subnet.gateway6
FROM allocation JOIN subnet ON subnet.id = allocation.subnet
WHERE allocation.state = 'held' AND (allocation.subnet, allocation.at_offset) > ($1, $2) AND ",
            $driver,
            "
    AND ($4 IS NULL OR allocation.node_name = $4)
    AND ($5 IS NULL OR allocation.network = $5)
    AND ($6 IS NULL OR allocation.pod_namespace = $6)
    AND ($7 IS NULL OR allocation.pod_name = $7)
ORDER BY allocation.subnet, allocation.at_offset LIMIT $3"
        )
    };
}

const LIST_ALL: &str = listing!("1 = 1");
const LIST_BY_NODE: &str = listing!("allocation.node = (SELECT id FROM node WHERE name = $4)");
const LIST_BY_POD: &str = listing!("allocation.pod_name = $7");
const LIST_BY_NAMESPACE: &str = listing!("allocation.pod_namespace = $6");
const LIST_AT: &str = listing!("allocation.subnet = $8 AND allocation.at_offset = $9");

// 'held' sorts before 'released'. What a node held outside its block is not its own any more.
const LAST_OF_ATTACHMENT: &str = "
SELECT allocation.*, subnet.cidr4, subnet.cidr6, subnet.gateway4, subnet.gateway6
FROM node
JOIN subnet ON subnet.id = node.subnet
JOIN block ON block.node = node.id
JOIN extent ON extent.block = block.id
JOIN allocation ON allocation.subnet = extent.subnet
    AND allocation.at_offset >= extent.first AND allocation.at_offset < extent.next
WHERE node.name = $1 AND allocation.node_name = $1
    AND allocation.network = $2 AND allocation.container_id = $3 AND allocation.if_name = $4
ORDER BY allocation.state, allocation.since DESC LIMIT 1";

const IS_REGISTERED: &str = "SELECT id FROM node WHERE name = $1";

const LINES: &str = "SELECT id, cidr4, cidr6 FROM subnet";

statements!(LIST_BY_NODE, LIST_BY_POD, LIST_BY_NAMESPACE, LIST_AT, LAST_OF_ATTACHMENT);

pub(super) async fn of_attachment(
    tx: &mut Tx,
    node: &NodeName,
    attachment: &Attachment,
) -> Result<Allocation> {
    let Attachment { network, container_id, if_name } = attachment;
    if tx.fetch_optional::<(i64,)>(IS_REGISTERED, args![node.as_str()]).await?.is_none() {
        return Err(StoreError::NotFound(Kind::Node, node.to_string()));
    }
    tx.fetch_optional::<Listed>(
        LAST_OF_ATTACHMENT,
        args![node.as_str(), network.as_str(), container_id.as_str(), if_name.as_str()],
    )
    .await?
    .ok_or_else(|| StoreError::NotFound(Kind::Allocation, format!("{attachment} of node {node}")))?
    .allocation()
}

pub(super) async fn list(tx: &mut Tx, filter: &AllocationFilter, page: &Page) -> Result<Listing<Allocation>> {
    let (after_subnet, after_offset) = match &page.after {
        None => (-1, -1),
        Some(key) => parse_key(key).ok_or_else(|| {
            StoreError::invalid(
                "query:after",
                "not a key of this list; pass `next` of the page before, unchanged",
            )
        })?,
    };
    let mut arguments: Vec<Value> = args![
        after_subnet,
        after_offset,
        i64::from(page.limit) + 1,
        filter.node.as_ref().map(NodeName::as_str),
        filter.network.as_ref().map(NetworkName::as_str),
        filter.namespace.clone(),
        filter.pod.clone(),
    ];
    let sql = if let Some(address) = filter.address {
        let Some((subnet, offset)) = position(tx, address).await? else {
            return Ok(Listing { items: Vec::new(), next: None });
        };
        arguments.extend(args![subnet, offset.0]);
        LIST_AT
    } else if filter.node.is_some() {
        LIST_BY_NODE
    } else if filter.pod.is_some() {
        LIST_BY_POD
    } else if filter.namespace.is_some() {
        LIST_BY_NAMESPACE
    } else {
        LIST_ALL
    };
    let mut rows: Vec<Listed> = tx.fetch_all(sql, arguments).await?;
    let limit = page.limit as usize;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| more).map(|last| format!("{}.{}", last.row.subnet, last.row.at_offset));
    Ok(Listing { items: rows.iter().map(Listed::allocation).collect::<Result<_>>()?, next })
}

fn parse_key(key: &str) -> Option<(i64, i64)> {
    let (subnet, offset) = key.split_once('.')?;
    Some((subnet.parse().ok()?, offset.parse().ok()?))
}

/// Where an address is, if a subnet has it.
async fn position(tx: &mut Tx, address: IpAddr) -> Result<Option<(i64, Offset)>> {
    for subnet in tx.fetch_all::<SubnetLine>(LINES, args![]).await? {
        if let Ok(offset) = line(&subnet.cidr4, &subnet.cidr6)?.offset_of(address) {
            return Ok(Some((subnet.id, offset)));
        }
    }
    Ok(None)
}

impl Listed {
    fn allocation(&self) -> Result<Allocation> {
        let line = line(&self.cidr4, &self.cidr6)?;
        let gateways = self.gateway4.iter().chain(&self.gateway6);
        let addresses = line
            .cidrs()
            .into_iter()
            .zip(line.addresses_at(self.row.offset()))
            .zip(gateways)
            .map(|((cidr, address), gateway)| {
                Ok(HeldAddress {
                    address,
                    prefix_length: cidr.prefix_len(),
                    gateway: gateway.parse().map_err(unreadable)?,
                })
            })
            .collect::<Result<_>>()?;
        self.row.allocation(addresses)
    }
}

fn line(cidr4: &Option<String>, cidr6: &Option<String>) -> Result<Line> {
    let cidrs: Vec<IpNet> =
        cidr4.iter().chain(cidr6).map(|text| text.parse().map_err(unreadable)).collect::<Result<_>>()?;
    Line::of(&cidrs).map_err(unreadable)
}

/// What the table holds is not what was written to it.
fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::Database(sqlx::Error::Decode(Box::new(error)))
}
