//! Tokens as the database has them.

use super::super::{
    Actor, Result, StoreError,
    db::{Sql, Tx, args, column, over, statements},
    mutation::{corrupt, stored, timestamp},
};
use ipam_api::{
    names::{NodeName, PoolName, TokenId},
    token::{Secret, SecretHash},
    wire::{NodeCredential, Role, Token, TokenState},
};
use std::collections::HashMap;

macro_rules! select_token {
    ($rest:literal) => {
        concat!(
            "SELECT t.id, t.hash, t.name, t.role, t.node, t.pool, t.uses_left, t.node_token_seconds, t.created_at,
                 t.created_by, t.expires_at, t.last_used_at
             FROM token AS t ",
            $rest
        )
    };
}

pub(super) const BY_ID: &str = select_token!("WHERE t.id = $1");
pub(super) const PAGE: &str = select_token!("WHERE t.id > $1 ORDER BY t.id LIMIT $2");
pub(super) const OF_NODE: &str = select_token!("WHERE t.node = $1 ORDER BY t.created_at, t.id");
const OF_NODES: Sql = over!(
    "SELECT t.node, t.id, t.uses_left, t.expires_at, t.last_used_at FROM ",
    "$1",
    " AS wanted CROSS JOIN token AS t WHERE t.node = wanted.value ->> 0 ORDER BY t.created_at, t.id"
);
const INSERT: &str = "INSERT INTO token (id, hash, name, role, node, pool, uses_left, node_token_seconds,
        created_at, created_by, expires_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";

statements!(BY_ID, PAGE, OF_NODE, OF_NODES, INSERT);

/// A token with what is kept of it.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(super) struct TokenRow {
    pub(super) id: String,
    hash: String,
    pub(super) name: String,
    role: String,
    node: Option<String>,
    pool: Option<String>,
    pub(super) uses_left: Option<i64>,
    node_token_seconds: Option<i64>,
    created_at: i64,
    created_by: String,
    pub(super) expires_at: Option<i64>,
    last_used_at: Option<i64>,
}

/// A token to be kept.
#[derive(Debug)]
pub(super) struct NewRow<'a> {
    pub(super) name: &'a str,
    pub(super) role: Role,
    pub(super) node: Option<&'a NodeName>,
    pub(super) pool: Option<&'a PoolName>,
    pub(super) uses: Option<u64>,
    pub(super) node_token_seconds: Option<u64>,
    pub(super) expires_at: Option<i64>,
}

impl TokenRow {
    pub(super) fn hash(&self) -> SecretHash {
        SecretHash::kept(self.hash.clone())
    }

    pub(super) fn role(&self) -> Result<Role> {
        let known = Role::ALL.into_iter().find(|role| role.word() == self.role);
        known.ok_or_else(|| corrupt(format!("role {}", self.role)))
    }

    pub(super) fn node(&self) -> Result<Option<NodeName>> {
        self.node.as_deref().map(stored).transpose()
    }

    pub(super) fn pool(&self) -> Result<Option<PoolName>> {
        self.pool.as_deref().map(stored).transpose()
    }

    pub(super) fn node_token_seconds(&self) -> Option<u64> {
        self.node_token_seconds.map(i64::cast_unsigned)
    }

    pub(super) fn state(&self, now: i64) -> TokenState {
        state(self.expires_at, self.uses_left, now)
    }

    pub(super) fn view(&self, now: i64) -> Result<Token> {
        Ok(Token {
            id: stored(&self.id)?,
            name: self.name.clone(),
            role: self.role()?,
            node: self.node()?,
            pool: self.pool()?,
            uses_left: self.uses_left.map(i64::cast_unsigned),
            node_token_seconds: self.node_token_seconds(),
            state: self.state(now),
            created_at: timestamp(self.created_at)?,
            created_by: self.created_by.clone(),
            expires_at: self.expires_at.map(timestamp).transpose()?,
            last_used_at: self.last_used_at.map(timestamp).transpose()?,
        })
    }
}

/// A token of a node by what the node's answer says of it.
#[derive(Debug, Clone, sqlx::FromRow)]
struct CredentialRow {
    node: String,
    id: String,
    uses_left: Option<i64>,
    expires_at: Option<i64>,
    last_used_at: Option<i64>,
}

impl CredentialRow {
    fn credential(&self, now: i64) -> Result<NodeCredential> {
        Ok(NodeCredential {
            id: stored(&self.id)?,
            state: state(self.expires_at, self.uses_left, now),
            expires_at: self.expires_at.map(timestamp).transpose()?,
            last_used_at: self.last_used_at.map(timestamp).transpose()?,
        })
    }
}

fn state(expires_at: Option<i64>, uses_left: Option<i64>, now: i64) -> TokenState {
    if expires_at.is_some_and(|end| end <= now) {
        TokenState::Expired
    } else if uses_left == Some(0) {
        TokenState::Spent
    } else {
        TokenState::Valid
    }
}

pub(super) async fn find(tx: &mut Tx, id: &TokenId) -> Result<Option<TokenRow>> {
    tx.fetch_optional(BY_ID, args![id.as_str()]).await
}

pub(super) async fn insert(
    tx: &mut Tx,
    new: &NewRow<'_>,
    secret: &Secret,
    by: &Actor,
    now: i64,
) -> Result<TokenRow> {
    let hash = secret.hash();
    let id = hash.id().ok_or_else(|| corrupt("a hash without an id"))?;
    if find(tx, &id).await?.is_some() {
        return Err(StoreError::Exists(format!("token {id} is kept already: make another")));
    }
    let args = args![
        id.as_str(),
        hash.as_str(),
        new.name,
        new.role.word(),
        new.node.map(NodeName::as_str),
        new.pool.map(PoolName::as_str),
        new.uses,
        new.node_token_seconds,
        now,
        by.name.as_str(),
        new.expires_at,
    ];
    tx.execute(INSERT, args).await?;
    find(tx, &id).await?.ok_or_else(|| corrupt("a token that was kept is gone"))
}

/// The token of each of these nodes that was shown last, else the newest, by node.
pub(in crate::store) async fn shown_by_nodes(
    tx: &mut Tx,
    nodes: &[&str],
    now: i64,
) -> Result<HashMap<String, NodeCredential>> {
    let rows: Vec<CredentialRow> = tx.fetch_all(OF_NODES, args![column(nodes)?]).await?;
    let mut shown: HashMap<String, CredentialRow> = HashMap::new();
    // In the order of their making: of two that were shown as late, or never, the later one.
    for row in rows {
        match shown.get(&row.node) {
            Some(other) if other.last_used_at > row.last_used_at => {}
            _ => drop(shown.insert(row.node.clone(), row)),
        }
    }
    shown.into_iter().map(|(node, row)| Ok((node, row.credential(now)?))).collect()
}
