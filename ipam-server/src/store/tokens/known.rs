//! Whose a token is: asked with every request, so answered from memory for a second.

use super::{
    super::{
        Result, Store,
        db::{Scope, Sql, args, over, retried, rows, statements},
        mutation::corrupt,
    },
    row::{self, TokenRow},
};
use ipam_api::{
    names::{NodeName, PoolName, TokenId},
    token::{Secret, SecretHash},
    wire::{Role, TokenState},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use subtle::ConstantTimeEq;

// Another replica may have seen it later.
const TOUCH: Sql = over!(
    "UPDATE token SET last_used_at = CAST(used.value ->> 1 AS BIGINT) FROM ",
    "$1",
    " AS used
    WHERE token.id = used.value ->> 0
        AND (token.last_used_at IS NULL OR token.last_used_at < CAST(used.value ->> 1 AS BIGINT))"
);

statements!(TOUCH);

/// How long a token may count after another replica revoked it.
const REMEMBERED: Duration = Duration::from_secs(1);

/// Tokens kept in memory, at most; beyond it all are forgotten and asked for again.
const MOST: usize = 200_000;

/// What a token lets its owner be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grant {
    /// Everything.
    Admin,
    /// Read and plan.
    Planner,
    /// Read.
    Viewer,
    /// This node, in this pool only where one is named.
    Node(NodeName, Option<PoolName>),
    /// Give a new node of this pool a token.
    Join(PoolName),
}

/// A token that was shown and is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Its id.
    pub id: TokenId,
    /// Who or what uses it.
    pub name: String,
    /// What it lets its owner be.
    pub grant: Grant,
    /// Whether it counts. A spent one may still ask whether its last use came through.
    pub state: TokenState,
}

/// What was found of a token, and when.
#[derive(Debug, Clone)]
struct Entry {
    row: Arc<TokenRow>,
    at: Instant,
}

/// Tokens lately shown, and the uses that the database has not heard of.
#[derive(Debug, Clone, Default)]
pub(in crate::store) struct Cache {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    found: HashMap<TokenId, Entry>,
    /// Rises when tokens may have been revoked: what was read before is not kept.
    generation: u64,
    used: HashMap<TokenId, i64>,
}

impl Cache {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tokens were revoked or changed: all are asked for again.
    pub(in crate::store) fn forget(&self) {
        let mut inner = self.lock();
        inner.found.clear();
        inner.generation += 1;
    }
}

impl Store {
    /// Whose token this is; `None` where none such is kept.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn authenticate(&self, secret: &Secret) -> Result<Option<Known>> {
        let hash = secret.hash();
        let Some(id) = hash.id() else { return Ok(None) };
        let Some(row) = self.token_row(&id).await? else { return Ok(None) };
        if !same(&row.hash(), &hash) {
            return Ok(None);
        }
        let now = self.now();
        let state = row.state(now);
        // One that has expired too: which token a node shows is what its people want to see.
        self.cache.lock().used.insert(id.clone(), now);
        Ok(Some(Known { id, name: row.name.clone(), grant: grant(&row)?, state }))
    }

    async fn token_row(&self, id: &TokenId) -> Result<Option<Arc<TokenRow>>> {
        let generation = {
            let inner = self.cache.lock();
            if let Some(entry) = inner.found.get(id)
                && entry.at.elapsed() < REMEMBERED
            {
                return Ok(Some(Arc::clone(&entry.row)));
            }
            inner.generation
        };
        let mut tx = self.db.read().await?;
        let Some(row) = row::find(&mut tx, id).await?.map(Arc::new) else { return Ok(None) };
        let mut inner = self.cache.lock();
        // Read before a revocation that has come since: good for this request, which began before it too.
        if inner.generation == generation {
            if inner.found.len() >= MOST {
                inner.found.clear();
            }
            inner.found.insert(id.clone(), Entry { row: Arc::clone(&row), at: Instant::now() });
        }
        Ok(Some(row))
    }

    /// Writes down when tokens were last used; called now and then, so that no request waits for it.
    ///
    /// # Errors
    /// The database does not answer; the uses are kept for the next time.
    pub async fn note_uses(&self) -> Result<()> {
        let used = std::mem::take(&mut self.cache.lock().used);
        if used.is_empty() {
            return Ok(());
        }
        let written = self.write_uses(&used).await;
        if written.is_err() {
            let mut inner = self.cache.lock();
            for (id, at) in used {
                inner.used.entry(id).or_insert(at);
            }
        }
        written
    }

    async fn write_uses(&self, used: &HashMap<TokenId, i64>) -> Result<()> {
        let used: Vec<_> = used.iter().collect();
        let attempt = async || {
            let mut tx = self.db.write(Scope::Uses).await?;
            tx.execute(TOUCH, args![rows(&used)?]).await?;
            tx.commit().await
        };
        retried!(self.db, attempt())
    }
}

fn grant(row: &TokenRow) -> Result<Grant> {
    Ok(match (row.role()?, row.node()?, row.pool()?) {
        (Role::Admin, ..) => Grant::Admin,
        (Role::Planner, ..) => Grant::Planner,
        (Role::Viewer, ..) => Grant::Viewer,
        (Role::Node, Some(node), pool) => Grant::Node(node, pool),
        (Role::Join, _, Some(pool)) => Grant::Join(pool),
        (Role::Node | Role::Join, ..) => return Err(corrupt("a token without its owner")),
    })
}

/// Tells nothing by the time it takes.
pub(super) fn same(kept: &SecretHash, shown: &SecretHash) -> bool {
    kept.as_str().as_bytes().ct_eq(shown.as_str().as_bytes()).into()
}
