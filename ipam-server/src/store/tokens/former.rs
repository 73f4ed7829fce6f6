//! What becomes of a node's token when it ends. A node that knows nothing of its end must still hear that its claim has
//! ended: an unknown token counts as an outage (P5), and in an outage a node goes on from its block (P6).

use super::{
    super::{
        Result, Store,
        db::{Tx, args, statements},
        mutation::stored,
    },
    known::same,
};
use ipam_api::{
    names::{NodeName, TokenId},
    token::{Secret, SecretHash},
};

const REMEMBER: &str = "INSERT INTO former_token (id, hash, node, claim, ended_at)
    SELECT t.id, t.hash, t.node, n.claim, $2 FROM token AS t LEFT JOIN node AS n ON n.name = t.node
    WHERE t.id = $1 AND t.node IS NOT NULL
    ON CONFLICT (id) DO NOTHING";
const REMEMBER_OF_NODE: &str = "INSERT INTO former_token (id, hash, node, claim, ended_at)
    SELECT t.id, t.hash, t.node, n.claim, $2 FROM token AS t LEFT JOIN node AS n ON n.name = t.node
    WHERE t.node = $1
    ON CONFLICT (id) DO NOTHING";
const DELETE_OF_NODE: &str = "DELETE FROM token WHERE node = $1";
const FORGET: &str = "DELETE FROM former_token WHERE id IN
    (SELECT f.id FROM former_token AS f WHERE f.ended_at < $1 ORDER BY f.ended_at LIMIT $2)";
const FORMER: &str = "SELECT f.hash, f.node FROM former_token AS f LEFT JOIN node AS n ON n.name = f.node
    WHERE f.id = $1 AND f.claim IS NOT NULL AND (n.claim IS NULL OR n.claim <> f.claim)";

statements!(REMEMBER, REMEMBER_OF_NODE, DELETE_OF_NODE, FORGET, FORMER);

/// How long a VM that was switched off may stay away and still hear that its claim has ended: a year.
const REMEMBERED: i64 = 365 * 86_400_000;

/// Remembers whose a token was, before it goes.
pub(super) async fn remember(tx: &mut Tx, id: &TokenId, now: i64) -> Result<()> {
    tx.execute(REMEMBER, args![id.as_str(), now]).await.map(|_| ())
}

/// Ends all tokens of a node, before its claim ends or changes: what they were for is no more.
pub(in crate::store) async fn end_of_node(tx: &mut Tx, node: &str, now: i64) -> Result<()> {
    tx.execute(REMEMBER_OF_NODE, args![node, now]).await?;
    tx.execute(DELETE_OF_NODE, args![node]).await.map(|_| ())
}

/// Forgets some of those whose VMs nobody waits for any more; how many.
pub(in crate::store) async fn forget(tx: &mut Tx, now: i64, most: u64) -> Result<u64> {
    tx.execute(FORGET, args![now - REMEMBERED, most]).await
}

impl Store {
    /// The node whose token this was, if the claim that it served has ended.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn former_node(&self, secret: &Secret) -> Result<Option<NodeName>> {
        let hash = secret.hash();
        let Some(id) = hash.id() else { return Ok(None) };
        let mut tx = self.db.read().await?;
        let found: Option<(String, String)> = tx.fetch_optional(FORMER, args![id.as_str()]).await?;
        let found = found.filter(|(kept, _)| same(&SecretHash::kept(kept.clone()), &hash));
        found.map(|(_, node)| stored(&node)).transpose()
    }
}
