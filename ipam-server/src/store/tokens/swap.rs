//! A node's own token: made by the node, kept for it here.

use super::{
    super::{
        Change, Result, Store, StoreError, Written,
        db::{Scope, Tx, args, retried, statements},
        events::Deed,
        nodes,
    },
    after, former,
    row::{self, NewRow, TokenRow},
    subject,
};
use ipam_api::{
    names::{NodeName, PoolName, TokenId},
    token::Secret,
    wire::{NodeState, Role, Token, TokenState},
};

const USE: &str = "UPDATE token SET uses_left = uses_left - 1 WHERE id = $1 AND uses_left > 0";
const FORGET_ENDED: &str = "DELETE FROM token WHERE node = $1 AND expires_at <= $2";
const END_SOON: &str = "UPDATE token SET expires_at = $3
    WHERE node = $1 AND id <> $2 AND (expires_at IS NULL OR expires_at > $3)";

statements!(USE, FORGET_ENDED, END_SOON);

/// How long a node's former token counts beside its new one, in seconds: the node
/// may lose the answer, or restart with the old one.
const OVERLAP: u64 = 3600;

/// Who asks for a node's token to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Swapper {
    /// One who may do everything.
    Admin,
    /// The node itself, by the token that it has: the new one is of the same pool and the same life.
    Itself(TokenId, Option<PoolName>),
    /// A new node of this pool, by this join token.
    Joining(TokenId, PoolName),
}

impl Store {
    /// Keeps the token that a node made for itself. The same again changes nothing; former tokens of the node
    /// end within the hour, and those that have ended are forgotten.
    ///
    /// # Errors
    /// [`StoreError::Forbidden`] where a join token is not for this node, or a token counts no more.
    pub async fn swap_token(
        &self,
        node: &NodeName,
        secret: &Secret,
        by: &Swapper,
        change: &Change,
    ) -> Result<Written<Token>> {
        if secret.role() != Role::Node {
            return Err(StoreError::invalid("/token", "it is no node's token: one begins with ipam_node_"));
        }
        let now = self.now();
        let attempt = async || {
            let mut tx = self.db.write(Scope::Plan).await?;
            let tokens: Vec<TokenRow> = tx.fetch_all(row::OF_NODE, args![node.as_str()]).await?;
            if let Some(kept) = tokens.iter().find(|row| row.hash() == secret.hash()) {
                return match kept.state(now) {
                    TokenState::Valid => {
                        tx.commit().await?;
                        Ok(Written::Updated(kept.view(now)?))
                    }
                    _ => Err(StoreError::Exists(format!("token {} has ended: make another", kept.id))),
                };
            }
            let (pool, life) = match by {
                Swapper::Admin => (None, None),
                Swapper::Itself(id, pool) => {
                    // The door may have remembered it: what was revoked since makes no successor.
                    let own = tokens
                    .iter()
                    .find(|row| row.id == id.as_str() && row.state(now) == TokenState::Valid)
                    .ok_or_else(|| {
                        StoreError::Forbidden(format!(
                            "token {id} of node {node} counts no more: ask an admin for another (ipamctl token create --role node)"
                        ))
                    })?;
                    (pool.clone(), own.node_token_seconds())
                }
                Swapper::Joining(id, pool) => {
                    check_join(&mut tx, node, &tokens, pool, now).await?;
                    (Some(pool.clone()), use_up(&mut tx, id).await?)
                }
            };
            let name = format!("node:{node}");
            let new = NewRow {
                name: &name,
                role: Role::Node,
                node: Some(node),
                pool: pool.as_ref(),
                uses: None,
                node_token_seconds: life,
                expires_at: life.map(|seconds| after(now, seconds)),
            };
            let token = row::insert(&mut tx, &new, secret, &change.by, now).await?.view(now)?;
            for expired in tokens.iter().filter(|row| row.state(now) == TokenState::Expired) {
                former::remember(&mut tx, &expired.view(now)?.id, now).await?;
            }
            tx.execute(FORGET_ENDED, args![node.as_str(), now]).await?;
            tx.execute(END_SOON, args![node.as_str(), token.id.as_str(), after(now, OVERLAP)]).await?;
            self.finish(tx, change, &Deed::of(subject(&token.id), None, Some(&token))?).await?;
            self.cache.forget();
            Ok(Written::Created(token))
        };
        retried!(self.db, attempt())
    }
}

/// A join token makes no node of one that is there already: whoever has it would be that node.
async fn check_join(
    tx: &mut Tx,
    node: &NodeName,
    tokens: &[TokenRow],
    pool: &PoolName,
    now: i64,
) -> Result<()> {
    let cure = "ask an admin for a token of its own (ipamctl token create --role node)";
    if tokens.iter().any(|row| row.state(now) == TokenState::Valid) {
        return Err(StoreError::Forbidden(format!(
            "node {node} has a token already, and a join token is for new nodes: {cure}"
        )));
    }
    match nodes::brief(tx, node).await? {
        None => Ok(()),
        Some((_, NodeState::Active | NodeState::Deleting)) => Err(StoreError::Forbidden(format!(
            "node {node} is at work already, and a join token is for new nodes: {cure}"
        ))),
        Some((of, NodeState::Planned)) if of == *pool => Ok(()),
        Some((of, NodeState::Planned)) => Err(StoreError::Forbidden(format!(
            "node {node} is registered in pool {of} and this join token is for pool {pool}: use one for {of}"
        ))),
    }
}

/// Takes one use of a join token; how long the node's token lives.
async fn use_up(tx: &mut Tx, id: &TokenId) -> Result<Option<u64>> {
    let spent = || {
        StoreError::Forbidden(
            "this join token has been used as often as it may be: ask an admin for another".to_owned(),
        )
    };
    if tx.execute(USE, args![id.as_str()]).await? != 1 {
        return Err(spent());
    }
    Ok(row::find(tx, id).await?.ok_or_else(spent)?.node_token_seconds())
}
