//! Claims of nodes that register at the same time, in one transaction. Most are plain: the name is not there, its address
//! is set aside for nodes, its subnet has a block planned for it. Such are looked up and written as a list. Any other is left
//! alone, to be decided by itself ([`claim`](super::claim)).

use super::{
    super::{
        Actor, Result, StoreError, Versioned,
        db::{Db, Scope, Sql, Tx, args, over, retried, rows, statements},
        events::{self, Deed},
        group_commit::{Queue, Work},
        measures::{Measures, Operation},
        mutation::corrupt,
        pools::{self, KnownPool},
        recovery,
        subnets::SubnetRow,
    },
    claim::{allocator, first_state, unclaimed},
    former,
    own::{self, Own},
    row,
};
use crate::clock::Clock;
use ipam_api::{
    line::Offset,
    names::{NodeName, PoolName},
    wire::{Node, NodeSpec},
};
use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    sync::Arc,
};

// Which of the asked: the name is no node's, the VM was not this node before, the address is no node's and lies in a
// reservation of users.
const PLAIN: Sql = over!(
    "SELECT CAST(asked.value ->> 0 AS BIGINT) FROM ",
    "$2",
    " AS asked
    CROSS JOIN extent AS e
    CROSS JOIN reservation AS r
    WHERE e.subnet = CAST(asked.value ->> 1 AS BIGINT)
        AND e.first = (SELECT MAX(l.first) FROM extent AS l WHERE l.subnet = CAST(asked.value ->> 1 AS BIGINT)
                       AND l.first <= CAST(asked.value ->> 2 AS BIGINT))
        AND r.id = e.reservation AND r.platform = 0
        AND NOT EXISTS (SELECT 1 FROM node AS n WHERE n.name = asked.value ->> 3)
        AND NOT EXISTS (SELECT 1 FROM former_vm AS f
                        WHERE f.node = asked.value ->> 3 AND f.uid = asked.value ->> 4 AND f.ended_at >= $1)
        AND NOT EXISTS (SELECT 1 FROM node AS n WHERE n.subnet = CAST(asked.value ->> 1 AS BIGINT)
                        AND n.own4 = CAST(asked.value ->> 5 AS BIGINT))
        AND NOT EXISTS (SELECT 1 FROM node AS n WHERE n.subnet = CAST(asked.value ->> 1 AS BIGINT)
                        AND n.own6 = CAST(asked.value ->> 6 AS BIGINT))
    ORDER BY 1"
);
const NUMBERS: &str = "UPDATE counter SET value = value + CASE name WHEN 'claim' THEN $1 ELSE 1 END
    WHERE name IN ('claim', 'change') RETURNING name, value";
const INSERT: Sql = over!(
    "INSERT INTO node
        (name, pool, subnet, own4, own6, uid, mac, allocator, state, claim, claimed_at, version)
    SELECT value ->> 0, CAST(value ->> 1 AS BIGINT), CAST(value ->> 2 AS BIGINT), CAST(value ->> 3 AS BIGINT),
        CAST(value ->> 4 AS BIGINT), value ->> 5, value ->> 6, value ->> 7, value ->> 8,
        CAST(value ->> 9 AS BIGINT), $1, $2
    FROM ",
    "$3",
    " AS new"
);
// A block that somebody has stays theirs, and the node without one is missed when it is read again. As a condition it would
// have PostgreSQL begin with all blocks that nobody has, where it believes them to be few.
const CLAIM: Sql = over!(
    "UPDATE block SET node = COALESCE(block.node, claimant.id) FROM ",
    "$1",
    " AS given JOIN node AS claimant ON claimant.claim = CAST(given.value ->> 1 AS BIGINT)
    WHERE block.id = CAST(given.value ->> 0 AS BIGINT)"
);

statements!(PLAIN, INSERT, CLAIM);

/// A node that wants to register; its request makes sense by itself.
#[derive(Debug, Clone)]
pub(in crate::store) struct Newcomer {
    pub(super) name: NodeName,
    pub(super) spec: NodeSpec,
    pub(super) by: Actor,
}

/// Gathers nodes that want to register and has them claim together.
#[derive(Debug, Clone)]
pub(in crate::store) struct Registrar {
    queue: Queue<Newcomer, Option<Versioned<Node>>>,
    measures: Measures,
}

impl Registrar {
    /// Starts the task that registers; it ends with [`Registrar::stop`] or with the last handle.
    pub(in crate::store) fn start(db: &Db, clock: &Arc<dyn Clock>) -> Self {
        let claims = Claims { db: db.clone(), clock: Arc::clone(clock) };
        // Plans are made one at a time.
        Self { queue: Queue::start(1, &claims), measures: db.measures().clone() }
    }

    /// Registers a node with whatever else waits; `None` if it has to be decided by itself, and nothing has happened.
    pub(super) async fn register(&self, newcomer: Newcomer) -> Result<Option<Versioned<Node>>> {
        let timer = self.measures.time(Operation::Claim);
        self.queue.submit(newcomer, timer.span().clone()).await
    }

    /// Whether nodes are still taken.
    pub(in crate::store) fn is_running(&self) -> bool {
        self.queue.is_running()
    }

    /// Registers what was accepted; later nodes are refused.
    pub(in crate::store) async fn stop(&self) {
        self.queue.stop().await;
    }
}

/// How nodes claim.
#[derive(Debug, Clone)]
struct Claims {
    db: Db,
    clock: Arc<dyn Clock>,
}

impl Work for Claims {
    type Job = Newcomer;
    type Answer = Option<Versioned<Node>>;

    async fn together(&self, newcomers: Vec<Newcomer>) -> Vec<Result<Option<Versioned<Node>>>> {
        // One by itself, too: while it is written others gather.
        match retried!(self.db, claim(&self.db, &*self.clock, &newcomers)) {
            Ok(nodes) => nodes.into_iter().map(Ok).collect(),
            // Whether they have claimed is not known.
            Err(StoreError::Unavailable(why)) => {
                newcomers.iter().map(|_| Err(StoreError::Unavailable(why.clone()))).collect()
            }
            Err(error) => {
                tracing::warn!(%error, nodes = newcomers.len(), "claims refused, each is tried by itself");
                newcomers.iter().map(|_| Ok(None)).collect()
            }
        }
    }
}

/// A newcomer and where it belongs.
#[derive(Debug, Clone, Copy)]
struct Draft<'a> {
    /// Which of the newcomers it is.
    index: usize,
    newcomer: &'a Newcomer,
    pool: &'a KnownPool,
    subnet: &'a SubnetRow,
    own: Own,
    /// Of its own addresses.
    offset: Offset,
}

/// Registers those that are plain, in their order; `None` for each other.
async fn claim(db: &Db, clock: &dyn Clock, newcomers: &[Newcomer]) -> Result<Vec<Option<Versioned<Node>>>> {
    let mut registered = vec![None; newcomers.len()];
    let mut tx = db.write(Scope::Plan).await?;
    // Whoever planned before is done: events are in the order of their times.
    let now = clock.now().as_millisecond();
    if recovery::goes_on(&mut tx).await? {
        return Ok(registered);
    }
    let pools = pools_of(&mut tx, newcomers).await?;
    let drafts = drafts(newcomers, &pools);
    let drafts = plain(&mut tx, drafts, now).await?;
    let drafts = with_blocks(&mut tx, drafts).await?;
    if drafts.is_empty() {
        return Ok(registered);
    }
    let claims = write(&mut tx, &drafts, now).await?;
    let nodes = row::of_claims(&mut tx, claims).await?;
    let views = row::views(&mut tx, &nodes, now).await?;
    if views.len() != drafts.len() {
        return Err(corrupt(format!("{} of {} nodes have a block", views.len(), drafts.len())));
    }
    let deeds =
        views.iter().map(|view| Deed::of_node(None, Some(&view.value))).collect::<Result<Vec<_>>>()?;
    let deeds: Vec<_> = drafts.iter().map(|(draft, _)| &draft.newcomer.by).zip(&deeds).collect();
    events::note(&mut tx, &deeds, now).await?;
    tx.commit().await?;
    for ((draft, _), view) in drafts.iter().zip(views) {
        registered[draft.index] = Some(view);
    }
    Ok(registered)
}

/// A pool and its subnets, in the order of its members.
type PoolAndSubnets = (KnownPool, Vec<SubnetRow>);

async fn pools_of<'a>(
    tx: &mut Tx,
    newcomers: &'a [Newcomer],
) -> Result<HashMap<&'a PoolName, PoolAndSubnets>> {
    let mut pools = HashMap::new();
    let names: HashSet<&PoolName> = newcomers.iter().map(|newcomer| &newcomer.spec.pool).collect();
    for name in names {
        let Some(pool) = pools::known(tx, name).await? else { continue };
        let subnets = own::subnets_of(tx, &pool).await?;
        pools.insert(name, (pool, subnets));
    }
    Ok(pools)
}

/// Those that name one offset of a subnet of their pool, each name and offset once.
fn drafts<'a>(newcomers: &'a [Newcomer], pools: &'a HashMap<&PoolName, PoolAndSubnets>) -> Vec<Draft<'a>> {
    let (mut names, mut places) = (HashSet::new(), HashSet::new());
    let mut drafts = Vec::with_capacity(newcomers.len());
    for (index, newcomer) in newcomers.iter().enumerate() {
        let Some((pool, subnets)) = pools.get(&newcomer.spec.pool) else { continue };
        let Ok((at, own)) = own::find(pool, subnets, &newcomer.spec.addresses) else { continue };
        let (Some(subnet), &[offset]) = (subnets.get(at), own.offsets().as_slice()) else { continue };
        let new = names.insert(&newcomer.name);
        if places.insert((subnet.id, offset)) && new {
            drafts.push(Draft { index, newcomer, pool, subnet, own, offset });
        }
    }
    drafts
}

/// Those that have nothing in their way.
async fn plain<'a>(tx: &mut Tx, drafts: Vec<Draft<'a>>, now: i64) -> Result<Vec<Draft<'a>>> {
    if drafts.is_empty() {
        return Ok(drafts);
    }
    let asked = |(at, draft): (usize, &Draft<'a>)| {
        let Newcomer { name, spec, .. } = draft.newcomer;
        let (own4, own6) = (draft.own.v4.map(|own| own.0), draft.own.v6.map(|own| own.0));
        (at, draft.subnet.id, draft.offset.0, name.clone(), spec.uid.clone(), own4, own6)
    };
    let asked: Vec<_> = drafts.iter().enumerate().map(asked).collect();
    let found: Vec<(i64,)> = tx.fetch_all(PLAIN, args![now - former::REMEMBERED, rows(&asked)?]).await?;
    found
        .into_iter()
        .map(|(at,)| usize::try_from(at).ok().and_then(|at| drafts.get(at)).copied())
        .map(|draft| draft.ok_or_else(|| corrupt("a node that nobody asked for")))
        .collect()
}

/// Those for which their pool has a block planned in their subnet, and which.
async fn with_blocks<'a>(tx: &mut Tx, drafts: Vec<Draft<'a>>) -> Result<Vec<(Draft<'a>, i64)>> {
    let most = drafts.len() as u64;
    let mut planned = HashMap::new();
    let mut given = Vec::with_capacity(drafts.len());
    for draft in drafts {
        let blocks = match planned.entry((draft.pool.id, draft.subnet.id)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => {
                unknown.insert(unclaimed(tx, draft.pool, draft.subnet.id, most).await?.into_iter())
            }
        };
        given.extend(blocks.next().map(|block| (draft, block)));
    }
    Ok(given)
}

/// Makes the nodes and gives them their blocks; their claims, in order.
async fn write(
    tx: &mut Tx,
    drafts: &[(Draft<'_>, i64)],
    now: i64,
) -> Result<impl Iterator<Item = i64> + use<>> {
    let count = drafts.len() as u64;
    let numbers: HashMap<String, i64> =
        tx.fetch_all::<(String, i64)>(NUMBERS, args![count]).await?.into_iter().collect();
    let (Some(last), Some(change)) = (numbers.get("claim"), numbers.get("change")) else {
        return Err(corrupt("a counter is missing"));
    };
    let claims = last - count.cast_signed() + 1..=*last;
    let new = |((draft, _), claim): (&(Draft<'_>, i64), i64)| {
        let Newcomer { name, spec, .. } = draft.newcomer;
        let (own4, own6) = (draft.own.v4.map(|own| own.0), draft.own.v6.map(|own| own.0));
        let place = (name.clone(), draft.pool.id, draft.subnet.id, own4, own6);
        let (by, state) = (allocator(spec.allocator), first_state(spec.allocator));
        (place.0, place.1, place.2, place.3, place.4, spec.uid.clone(), spec.mac.clone(), by, state, claim)
    };
    let new: Vec<_> = drafts.iter().zip(claims.clone()).map(new).collect();
    // What comes later has the next count.
    tx.execute(INSERT, args![now, change - 1, rows(&new)?]).await?;
    let given: Vec<_> = drafts.iter().map(|(_, block)| *block).zip(claims.clone()).collect();
    tx.execute(CLAIM, args![rows(&given)?]).await?;
    Ok(claims)
}
