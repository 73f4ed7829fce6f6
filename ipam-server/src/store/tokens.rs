//! Bearer tokens: made, listed, revoked, swapped, and known again.

mod former;
mod known;
mod row;
mod swap;

pub(super) use former::{end_of_node, forget as forget_former};
pub(super) use known::Cache;
pub use known::{Grant, Known};
pub(super) use row::shown_by_nodes;
pub use swap::Swapper;

use super::{
    Change, Kind, Page, Result, Store, StoreError, Written,
    db::{Scope, Tx, args, retried, statements},
    events::Deed,
    mutation::{self, cut, name_after, rows_wanted},
    nodes,
};
use ipam_api::{
    names::{NodeName, TokenId},
    token::Secret,
    wire::{FieldError, Listing, Role, Token, TokenSpec},
};
use row::{NewRow, TokenRow};

const DELETE: &str = "DELETE FROM token WHERE id = $1";
const WAS_REVOKED: &str = "SELECT e.id FROM event AS e WHERE e.subject = $1 AND e.action = 'delete' LIMIT 1";
const ADMINS: &str =
    "SELECT COUNT(*) FROM token WHERE role = 'admin' AND (expires_at IS NULL OR expires_at > $1)";

statements!(DELETE, WAS_REVOKED; former, known, row, swap);

/// Longest life of a token: ten years.
const LONGEST_LIFE: u64 = 315_360_000;

impl Store {
    /// Keeps a token that the caller made.
    pub async fn create_token(&self, spec: &TokenSpec, secret: &Secret, change: &Change) -> Result<Token> {
        check(spec)?;
        let now = self.now();
        let expires_at = spec.expires_in_seconds.map(|seconds| after(now, seconds));
        let attempt = async || {
            let mut tx = self.db.write(Scope::Plan).await?;
            let new = NewRow {
                name: &spec.name,
                role: spec.role,
                node: spec.node.as_ref(),
                pool: spec.pool.as_ref(),
                uses: spec.uses,
                // What a node makes in the place of its token lives as long as this one.
                node_token_seconds: match spec.role {
                    Role::Node => spec.expires_in_seconds,
                    _ => spec.node_token_seconds,
                },
                expires_at,
            };
            let token = row::insert(&mut tx, &new, secret, &change.by, now).await?.view(now)?;
            self.finish(tx, change, &Deed::of(subject(&token.id), None, Some(&token))?).await?;
            Ok(token)
        };
        retried!(self.db, attempt())
    }

    /// A token by its id.
    pub async fn token(&self, id: &TokenId) -> Result<Token> {
        let mut tx = self.db.read().await?;
        get(&mut tx, id).await?.view(self.now())
    }

    /// Tokens by id.
    pub async fn tokens(&self, page: &Page) -> Result<Listing<Token>> {
        let mut tx = self.db.read().await?;
        let rows: Vec<TokenRow> = tx.fetch_all(row::PAGE, args![name_after(page), rows_wanted(page)]).await?;
        let (rows, next) = cut(rows, page, |row| row.id.clone());
        let now = self.now();
        Ok(Listing { items: rows.iter().map(|row| row.view(now)).collect::<Result<_>>()?, next })
    }

    /// Ends a token at once.
    pub async fn revoke_token(&self, id: &TokenId, change: &Change) -> Result<()> {
        let attempt = async || {
            let mut tx = self.db.write(Scope::Plan).await?;
            let token = get(&mut tx, id).await?.view(self.now())?;
            // A token never changes: it is of one version all its life.
            mutation::check(&change.precondition, &format!("token {id}"), Some(1))?;
            former::remember(&mut tx, id, self.now()).await?;
            tx.execute(DELETE, args![id.as_str()]).await?;
            self.finish(tx, change, &Deed::of(subject(id), Some(&token), None)?).await?;
            self.cache.forget();
            Ok(())
        };
        retried!(self.db, attempt())
    }

    /// Ends all tokens of a node at once, whatever it makes of them meanwhile; its claim stays.
    pub async fn revoke_node(&self, node: &NodeName, change: &Change) -> Result<()> {
        let now = self.now();
        let attempt = async || {
            let mut tx = self.db.write(Scope::Plan).await?;
            let was = nodes::credential(&mut tx, node, now).await?;
            // As of a token: of one version all its life.
            mutation::check(&change.precondition, &format!("token of node {node}"), Some(1))?;
            former::end_of_node(&mut tx, node.as_str(), now).await?;
            self.finish(tx, change, &Deed::of(format!("credential/{node}"), was.as_ref(), None)?).await?;
            self.cache.forget();
            Ok(())
        };
        retried!(self.db, attempt())
    }

    /// Whether somebody may do everything.
    pub async fn has_admin(&self) -> Result<bool> {
        let mut tx = self.db.read().await?;
        let (count,): (i64,) = tx.fetch_one(ADMINS, args![self.now()]).await?;
        Ok(count > 0)
    }

    /// Keeps the first admin's token; one that is kept already stays as it is.
    ///
    /// # Errors
    /// [`StoreError::Exists`] where it was revoked: a file that was left does not bring it back.
    pub async fn bootstrap(&self, secret: &Secret, change: &Change) -> Result<Written<Token>> {
        let now = self.now();
        let attempt = async || {
            let mut tx = self.db.write(Scope::Plan).await?;
            if let Some(id) = secret.hash().id()
                && let Some(row) = row::find(&mut tx, &id).await?
            {
                tx.commit().await?;
                return Ok(Written::Updated(row.view(now)?));
            }
            if let Some(id) = secret.hash().id()
                && tx.fetch_optional::<(i64,)>(WAS_REVOKED, args![subject(&id)]).await?.is_some()
            {
                return Err(StoreError::Exists(format!("token {id} was revoked: make another")));
            }
            let new = NewRow {
                name: "bootstrap",
                role: Role::Admin,
                node: None,
                pool: None,
                uses: None,
                node_token_seconds: None,
                expires_at: None,
            };
            let token = row::insert(&mut tx, &new, secret, &change.by, now).await?.view(now)?;
            self.finish(tx, change, &Deed::of(subject(&token.id), None, Some(&token))?).await?;
            Ok(Written::Created(token))
        };
        retried!(self.db, attempt())
    }
}

fn subject(id: &TokenId) -> String {
    format!("token/{id}")
}

/// So many seconds later, in milliseconds; at most [`LONGEST_LIFE`].
fn after(now: i64, seconds: u64) -> i64 {
    now + seconds.min(LONGEST_LIFE).cast_signed() * 1000
}

async fn get(tx: &mut Tx, id: &TokenId) -> Result<TokenRow> {
    row::find(tx, id).await?.ok_or_else(|| StoreError::NotFound(Kind::Token, id.to_string()))
}

/// Which fields go with which role.
fn check(spec: &TokenSpec) -> Result<()> {
    let mut errors = Vec::new();
    let mut wrong = |field: &str, detail: String| {
        errors.push(FieldError { pointer: format!("/{field}"), detail });
    };
    let role = spec.role.word();
    let fields = [
        ("node", spec.node.is_some(), &[Role::Node][..], &[Role::Node][..]),
        ("pool", spec.pool.is_some(), &[Role::Node, Role::Join], &[Role::Join]),
        ("uses", spec.uses.is_some(), &[Role::Join], &[Role::Join]),
        ("nodeTokenSeconds", spec.node_token_seconds.is_some(), &[Role::Join], &[]),
        ("expiresInSeconds", spec.expires_in_seconds.is_some(), &Role::ALL, &[Role::Join]),
    ];
    for (field, given, allowed, needed) in fields {
        if given && !allowed.contains(&spec.role) {
            wrong(field, format!("{field} does not go with role {role}: leave it out"));
        }
        if !given && needed.contains(&spec.role) {
            wrong(field, format!("role {role} needs {field}: give it"));
        }
    }
    if !(1..=64).contains(&spec.name.chars().count()) || spec.name.chars().any(char::is_control) {
        wrong("name", "name has to have 1 to 64 characters, none of them a control character".to_owned());
    }
    let taken = ["node:", "uid:"].iter().any(|prefix| spec.name.starts_with(prefix));
    if taken || ["anonymous", "service"].contains(&spec.name.as_str()) {
        wrong("name", format!("{:?} is how events name others: choose another name", spec.name));
    }
    if spec.uses.is_some_and(|uses| !(1..=1_000_000).contains(&uses)) {
        wrong("uses", "uses has to be 1 to 1000000".to_owned());
    }
    for (field, seconds) in
        [("expiresInSeconds", spec.expires_in_seconds), ("nodeTokenSeconds", spec.node_token_seconds)]
    {
        if seconds.is_some_and(|seconds| !(1..=LONGEST_LIFE).contains(&seconds)) {
            wrong(field, format!("{field} has to be 1 to {LONGEST_LIFE}, which is ten years"));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(StoreError::Invalid(errors)) }
}
