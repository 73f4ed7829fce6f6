//! What is put right without risk: nothing here gives an address away, lets one go, or frees a block.
//!
//! Two free extents that are neighbours are free before and after. A counter that is too low only rises. A stranger
//! noted where its node has no address says nothing of any address that can be picked. No address is picked by how many
//! are used. A token that has expired opens nothing. Everything else is somebody's word against somebody else's, and is left to whoever knows.

use super::{all, sorted};
use crate::store::{
    Change, Result, Store,
    db::{Scope, Tx, args, retried},
    events::Deed,
    mutation::changed,
    recovery, usage,
};
use ipam_api::wire::{Consistency, Finding};
use serde_json::json;

// Joined from behind: the second of two goes, the first takes its end.
const NEIGHBOURS: &str = "SELECT e.subnet, e.first, f.first, f.next FROM extent AS e
    JOIN extent AS f ON f.subnet = e.subnet AND f.first = e.next
    WHERE e.kind = 'free' AND f.kind = 'free' ORDER BY e.subnet, e.first LIMIT 1";
const DROP_EXTENT: &str = "DELETE FROM extent WHERE subnet = $1 AND first = $2 AND kind = 'free'";
const STRETCH: &str = "UPDATE extent SET next = $3 WHERE subnet = $1 AND first = $2 AND kind = 'free'";
const RAISE_CLAIM: &str = "UPDATE counter SET value = (SELECT MAX(u.claim) FROM
       (SELECT MAX(claim) AS claim FROM node UNION ALL SELECT MAX(claim) FROM allocation
        UNION ALL SELECT MAX(claim) FROM former_token) AS u)
    WHERE name = 'claim'";
const RAISE_CHANGE: &str = "UPDATE counter SET value = (SELECT MAX(u.version) FROM
       (SELECT MAX(version) AS version FROM vnet UNION ALL SELECT MAX(version) FROM subnet
        UNION ALL SELECT MAX(version) FROM reservation UNION ALL SELECT MAX(version) FROM pool
        UNION ALL SELECT MAX(version) FROM node) AS u)
    WHERE name = 'change'";
const FORGET_STRAYS: &str = "DELETE FROM conflict WHERE NOT EXISTS
    (SELECT 1 FROM block AS b JOIN extent AS e ON e.block = b.id
     WHERE b.node = conflict.node AND e.subnet = conflict.subnet
       AND e.first <= conflict.at_offset AND conflict.at_offset < e.next)";
const FORGET_EXPIRED: &str = "DELETE FROM token WHERE expires_at < $1 - 2592000000 AND role <> 'node'";
const REMEMBER_EXPIRED: &str = "INSERT INTO former_token (id, hash, node, claim, ended_at)
    SELECT t.id, t.hash, t.node, n.claim, $1 FROM token AS t LEFT JOIN node AS n ON n.name = t.node
    WHERE t.expires_at < $1 - 2592000000 AND t.node IS NOT NULL
    ON CONFLICT (id) DO NOTHING";
const FORGET_EXPIRED_OF_NODES: &str =
    "DELETE FROM token WHERE expires_at < $1 - 2592000000 AND role = 'node'";

const SUBJECT: &str = "service/ledger";

impl Store {
    /// Puts right what can be without risk of a second holder, and says what that was and what is left.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn repair(&self, change: &Change) -> Result<Consistency> {
        let at = self.clock.now();
        let attempt = async || {
            let mut tx = self.db.write(Scope::Plan).await?.patient();
            let before = all(&mut tx, at).await?;
            let wanted: Vec<&Finding> = before.iter().filter(|finding| finding.repairable).collect();
            let codes: Vec<&str> = wanted.iter().map(|finding| finding.code.as_str()).collect();
            for code in CODES.into_iter().filter(|code| codes.contains(code)) {
                put_right(&mut tx, code, at.as_millisecond()).await?;
            }
            if !wanted.is_empty() {
                changed(&mut tx).await?;
            }
            let findings = sorted(all(&mut tx, at).await?);
            let repaired: Vec<Finding> = before
                .iter()
                .filter(|found| found.repairable && !findings.contains(found))
                .cloned()
                .collect();
            let recovery = recovery::state(&mut tx).await?;
            let (was, became) = (json!({"findings": repaired}), json!({"findings": []}));
            let deed = Deed::of(SUBJECT.to_owned(), Some(&was), Some(&became))?;
            self.finish(tx, change, &deed).await?;
            self.cache.forget();
            Ok(Consistency { at, recovery, repaired: sorted(repaired), findings })
        };
        retried!(self.db, attempt())
    }
}

/// What is put right, in this order.
const CODES: [&str; 6] =
    ["free-neighbours", "usage", "claim-counter", "change-counter", "stray-conflict", "expired-token"];

async fn put_right(tx: &mut Tx, code: &str, now: i64) -> Result<()> {
    match code {
        "free-neighbours" => {
            while let Some((subnet, first, second, next)) =
                tx.fetch_optional::<(i64, i64, i64, i64)>(NEIGHBOURS, args![]).await?
            {
                tx.execute(DROP_EXTENT, args![subnet, second]).await?;
                tx.execute(STRETCH, args![subnet, first, next]).await?;
            }
        }
        "usage" => drop(usage::correct(tx).await?),
        "claim-counter" => drop(tx.execute(RAISE_CLAIM, args![]).await?),
        "change-counter" => drop(tx.execute(RAISE_CHANGE, args![]).await?),
        "stray-conflict" => drop(tx.execute(FORGET_STRAYS, args![]).await?),
        "expired-token" => {
            tx.execute(REMEMBER_EXPIRED, args![now]).await?;
            tx.execute(FORGET_EXPIRED, args![now]).await?;
            tx.execute(FORGET_EXPIRED_OF_NODES, args![now]).await?;
        }
        _ => {}
    }
    Ok(())
}
