use super::{
    Result, Store, StoreError, Versioned,
    db::{Tx, args},
    mutation::CHANGES,
    pools::{self, Detail, StoredPool},
    subnets, vnets,
};
use ipam_api::{
    names::SubnetPath,
    planning::{self, PoolShare, Quota, SubnetSupply, Supplies},
    wire::{FieldError, HypotheticalSubnet, Plan, PlanRequest, PoolDemand, PoolSpec},
};
use std::collections::HashSet;

impl Store {
    /// What a set of pools would take, without taking it; the version changes whenever the answer may.
    ///
    /// A plan that does not fit is an answer; one that a pool could not be changed to is refused
    /// as the change would be.
    pub async fn plan(&self, request: &PlanRequest) -> Result<Versioned<Plan>> {
        if request.pools.is_empty() {
            return Err(StoreError::invalid("/pools", "pools is empty: give at least one pool to plan"));
        }
        check_sizes(request)?;
        let mut tx = self.db.read().await?;
        let (version,): (i64,) = tx.fetch_one(CHANGES, args![]).await?;
        let mut supplies = imagined(&mut tx, &request.subnets).await?;
        let mut demands = Vec::with_capacity(request.pools.len());
        for (i, demand) in request.pools.iter().enumerate() {
            let planned = plan_pool(&mut tx, demand, &mut supplies).await;
            demands.push(planned.map_err(|error| below(&format!("/pools/{i}"), error))?);
        }
        drop(tx);
        // A large plan is seconds of arithmetic: beside the threads that answer others.
        let value = tokio::task::spawn_blocking(move || planning::what_if(supplies, &demands))
            .await
            .map_err(|_| StoreError::Unavailable("the plan was interrupted: ask again".to_owned()))?
            .map_err(|invalid| pools::wrong(&invalid))?;
        Ok(Versioned { value, version: version.cast_unsigned() })
    }
}

/// Names and numbers of a request, before anything is read.
fn check_sizes(request: &PlanRequest) -> Result<()> {
    for (pointer, count) in [("/pools", request.pools.len()), ("/subnets", request.subnets.len())] {
        if count > pools::MOST_SUBNETS {
            let detail = format!(
                "{} has {count} items: plan at most {} at once",
                pointer.trim_start_matches('/'),
                pools::MOST_SUBNETS
            );
            return Err(StoreError::invalid(pointer, detail));
        }
    }
    let mut errors = Vec::new();
    let (mut names, mut blocks) = (HashSet::new(), 0u64);
    for (i, pool) in request.pools.iter().enumerate() {
        if !names.insert(&pool.name) {
            let detail = format!("pool {} is planned twice: name it once", pool.name);
            errors.push(FieldError { pointer: format!("/pools/{i}/name"), detail });
        }
        let before = blocks;
        blocks += pool.nodes.get() + pool.surge.of(pool.nodes);
        if before <= pools::MOST_BLOCKS && blocks > pools::MOST_BLOCKS {
            let detail = pools::too_many_blocks(blocks);
            errors.push(FieldError { pointer: format!("/pools/{i}/nodes"), detail });
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(StoreError::Invalid(errors)) }
}

/// The same error with its pointers below another.
fn below(prefix: &str, error: StoreError) -> StoreError {
    match error {
        StoreError::Invalid(fields) => StoreError::Invalid(
            fields
                .into_iter()
                .map(|field| FieldError { pointer: format!("{prefix}{}", field.pointer), ..field })
                .collect(),
        ),
        other => other,
    }
}

/// Subnets that are not there, by the rules of those that are made.
async fn imagined(tx: &mut Tx, asked: &[HypotheticalSubnet]) -> Result<Supplies> {
    let mut supplies = Supplies::new();
    for (i, HypotheticalSubnet { subnet, cidrs }) in asked.iter().enumerate() {
        // Before its place, which one of the same name has as well.
        if supplies.contains_key(subnet) || subnets::find(tx, subnet).await?.is_some() {
            return Err(StoreError::invalid(
                &format!("/subnets/{i}/subnet"),
                format!(
                    "there is a subnet {subnet} already: give the imagined one another name, or leave it out"
                ),
            ));
        }
        let below = |error| below(&format!("/subnets/{i}"), error);
        let line = subnets::check_new(cidrs).map_err(below)?;
        if let Some(vnet) = vnets::find(tx, &subnet.vnet).await? {
            subnets::check_place(tx, &vnet, line).await.map_err(below)?;
        }
        let siblings = asked[..i].iter().filter(|other| other.subnet.vnet == subnet.vnet);
        for (cidr, other) in
            siblings.flat_map(|other| &other.cidrs).flat_map(|o| cidrs.iter().map(move |c| (c, o)))
        {
            if vnets::overlap(*cidr, *other) {
                return Err(StoreError::Overlap(format!(
                    "{cidr} of the imagined subnet {subnet} overlaps {other} of another: choose CIDRs apart"
                )));
            }
        }
        supplies.insert(subnet.clone(), SubnetSupply::empty(line));
    }
    Ok(supplies)
}

/// The demand of a pool as it would become; its subnets are added to the supplies.
async fn plan_pool(
    tx: &mut Tx,
    demand: &PoolDemand,
    supplies: &mut Supplies,
) -> Result<planning::PoolDemand> {
    let old = pools::find(tx, &demand.name).await?;
    let spec = PoolSpec {
        subnets: demand.subnets.clone(),
        max_pods: demand.max_pods,
        nodes: demand.nodes,
        surge: demand.surge,
        headroom: demand.headroom,
        alignment: demand.alignment,
        contiguous: demand.contiguous,
        node_address: demand.node_address,
        rest_seconds: old.as_ref().map(|old| old.spec.rest_seconds).unwrap_or_default(),
    };
    pools::check_spec(&spec)?;
    for (i, asked) in spec.subnets.iter().enumerate() {
        if !add_subnet(tx, &asked.subnet, supplies).await? {
            return Err(StoreError::invalid(
                &format!("/subnets/{i}/subnet"),
                format!(
                    "there is no subnet {}: name one that exists or add it to the plan's subnets",
                    asked.subnet
                ),
            ));
        }
    }
    let new = || spec.subnets.iter().map(|asked| PoolShare::new(asked.subnet.clone(), asked.nodes)).collect();
    let shares = match &old {
        None => new(),
        Some(old) => {
            pools::check_change(tx, old, &spec).await?;
            shares_of(tx, old, &spec, supplies).await?
        }
    };
    Ok(planning::PoolDemand {
        name: demand.name.clone(),
        shape: pools::shape(&spec),
        nodes: spec.nodes,
        surge: spec.surge,
        shares,
    })
}

/// Adds what a subnet has to give; false if there is no such subnet.
async fn add_subnet(tx: &mut Tx, path: &SubnetPath, supplies: &mut Supplies) -> Result<bool> {
    if supplies.contains_key(path) {
        return Ok(true);
    }
    match subnets::find(tx, path).await? {
        None => Ok(false),
        Some(row) => {
            supplies.insert(path.clone(), pools::supply(tx, &row).await?);
            Ok(true)
        }
    }
}

/// The shares of a pool that exists, as the plan asks for; blocks that could not keep their shape are free.
async fn shares_of(
    tx: &mut Tx,
    old: &StoredPool,
    spec: &PoolSpec,
    supplies: &mut Supplies,
) -> Result<Vec<PoolShare>> {
    let mut has: Vec<PoolShare> =
        pools::shares(tx, old, &[], Detail::Extents).await?.into_iter().map(|share| share.share).collect();
    for share in &mut has {
        add_subnet(tx, &share.subnet, supplies).await?;
        let Some(supply) = supplies.get_mut(&share.subnet) else { continue };
        let (kept, freed): (Vec<_>, Vec<_>) = std::mem::take(&mut share.unclaimed)
            .into_iter()
            .partition(|block| pools::keeps_shape(block, spec));
        supply.own_promised = supply.own_promised.saturating_sub(freed.len() as u64);
        for extent in freed.iter().flatten() {
            supply.free.give_back(*extent).map_err(super::mutation::corrupt)?;
        }
        share.unclaimed = kept;
    }
    if pools::shape(&old.spec).size() != pools::shape(spec).size() {
        pools::resizing(tx, old, spec, supplies).await?;
    }
    let mut shares: Vec<PoolShare> = Vec::with_capacity(spec.subnets.len());
    for asked in &spec.subnets {
        let new = PoolShare::new(asked.subnet.clone(), asked.nodes);
        let was = has.iter().position(|share| share.subnet == asked.subnet).map(|i| has.swap_remove(i));
        shares.push(match was {
            Some(was) => PoolShare { quota: new.quota, ..was },
            None => new,
        });
    }
    shares.extend(has.into_iter().map(|share| PoolShare { quota: Quota::Leave, ..share }));
    Ok(shares)
}
