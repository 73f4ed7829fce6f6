mod apply;
mod resize;
mod row;
mod supply;

pub(super) use apply::{Wish, give_back, settle, take, wish, wrong};
pub(super) use resize::{resize, resizing};
pub(super) use row::{KnownPool, Member, StoredPool, all, by_id, find, get, known, shape};
pub(super) use supply::{Detail, OwnNeed, holdings, own_need, shares, supply, unclaimed};

use super::{
    Change, Page, Result, Store, StoreError, Versioned, Written,
    db::{Scope, Tx, args, retried, statements},
    events::Deed,
    mutation::{self, SomeOf, changed, listing, rows_wanted},
    recovery, subnets,
    tiling::{self, Tile, Use},
};
use ipam_api::{
    line::Extent,
    names::PoolName,
    wire::{Alignment, Contiguity, FieldError, Listing, NodeAddress, Pool, PoolSpec, PoolSubnet},
};
use std::collections::BTreeMap;

const INSERT: &str = "INSERT INTO pool (name, max_pods, nodes, surge, headroom, alignment, contiguous,
        node_address, rest_seconds, version, created_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, (SELECT value FROM counter WHERE name = 'change'), $10)
    RETURNING id";
const UPDATE: &str = "UPDATE pool SET max_pods = $2, nodes = $3, surge = $4, headroom = $5, alignment = $6,
        contiguous = $7, node_address = $8, rest_seconds = $9, version = version + 1
    WHERE id = $1";
const CLEAR_SUBNETS: &str = "DELETE FROM pool_subnet WHERE pool = $1";
const ADD_SUBNET: &str = "INSERT INTO pool_subnet (pool, position, subnet, nodes) VALUES ($1, $2, $3, $4)";
const SOME_NODES: &str = "SELECT name FROM node WHERE pool = $1 ORDER BY name LIMIT 5";
const NODES_IN: &str = "SELECT name FROM node WHERE pool = $1 AND subnet = $2 ORDER BY name";
const BLOCKS: &str = "SELECT b.subnet, e.first, e.next FROM block AS b JOIN extent AS e ON e.block = b.id
    WHERE b.pool = $1 ORDER BY b.subnet, e.first";
const DELETE_BLOCKS: &str = "DELETE FROM block WHERE pool = $1";
const DELETE: &str = "DELETE FROM pool WHERE id = $1";

statements!(SOME_NODES, NODES_IN, BLOCKS, DELETE_BLOCKS, DELETE; row, supply, apply, resize);

impl Store {
    /// Makes a pool and reserves all its blocks, or changes it and its plan; all at once or not at all.
    pub async fn put_pool(
        &self,
        name: &PoolName,
        spec: &PoolSpec,
        change: &Change,
    ) -> Result<Written<Versioned<Pool>>> {
        check_spec(spec)?;
        let attempt = async || {
            let mut tx = self.db.write(Scope::Plan).await?;
            let old = find(&mut tx, name).await?;
            mutation::check(
                &change.precondition,
                &format!("pool {name}"),
                old.as_ref().map(|old| old.version),
            )?;
            match &old {
                None => {
                    recovery::refuse(&mut tx).await?;
                    let members = members(&mut tx, spec).await?;
                    let args = args![
                        name.as_str(),
                        spec.max_pods.get(),
                        spec.nodes.get(),
                        spec.surge.to_string(),
                        spec.headroom.get(),
                        alignment(spec.alignment),
                        contiguous(spec.contiguous),
                        node_address(spec.node_address),
                        spec.rest_seconds.get(),
                        self.now(),
                    ];
                    let (id,): (i64,) = tx.fetch_one(INSERT, args).await?;
                    put_members(&mut tx, id, &members).await?;
                    plan_in(&mut tx, id, &[]).await?;
                    changed(&mut tx).await?;
                }
                // A pool short of blocks (a node left where no more are wanted) may find room by now.
                Some(old) if old.spec == *spec && old.blocks < old.wanted() => {
                    settle(&mut tx, old.id).await?;
                    changed(&mut tx).await?;
                }
                Some(old) if old.spec == *spec => {}
                Some(old) => {
                    recovery::refuse(&mut tx).await?;
                    check_change(&mut tx, old, spec).await?;
                    update(&mut tx, old, spec).await?;
                    changed(&mut tx).await?;
                }
            }
            let view = get(&mut tx, name).await?.view()?;
            let was = old.map(StoredPool::view).transpose()?;
            self.finish(tx, change, &deed(name, was.as_deref(), Some(&view.value))?).await?;
            Ok(if was.is_some() { Written::Updated(view) } else { Written::Created(view) })
        };
        retried!(self.db, attempt())
    }

    /// A pool.
    pub async fn pool(&self, name: &PoolName) -> Result<Versioned<Pool>> {
        let mut tx = self.db.read().await?;
        get(&mut tx, name).await?.view()
    }

    /// Pools by name.
    pub async fn pools(&self, page: &Page) -> Result<Listing<Pool>> {
        let mut tx = self.db.read().await?;
        let rows = row::after(&mut tx, mutation::name_after(page), rows_wanted(page)).await?;
        listing(rows, page, |pool| pool.name.to_string(), |pool| Ok(pool.view()?.value))
    }

    /// Deletes a pool without nodes and gives its blocks back.
    pub async fn delete_pool(&self, name: &PoolName, change: &Change) -> Result<()> {
        let attempt = async || {
            let mut tx = self.db.write(Scope::Plan).await?;
            let pool = get(&mut tx, name).await?;
            mutation::check(&change.precondition, &format!("pool {name}"), Some(pool.version))?;
            if pool.claimed > 0 {
                let rows: Vec<(String,)> = tx.fetch_all(SOME_NODES, args![pool.id]).await?;
                let names: Vec<_> = rows.into_iter().map(|(name,)| name).collect();
                return Err(StoreError::InUse(format!(
                    "pool {name} has {} (delete them first)",
                    SomeOf::counted("node", &names, pool.claimed)
                )));
            }
            let mut freed: BTreeMap<i64, Vec<Tile>> = BTreeMap::new();
            for (subnet, first, next) in tx.fetch_all::<(i64, i64, i64)>(BLOCKS, args![pool.id]).await? {
                freed.entry(subnet).or_default().push(Tile::new(tiling::extent(first, next)?, Use::Free));
            }
            for (subnet, edits) in freed {
                tiling::retile(&mut tx, subnet, edits).await?;
            }
            for sql in [DELETE_BLOCKS, CLEAR_SUBNETS, DELETE] {
                tx.execute(sql, args![pool.id]).await?;
            }
            changed(&mut tx).await?;
            self.finish(tx, change, &deed(name, Some(&pool.view()?.value), None)?).await
        };
        retried!(self.db, attempt())
    }
}

fn deed(name: &PoolName, was: Option<&Pool>, became: Option<&Pool>) -> Result<Deed> {
    Deed::of(format!("pool/{name}"), was, became)
}

fn alignment(alignment: Alignment) -> &'static str {
    match alignment {
        Alignment::Exact => "exact",
        Alignment::Prefix => "prefix",
    }
}

fn contiguous(contiguity: Contiguity) -> &'static str {
    match contiguity {
        Contiguity::Preferred => "preferred",
        Contiguity::Required => "required",
    }
}

fn node_address(node_address: NodeAddress) -> &'static str {
    match node_address {
        NodeAddress::External => "external",
        NodeAddress::Assigned => "assigned",
    }
}

/// Most blocks of a pool, and of a plan: one request must not keep the database busy for minutes.
pub(super) const MOST_BLOCKS: u64 = 1 << 18;

/// Most subnets of a pool and of a plan, and most pools of a plan.
pub(super) const MOST_SUBNETS: usize = 256;

/// Blocks a pool plans: nodes and surge.
pub(super) fn blocks(spec: &PoolSpec) -> u64 {
    spec.nodes.get() + spec.surge.of(spec.nodes)
}

pub(super) fn too_many_blocks(blocks: u64) -> String {
    format!(
        "nodes and surge make {blocks} blocks and {MOST_BLOCKS} are planned at once at most: lower nodes or surge"
    )
}

/// What is wrong with a pool, whatever else there is.
pub(super) fn check_spec(spec: &PoolSpec) -> Result<()> {
    if spec.subnets.is_empty() {
        return Err(StoreError::invalid(
            "/subnets",
            "subnets is empty: name at least one, for example prod/nodes",
        ));
    }
    if spec.subnets.len() > MOST_SUBNETS {
        return Err(StoreError::invalid(
            "/subnets",
            format!(
                "subnets has {} items: give at most {MOST_SUBNETS}, or make several pools",
                spec.subnets.len()
            ),
        ));
    }
    let mut errors = Vec::new();
    for (i, PoolSubnet { subnet, .. }) in spec.subnets.iter().enumerate() {
        if spec.subnets[..i].iter().any(|other| other.subnet == *subnet) {
            let detail = format!("subnet {subnet} is named twice: name it once");
            errors.push(FieldError { pointer: format!("/subnets/{i}/subnet"), detail });
        }
    }
    let blocks = blocks(spec);
    if blocks > MOST_BLOCKS {
        errors.push(FieldError { pointer: "/nodes".to_owned(), detail: too_many_blocks(blocks) });
    }
    let fixed: u64 = spec.subnets.iter().filter_map(|subnet| subnet.nodes).map(|nodes| nodes.get()).sum();
    if fixed > spec.nodes.get() {
        let detail = format!(
            "the subnets ask for {fixed} nodes and nodes is {}: raise nodes or lower the numbers of the subnets",
            spec.nodes
        );
        errors.push(FieldError { pointer: "/nodes".to_owned(), detail });
    }
    if errors.is_empty() { Ok(()) } else { Err(StoreError::Invalid(errors)) }
}

/// The subnets that a pool names.
pub(super) async fn members(tx: &mut Tx, spec: &PoolSpec) -> Result<Vec<Member>> {
    let mut members = Vec::new();
    let mut errors = Vec::new();
    for (i, asked) in spec.subnets.iter().enumerate() {
        match subnets::find(tx, &asked.subnet).await? {
            Some(row) => members.push(Member { subnet: row.id, asked: asked.clone() }),
            None => errors.push(FieldError {
                pointer: format!("/subnets/{i}/subnet"),
                detail: format!("there is no subnet {}: create it or name another", asked.subnet),
            }),
        }
    }
    if errors.is_empty() { Ok(members) } else { Err(StoreError::Invalid(errors)) }
}

async fn put_members(tx: &mut Tx, pool: i64, members: &[Member]) -> Result<()> {
    tx.execute(CLEAR_SUBNETS, args![pool]).await?;
    for (position, member) in members.iter().enumerate() {
        let nodes = member.asked.nodes.map(|nodes| nodes.get());
        tx.execute(ADD_SUBNET, args![pool, position as u64, member.subnet, nodes]).await?;
    }
    Ok(())
}

/// Plans a pool as it is stored now and does what the plan says.
async fn plan_in(tx: &mut Tx, pool: i64, leaves: &[Member]) -> Result<()> {
    let pool = by_id(tx, pool).await?;
    let draft = apply::draft(tx, &pool, leaves).await.map_err(StoreError::from)?;
    if !draft.is_empty() {
        apply::apply(tx, &draft).await?;
    }
    Ok(())
}

/// What of a pool cannot change, or not while it has nodes there.
pub(super) async fn check_change(tx: &mut Tx, old: &StoredPool, spec: &PoolSpec) -> Result<()> {
    let name = &old.name;
    if old.spec.alignment != spec.alignment {
        return Err(StoreError::Exists(format!(
            "pool {name} has alignment {}, fixed at creation: keep it, or make another pool",
            alignment(old.spec.alignment)
        )));
    }
    for member in left(old, spec) {
        let rows: Vec<(String,)> = tx.fetch_all(NODES_IN, args![old.id, member.subnet]).await?;
        let names: Vec<_> = rows.into_iter().map(|(name,)| name).collect();
        if !names.is_empty() {
            return Err(StoreError::InUse(format!(
                "pool {name} cannot leave subnet {}: it has {} there (delete them first)",
                member.asked.subnet,
                SomeOf::new("node", &names)
            )));
        }
    }
    Ok(())
}

/// The subnets that a pool is to leave.
pub(super) fn left(old: &StoredPool, spec: &PoolSpec) -> Vec<Member> {
    let stays = |member: &&Member| spec.subnets.iter().any(|asked| asked.subnet == member.asked.subnet);
    old.members.iter().filter(|member| !stays(member)).cloned().collect()
}

/// Whether a planned block may stay when its pool becomes as asked.
pub(super) fn keeps_shape(extents: &[Extent], spec: &PoolSpec) -> bool {
    let size: u64 = extents.iter().map(|extent| extent.size()).sum();
    size == shape(spec).size() && (spec.contiguous == Contiguity::Preferred || extents.len() == 1)
}

async fn update(tx: &mut Tx, old: &StoredPool, spec: &PoolSpec) -> Result<()> {
    let members = members(tx, spec).await?;
    if shape(&old.spec) != shape(spec) {
        for member in &old.members {
            let mut blocks = unclaimed(tx, old.id, member.subnet).await?;
            blocks.retain(|block| !keeps_shape(&block.extents, spec));
            let ids: Vec<i64> = blocks.iter().map(|block| block.id).collect();
            let extents: Vec<Extent> = blocks.into_iter().flat_map(|block| block.extents).collect();
            give_back(tx, member.subnet, &ids, &extents).await?;
        }
    }
    let args = args![
        old.id,
        spec.max_pods.get(),
        spec.nodes.get(),
        spec.surge.to_string(),
        spec.headroom.get(),
        alignment(spec.alignment),
        contiguous(spec.contiguous),
        node_address(spec.node_address),
        spec.rest_seconds.get(),
    ];
    tx.execute(UPDATE, args).await?;
    put_members(tx, old.id, &members).await?;
    if shape(&old.spec).size() != shape(spec).size() {
        // Before new blocks are planned: what lies beside a claimed block is of most use to it.
        resize(tx, old, spec).await?;
    }
    plan_in(tx, old.id, &left(old, spec)).await
}
