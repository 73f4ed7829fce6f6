//! What every planning mutation shares: preconditions, the end of its transaction, pages of lists.

use super::{
    Change, Commit, Page, Precondition, Result, Store, StoreError,
    db::{Tx, args},
    events::{self, Deed},
};
use ipam_api::wire::Listing;
use jiff::Timestamp;
use std::{
    error::Error,
    fmt::{self, Display},
    io,
    str::FromStr,
};

/// The count of changes that a plan may depend on.
pub(super) const CHANGES: &str = "SELECT value FROM counter WHERE name = 'change'";
// The version of what people edit begins at this count and rises with it: a thing that is deleted and made
// again never shows a version that it has had, so no late request that names one can meet the new thing.
const COUNT_CHANGE: &str = "UPDATE counter SET value = value + 1 WHERE name = 'change'";

impl Store {
    /// Keeps what the transaction did and the event of it, or drops both where it was only tried.
    pub(super) async fn finish(&self, mut tx: Tx, change: &Change, deed: &Deed) -> Result<()> {
        match change.commit {
            Commit::Keep => {
                events::note(&mut tx, &[(&change.by, deed)], self.now()).await?;
                tx.commit().await
            }
            Commit::DryRun => tx.rollback().await,
        }
    }

    /// The time now, in milliseconds since 1970.
    pub(super) fn now(&self) -> i64 {
        self.clock.now().as_millisecond()
    }
}

/// Notes that something a plan depends on has changed.
pub(super) async fn changed(tx: &mut Tx) -> Result<()> {
    tx.execute(COUNT_CHANGE, args![]).await.map(|_| ())
}

/// Whether a thing in this version (`None`: absent) may be changed.
pub(super) fn check(precondition: &Precondition, what: &dyn Display, version: Option<i64>) -> Result<()> {
    let failed = |why: String| Err(StoreError::PreconditionFailed(why));
    match (precondition, version) {
        (Precondition::None, _) | (Precondition::Exists, Some(_)) | (Precondition::Absent, None) => Ok(()),
        (Precondition::Version(wanted), Some(version)) => {
            if wanted.contains(&version.cast_unsigned()) {
                Ok(())
            } else {
                failed(format!(
                    "{what} is at version {version}, not the one named: read it again and repeat the change"
                ))
            }
        }
        (Precondition::Version(_) | Precondition::Exists, None) => {
            failed(format!("there is no {what} to change: leave If-Match out to create it"))
        }
        (Precondition::Absent, Some(_)) => {
            failed(format!("{what} exists already: leave If-None-Match out to change it"))
        }
    }
}

/// A time as the database has it.
pub(super) fn timestamp(milliseconds: i64) -> Result<Timestamp> {
    Timestamp::from_millisecond(milliseconds).map_err(corrupt)
}

/// How long before `now` something was, both in ms as the database has them; nothing if it was later.
pub(super) fn age_seconds(since: i64, now: i64) -> u64 {
    (now - since).max(0).cast_unsigned() / 1000
}

/// A stored text that was checked before it was stored.
pub(super) fn stored<T: FromStr<Err: Display>>(text: &str) -> Result<T> {
    text.parse().map_err(corrupt)
}

/// The database holds what the code never wrote.
pub(super) fn corrupt(why: impl Display) -> StoreError {
    let error: Box<dyn Error + Send + Sync> = io::Error::other(why.to_string()).into();
    StoreError::Database(sqlx::Error::Decode(error))
}

/// How many rows to read to know whether a page is the last.
pub(super) fn rows_wanted(page: &Page) -> i64 {
    i64::from(page.limit) + 1
}

/// Where a list ordered by name goes on.
pub(super) fn name_after(page: &Page) -> String {
    page.after.clone().unwrap_or_default()
}

/// The rows of one page and what follows it, of rows read one beyond the limit.
pub(super) fn cut<R>(mut rows: Vec<R>, page: &Page, key: impl Fn(&R) -> String) -> (Vec<R>, Option<String>) {
    let limit = page.limit as usize;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| more).map(key);
    (rows, next)
}

/// A page of items made of rows.
pub(super) fn listing<R, T>(
    rows: Vec<R>,
    page: &Page,
    key: impl Fn(&R) -> String,
    item: impl Fn(R) -> Result<T>,
) -> Result<Listing<T>> {
    let (rows, next) = cut(rows, page, key);
    Ok(Listing { items: rows.into_iter().map(item).collect::<Result<_>>()?, next })
}

/// Some of many things by name, for a sentence: `7 nodes: a, b, c, d, e and 2 more`.
pub(super) struct SomeOf<'a> {
    what: &'static str,
    names: &'a [String],
    count: u64,
}

impl<'a> SomeOf<'a> {
    const SHOWN: usize = 5;

    /// All names are there.
    pub(super) fn new(what: &'static str, names: &'a [String]) -> Self {
        Self { what, names, count: names.len() as u64 }
    }

    /// There are more than were read.
    pub(super) fn counted(what: &'static str, names: &'a [String], count: u64) -> Self {
        Self { what, names, count: count.max(names.len() as u64) }
    }
}

impl Display for SomeOf<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.names[..self.names.len().min(Self::SHOWN)];
        if self.count == 1 {
            return write!(f, "{} {}", self.what, shown.join(", "));
        }
        write!(f, "{} {}s: {}", self.count, self.what, shown.join(", "))?;
        match self.count - shown.len() as u64 {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}
