//! The record of what people did: written in the transaction of the deed itself.

use super::{
    Actor, Page, Result, Store, StoreError,
    db::{Sql, Tx, args, over, rows, statements},
    mutation::{corrupt, listing, rows_wanted, timestamp},
};
use ipam_api::wire::{Event, Listing, Node, NodeState};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

const NOTE: Sql = over!(
    "INSERT INTO event (at, actor, token, source, request_id, action, subject, was, became)
    SELECT $1, value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7
    FROM ",
    "$2",
    " AS deed"
);

macro_rules! select_event {
    ($rest:literal) => {
        concat!(
            "SELECT e.id, e.at, e.actor, e.token, e.source, e.request_id, e.action, e.subject, e.was, e.became
             FROM event AS e WHERE e.id > $1 AND e.at >= $2 AND e.at < $3 ",
            $rest,
            " ORDER BY e.id LIMIT $4"
        )
    };
}

// That a token was revoked is never forgotten: a bootstrap file that was left would bring it back.
const FORGET: &str = "DELETE FROM event WHERE id IN
    (SELECT e.id FROM event AS e WHERE e.at < $1
        AND NOT (e.action = 'delete' AND e.subject > 'token/' AND e.subject < 'token0')
     ORDER BY e.at, e.id LIMIT $2)";

// One text a kind of question, so that a thing and an actor have their index.
const ALL: &str = select_event!("");
const OF_SUBJECT: &str = select_event!("AND e.subject = $5");
// Everything below a kind, in the order of all: '0' follows '/' in the order of texts.
const OF_KIND: &str = select_event!("AND e.subject > $5 || '/' AND e.subject < $5 || '0'");
const OF_ACTOR: &str = select_event!("AND e.actor = $5");
const OF_ACTOR_AND_SUBJECT: &str = select_event!("AND e.actor = $5 AND e.subject = $6");
const OF_ACTOR_AND_KIND: &str =
    select_event!("AND e.actor = $5 AND e.subject > $6 || '/' AND e.subject < $6 || '0'");

statements!(NOTE, FORGET, ALL, OF_SUBJECT, OF_KIND, OF_ACTOR, OF_ACTOR_AND_SUBJECT, OF_ACTOR_AND_KIND);
#[cfg(test)]
pub(super) const OF_THING_AND_ACTOR: [(&str, &str); 2] =
    [(OF_SUBJECT, "event_by_subject (subject=?"), (OF_ACTOR, "event_by_actor (actor=?")];

// By time: OFFSET keeps PostgreSQL from going through all events by number until one is late enough.
const FIRST_SINCE: Sql = Sql {
    sqlite: "SELECT MIN(e.id) FROM event AS e WHERE e.at >= $1",
    postgres: "SELECT MIN(late.id) FROM (SELECT e.id FROM event AS e WHERE e.at >= $1 OFFSET 0) AS late",
};

/// Which events a list has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Only those of this subject (`pool/workers`), or of all of a kind (`pool`).
    pub subject: Option<String>,
    /// Only those of this actor.
    pub actor: Option<String>,
    /// Only those of this time or later.
    pub since: Option<Timestamp>,
    /// Only those before this time.
    pub until: Option<Timestamp>,
}

/// What was done to one thing: its state before and after.
#[derive(Debug)]
pub(super) struct Deed {
    subject: String,
    action: &'static str,
    was: Option<Value>,
    became: Option<Value>,
}

impl Deed {
    /// A thing was made, changed or taken away.
    pub(super) fn of<T: Serialize>(subject: String, was: Option<&T>, became: Option<&T>) -> Result<Self> {
        let json = |thing: Option<&T>| thing.map(serde_json::to_value).transpose().map_err(corrupt);
        let action = match (&was, &became) {
            (None, _) => "create",
            (_, None) => "delete",
            (Some(_), Some(_)) => "update",
        };
        Ok(Self { subject, action, was: json(was)?, became: json(became)? })
    }

    /// The same of a node: without the addresses that rest or are in conflict, which are nobody's deed.
    pub(super) fn of_node(was: Option<&Node>, became: Option<&Node>) -> Result<Self> {
        let plain = |node: &Node| Node { resting: Vec::new(), conflicts: Vec::new(), ..node.clone() };
        let (was, became) = (was.map(plain), became.map(plain));
        let name = was.as_ref().or(became.as_ref()).map(|node| node.name.to_string());
        let deed = Self::of(format!("node/{}", name.unwrap_or_default()), was.as_ref(), became.as_ref())?;
        let leaves =
            |node: &Option<Node>| node.as_ref().is_some_and(|node| node.state == NodeState::Deleting);
        // Deleted by somebody, though it stays until it confirms.
        Ok(if leaves(&became) && !leaves(&was) { Self { action: "delete", ..deed } } else { deed })
    }

    /// A node confirmed its end: its block is free.
    pub(super) fn freed(node: &Node) -> Result<Self> {
        Ok(Self { action: "free", ..Self::of_node(Some(node), None)? })
    }
}

/// Keeps deeds in their order, but those that changed nothing.
pub(super) async fn note(tx: &mut Tx, deeds: &[(&Actor, &Deed)], now: i64) -> Result<()> {
    let text = |value: &Option<Value>| value.as_ref().map(ToString::to_string);
    let records: Vec<_> = deeds
        .iter()
        .filter(|(_, deed)| deed.was != deed.became)
        .map(|(by, deed)| {
            let token = by.token.as_ref().map(|id| id.as_str());
            let (was, became) = (text(&deed.was), text(&deed.became));
            (&by.name, token, &by.source, &by.request_id, deed.action, &deed.subject, was, became)
        })
        .collect();
    if records.is_empty() {
        return Ok(());
    }
    tx.execute(NOTE, args![now, rows(&records)?]).await.map(|_| ())
}

/// Forgets some of those before this time, in milliseconds since 1970; how many.
pub(super) async fn forget(tx: &mut Tx, before: i64, most: u64) -> Result<u64> {
    tx.execute(FORGET, args![before, most]).await
}

#[derive(Debug, sqlx::FromRow)]
struct EventRow {
    id: i64,
    at: i64,
    actor: String,
    token: Option<String>,
    source: String,
    request_id: Option<String>,
    action: String,
    subject: String,
    was: Option<String>,
    became: Option<String>,
}

impl EventRow {
    fn view(self) -> Result<Event> {
        let json =
            |text: Option<String>| text.map(|text| serde_json::from_str(&text)).transpose().map_err(corrupt);
        Ok(Event {
            id: self.id.cast_unsigned(),
            at: timestamp(self.at)?,
            actor: self.actor,
            token: self.token,
            source: self.source,
            request_id: self.request_id,
            action: self.action,
            subject: self.subject,
            before: json(self.was)?,
            after: json(self.became)?,
        })
    }
}

impl Store {
    /// Events in the order in which they came.
    pub async fn events(&self, filter: &EventFilter, page: &Page) -> Result<Listing<Event>> {
        let after: i64 = match &page.after {
            None => 0,
            Some(text) => text.parse().map_err(|_| {
                StoreError::invalid(
                    "query:after",
                    "after is not what a list answered as next: leave it out to begin anew",
                )
            })?,
        };
        let since = filter.since.map_or(i64::MIN, Timestamp::as_millisecond);
        let until = filter.until.map_or(i64::MAX, Timestamp::as_millisecond);
        let mut tx = self.db.read().await?;
        let after = match (filter.since, &page.after) {
            // A page that follows another begins behind it.
            (None, _) | (_, Some(_)) => after,
            // Numbers rise with time but for a clock that was set back: none of the wanted is lower than this.
            (Some(_), None) => {
                let (first,): (Option<i64>,) = tx.fetch_one(FIRST_SINCE, args![since]).await?;
                first.map_or(i64::MAX, |first| after.max(first - 1))
            }
        };
        let mut args = args![after, since, until, rows_wanted(page)];
        args.extend(filter.actor.as_deref().map(Into::into));
        args.extend(filter.subject.as_deref().map(Into::into));
        let of_one = filter.subject.as_deref().map(|subject| subject.contains('/'));
        let sql = match (&filter.actor, of_one) {
            (None, None) => ALL,
            (None, Some(true)) => OF_SUBJECT,
            (None, Some(false)) => OF_KIND,
            (Some(_), None) => OF_ACTOR,
            (Some(_), Some(true)) => OF_ACTOR_AND_SUBJECT,
            (Some(_), Some(false)) => OF_ACTOR_AND_KIND,
        };
        let rows: Vec<EventRow> = tx.fetch_all(sql, args).await?;
        listing(rows, page, |row| row.id.to_string(), EventRow::view)
    }
}
