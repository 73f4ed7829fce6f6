mod again;
mod claim;
mod claims;
mod former;
mod leave;
mod own;
mod row;

pub(super) use claims::Registrar;
pub(super) use former::forget as forget_former;
pub(super) use leave::free_node;

use super::{
    Change, Commit, Departure, Kind, Page, Precondition, Result, Store, StoreError, Versioned, VmState,
    Written,
    db::{Scope, Tx, args, retried, statements},
    events::Deed,
    mutation::{self, corrupt, cut, name_after, rows_wanted},
    tokens,
};
use claims::Newcomer;
use ipam_api::{
    names::{NodeName, PoolName},
    wire::{Allocator, FieldError, Listing, Node, NodeCredential, NodeSpec, NodeState},
};
use jiff::Timestamp;
use row::{NodeRow, OwnRow};

const DELETING: &str =
    "UPDATE node SET state = 'deleting', deletion = $2, version = version + 1 WHERE id = $1";

const LONGEST_UID: usize = 256;

statements!(DELETING; claim, claims, former, leave, own, row);

/// Which nodes a list has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeFilter {
    /// Only those of this pool.
    pub pool: Option<PoolName>,
}

impl Store {
    /// Registers a node: claims a block in the subnet of its address, or answers the claim it has.
    pub async fn put_node(
        &self,
        name: &NodeName,
        spec: &NodeSpec,
        change: &Change,
    ) -> Result<Written<Versioned<Node>>> {
        let spec = checked(spec)?;
        if may_be_plain(&spec, change) {
            let newcomer = Newcomer { name: name.clone(), spec: spec.clone(), by: change.by.clone() };
            if let Some(node) = self.registrar.register(newcomer).await? {
                return Ok(Written::Created(node));
            }
        }
        let now = self.now();
        let attempt = async || {
            let mut tx = self.db.write(Scope::Plan).await?;
            let old = row::find(&mut tx, name).await?;
            mutation::check(
                &change.precondition,
                &format!("node {name}"),
                old.as_ref().map(|old| old.version),
            )?;
            let was = match &old {
                Some(old) => Some(row::view(&mut tx, old, now).await?),
                None => None,
            };
            match &old {
                None => claim::claim(&mut tx, name, &spec, now).await?,
                Some(old) => again::again(&mut tx, old, &spec, now).await?,
            }
            let row = get(&mut tx, name).await?;
            let view = row::view(&mut tx, &row, now).await?;
            self.finish(tx, change, &Deed::of_node(was.as_deref(), Some(&view.value))?).await?;
            if spec.replace {
                // The former VM's tokens have ended.
                self.cache.forget();
            }
            Ok(if old.is_some() { Written::Updated(view) } else { Written::Created(view) })
        };
        retried!(self.db, attempt())
    }

    /// A node.
    pub async fn node(&self, name: &NodeName) -> Result<Versioned<Node>> {
        let mut tx = self.db.read().await?;
        let row = get(&mut tx, name).await?;
        row::view(&mut tx, &row, self.now()).await
    }

    /// Nodes by name.
    pub async fn nodes(&self, filter: &NodeFilter, page: &Page) -> Result<Listing<Node>> {
        let mut tx = self.db.read().await?;
        let (after, limit) = (name_after(page), rows_wanted(page));
        let rows: Vec<OwnRow> = match &filter.pool {
            None => tx.fetch_all(row::PAGE, args![after, limit]).await?,
            Some(pool) => tx.fetch_all(row::PAGE_OF_POOL, args![after, limit, pool.as_str()]).await?,
        };
        let (rows, next) = cut(rows, page, |row| row.name.clone());
        let views = row::views(&mut tx, &rows, self.now()).await?;
        Ok(Listing { items: views.into_iter().map(|view| view.value).collect(), next })
    }

    /// Ends a node's claim, now or when the node confirms that its block is empty (P6).
    pub async fn delete_node(
        &self,
        name: &NodeName,
        vm: VmState,
        change: &Change,
    ) -> Result<Departure<Node>> {
        let now = self.clock.now();
        let attempt = async || {
            let mut tx = self.db.write(Scope::Plan).await?;
            let row = get(&mut tx, name).await?;
            mutation::check(&change.precondition, &format!("node {name}"), Some(row.version))?;
            let was = row::view(&mut tx, &row, now.as_millisecond()).await?.value;
            let departure = match decide(&row, was.allocations, vm)? {
                End::Now => {
                    free_node(&mut tx, row.id, now).await?;
                    Departure::Freed
                }
                End::WhenConfirmed => {
                    if row.state()? != NodeState::Deleting {
                        // No two deletions of a service share one: claims are unique and versions rise.
                        let deletion = format!("d{}-{}", row.claim, row.version + 1);
                        tx.execute(DELETING, args![row.id, deletion]).await?;
                        mutation::changed(&mut tx).await?;
                    }
                    let view = node_view(&mut tx, name, now).await?;
                    Departure::Waiting(view.ok_or_else(|| corrupt(format!("node {name} is gone")))?)
                }
            };
            let became = match &departure {
                Departure::Freed => None,
                Departure::Waiting(node) => Some(node),
            };
            self.finish(tx, change, &Deed::of_node(Some(&was), became)?).await?;
            self.cache.forget();
            Ok(departure)
        };
        retried!(self.db, attempt())
    }
}

/// Whether it is worth while to try a registration together with others.
fn may_be_plain(spec: &NodeSpec, change: &Change) -> bool {
    change.commit == Commit::Keep
        && matches!(change.precondition, Precondition::None | Precondition::Absent)
        && !spec.replace
        && !spec.addresses.is_empty()
}

/// When a deleted node's block comes back.
enum End {
    Now,
    WhenConfirmed,
}

fn decide(row: &NodeRow, held: u64, vm: VmState) -> Result<End> {
    if vm == VmState::Gone {
        return Ok(End::Now);
    }
    Ok(match (row.allocator()?, row.state()?) {
        (Allocator::Service, _) if held > 0 => {
            return Err(StoreError::InUse(format!(
                "node {} holds {held} addresses that the service picked for it: delete those allocations first, or delete the node with vmGone=true if its VM is gone",
                row.name
            )));
        }
        // No shim has used the block, so nothing answers for its addresses.
        (Allocator::Service, _) => End::Now,
        (Allocator::Node, NodeState::Planned) if held == 0 => End::Now,
        (Allocator::Node, _) => End::WhenConfirmed,
    })
}

async fn get(tx: &mut Tx, name: &NodeName) -> Result<NodeRow> {
    row::find(tx, name).await?.ok_or_else(|| StoreError::NotFound(Kind::Node, name.to_string()))
}

/// A node's pool and where it is in its life.
pub(super) async fn brief(tx: &mut Tx, name: &NodeName) -> Result<Option<(PoolName, NodeState)>> {
    match row::find(tx, name).await? {
        Some(row) => Ok(Some((mutation::stored(row.pool_name())?, row.state()?))),
        None => Ok(None),
    }
}

/// What is known of the token that a node shows.
pub(super) async fn credential(tx: &mut Tx, name: &NodeName, now: i64) -> Result<Option<NodeCredential>> {
    Ok(tokens::shown_by_nodes(tx, &[name.as_str()], now).await?.remove(name.as_str()))
}

/// A node as the API shows it.
pub(super) async fn node_view(tx: &mut Tx, name: &NodeName, now: Timestamp) -> Result<Option<Node>> {
    match row::find(tx, name).await? {
        Some(row) => Ok(Some(row::view(tx, &row, now.as_millisecond()).await?.value)),
        None => Ok(None),
    }
}

/// A registration that makes sense by itself, its MAC address in lower case.
fn checked(spec: &NodeSpec) -> Result<NodeSpec> {
    let mut errors = Vec::new();
    let mut wrong = |pointer: String, detail: String| errors.push(FieldError { pointer, detail });
    for (i, address) in spec.addresses.iter().enumerate() {
        if spec.addresses[..i].iter().any(|other| other.is_ipv4() == address.is_ipv4()) {
            let detail = format!("{address} is a second address of its family: give one a family");
            wrong(format!("/addresses/{i}"), detail);
        }
    }
    if let Some(uid) = &spec.uid
        && !(1..=LONGEST_UID).contains(&uid.chars().count())
    {
        wrong(
            "/uid".to_owned(),
            format!("uid has to have 1 to {LONGEST_UID} characters; leave it out where there is none"),
        );
    }
    let mac = spec.mac.as_ref().map(|mac| mac.to_ascii_lowercase());
    if let Some(mac) = &mac
        && !is_mac(mac)
    {
        wrong("/mac".to_owned(), format!("mac {mac:?} is no MAC address: write it as 52:54:00:12:34:56"));
    }
    if errors.is_empty() { Ok(NodeSpec { mac, ..spec.clone() }) } else { Err(StoreError::Invalid(errors)) }
}

fn is_mac(text: &str) -> bool {
    let mut bytes = 0;
    text.split(':').all(|byte| {
        bytes += 1;
        byte.len() == 2 && byte.bytes().all(|b| b.is_ascii_hexdigit())
    }) && bytes == 6
}
