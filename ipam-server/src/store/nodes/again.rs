//! A registration of a name that is there: the same again, or another VM in its place (P9).

use super::{
    super::{
        Result, StoreError,
        db::{Tx, args},
        mutation::changed,
        pools, recovery, subnets, tiling, tokens,
    },
    claim::{allocator, first_state, next_claim},
    former,
    leave::{end_holdings, own_given_up},
    own::{self, Own},
    row::NodeRow,
};
use ipam_api::wire::{NodeSpec, NodeState};

const FILL_IN: &str = "UPDATE node SET uid = $2, mac = $3, version = version + 1 WHERE id = $1";
const REPLACE: &str = "UPDATE node SET own4 = $2, own6 = $3, uid = $4, mac = $5, allocator = $6, state = $7,
        claim = $8, claimed_at = $9, deletion = NULL, machine = NULL, boot_id = NULL, boot_seq = 0,
        floor_seq = 0, last_contact = NULL, version = version + 1
    WHERE id = $1";

/// What a VM needs that is there again while its name is another's.
const ANOTHER: &str = "needs another uid, or this node deleted first";

/// Registers a node whose name is there.
pub(super) async fn again(tx: &mut Tx, old: &NodeRow, spec: &NodeSpec, now: i64) -> Result<()> {
    let name = &old.name;
    if old.pool_name() != spec.pool.as_str() {
        return Err(StoreError::Exists(format!(
            "node {name} is in pool {}: delete it and register it anew, or name that pool",
            old.pool_name()
        )));
    }
    if spec.replace {
        let Some(uid) = &spec.uid else {
            return Err(StoreError::invalid(
                "/uid",
                "replace needs the uid of the new VM, so that the request may arrive twice: give one",
            ));
        };
        // The VM that has the claim is never gone while it asks: to it this is the same request again.
        if old.uid.as_ref() != Some(uid) {
            return replace(tx, old, spec, uid, now).await;
        }
    }
    if old.state()? == NodeState::Deleting {
        return Err(StoreError::InUse(format!(
            "node {name} is being deleted and its block not yet confirmed empty: wait for its last sync; if its VM is gone, delete it with vmGone=true or register the new VM with replace and its uid"
        )));
    }
    let same_place = spec.addresses.is_empty()
        || own::on_line(old.line()?, &spec.addresses).is_ok_and(|own| own == Own::of_row(old));
    if !same_place {
        let has: Vec<_> = old.addresses()?.iter().map(ToString::to_string).collect();
        return Err(StoreError::Exists(format!(
            "node {name} has the addresses {}: delete it and register it anew, or name the same",
            has.join(", ")
        )));
    }
    if old.allocator()? != spec.allocator {
        return Err(StoreError::Exists(format!(
            "node {name} has allocator {}: delete it and register it anew, or name the same",
            allocator(old.allocator()?)
        )));
    }
    if let (Some(has), Some(asked)) = (&old.uid, &spec.uid)
        && has != asked
    {
        return Err(StoreError::Exists(format!(
            "node {name} is another VM, of uid {has}: give this one another name; if that VM is gone, register with replace"
        )));
    }
    let uid = spec.uid.clone().or_else(|| old.uid.clone());
    let mac = spec.mac.clone().or_else(|| old.mac.clone());
    if let (None, Some(uid)) = (&old.uid, &spec.uid) {
        // Filled in late it would pass the node off as the VM that it was before.
        former::refuse(tx, name, uid, now, ANOTHER).await?;
    }
    if uid != old.uid || mac != old.mac {
        tx.execute(FILL_IN, args![old.id, uid, mac]).await?;
        changed(tx).await?;
    }
    Ok(())
}

/// Puts another VM in the place of one that is gone: it gets the block, in a new claim.
async fn replace(tx: &mut Tx, old: &NodeRow, spec: &NodeSpec, uid: &str, now: i64) -> Result<()> {
    recovery::refuse(tx).await?;
    former::refuse(tx, &old.name, uid, now, ANOTHER).await?;
    let own = if spec.addresses.is_empty() {
        Own::of_row(old)
    } else {
        own::on_line(old.line()?, &spec.addresses).map_err(|error| elsewhere(old, error))?
    };
    end_holdings(tx, old, now).await?;
    // Whoever replaces it says that the VM is gone, and with it what lived where the block has shrunk.
    tiling::settle(tx, old.subnet, old.block).await?;
    // They are the gone VM's: its successor gets its own.
    tokens::end_of_node(tx, &old.name, now).await?;
    if let Some(gone) = &old.uid {
        former::note(tx, &old.name, gone, now).await?;
    }
    let subnet = subnets::by_id(tx, old.subnet).await?;
    let lacked = pools::own_need(tx, old.subnet).await?;
    if own != Own::of_row(old) {
        // Given up first, so that the new ones may be where the old ones were.
        let given_up = own_given_up(tx, old, &own.offsets()).await?;
        tiling::retile(tx, old.subnet, given_up).await?;
    }
    let entry = own::admit(tx, &subnet, own, &old.name).await?;
    let claim = next_claim(tx).await?;
    let args = args![
        old.id,
        own.v4.map(|offset| offset.0),
        own.v6.map(|offset| offset.0),
        uid,
        spec.mac.clone(),
        allocator(spec.allocator),
        first_state(spec.allocator),
        claim,
        now,
    ];
    tx.execute(REPLACE, args).await?;
    own::settle_in(tx, &subnet, &entry, old.id).await?;
    if old.state()? == NodeState::Deleting {
        // The pool may have got another size meanwhile; who stays follows it.
        let pool = pools::by_id(tx, old.pool).await?;
        pools::resize(tx, &pool, &pool.spec).await?;
    }
    own::check_lack(tx, &subnet, lacked).await?;
    changed(tx).await
}

/// The block stays where it is, so a VM in its place cannot be in another subnet.
fn elsewhere(old: &NodeRow, error: StoreError) -> StoreError {
    let StoreError::Invalid(mut fields) = error else { return error };
    for field in &mut fields {
        field.detail = format!(
            "{}: replace keeps the node's block and so its subnet {}; give an address there, or delete the node with vmGone=true and register it anew",
            field.detail.split(';').next().unwrap_or_default(),
            old.subnet_path()
        );
    }
    StoreError::Invalid(fields)
}
