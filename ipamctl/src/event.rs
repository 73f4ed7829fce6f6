//! `ipamctl event`.

use crate::{
    arguments::moment,
    context::Context,
    failure::Failure,
    output::{
        View, joined, optional,
        table::{Column, column, wide},
    },
};
use clap::{Args, Subcommand};
use ipam_api::{
    client::{EventFilter, all_pages},
    wire::Event,
};
use jiff::Timestamp;
use serde_json::{Map, Value};

const COLUMNS: &[Column<Event>] = &[
    // To the second: the document has the rest.
    column("AT", |event| format!("{:.0}", event.at)),
    column("ACTOR", |event| event.actor.clone()),
    column("ACTION", |event| event.action.clone()),
    column("SUBJECT", |event| event.subject.clone()),
    column("CHANGE", |event| joined(changes(event))),
    wide("FROM", |event| event.source.clone()),
    wide("TOKEN", |event| optional(event.token.as_ref())),
    wide("REQUEST", |event| optional(event.request_id.as_ref())),
    wide("ID", |event| event.id.to_string()),
];

#[derive(Debug, Subcommand)]
pub(crate) enum EventCommand {
    /// List events, the oldest first: every change of the plan or of credentials is one
    #[command(after_help = "\
Examples:
  ipamctl event list --since 1h
  ipamctl event list --subject pool/workers --actor alice -o json
  ipamctl event list --subject token --since 2026-01-31T00:00:00Z --until 2026-02-01T00:00:00Z

With -o json each event has the whole thing before and after.")]
    List(Filter),
}

#[derive(Debug, Args)]
pub(crate) struct Filter {
    /// Only those of this thing, such as pool/workers, or of a kind of things, such as pool
    #[arg(long, value_name = "KIND[/NAME]")]
    subject: Option<String>,
    /// Only those of this actor: the name of a token, or node:NAME
    #[arg(long)]
    actor: Option<String>,
    /// Only those of this time or later: a time, or how long ago
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Timestamp>,
    /// Only those before this time: a time, or how long ago
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Timestamp>,
}

impl EventCommand {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let Self::List(Filter { subject, actor, since, until }) = self;
        let filter = EventFilter { subject, actor, since, until };
        let client = context.client()?;
        let list = all_pages(async |page| client.events(&filter, &page).await).await?;
        context.show(&View::list(&[list], COLUMNS, "no event")?)
    }
}

/// What an update changed: `nodes 3 to 20`, and of what is no single value its name alone.
fn changes(event: &Event) -> Vec<String> {
    let (Some(Value::Object(before)), Some(Value::Object(after))) = (&event.before, &event.after) else {
        return Vec::new();
    };
    let names = after.keys().chain(before.keys().filter(|name| !after.contains_key(*name)));
    let (was, is) = (|name: &str| present(before, name), |name: &str| present(after, name));
    let changed = names.filter(|name| was(name) != is(name));
    let text = |value: Option<&Value>| match value {
        None => Some("nothing".to_owned()),
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Object(_) | Value::Array(_)) => None,
        Some(value) => Some(value.to_string()),
    };
    changed
        .map(|name| match (text(was(name)), text(is(name))) {
            (Some(was), Some(is)) => format!("{name} {was} to {is}"),
            _ => name.clone(),
        })
        .collect()
}

/// A field that has a value.
fn present<'v>(object: &'v Map<String, Value>, name: &str) -> Option<&'v Value> {
    object.get(name).filter(|value| !value.is_null())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_an_update_changed_is_told() {
        let event = |before: Value, after: Value| Event {
            id: 1,
            at: Timestamp::UNIX_EPOCH,
            actor: String::new(),
            token: None,
            source: String::new(),
            request_id: None,
            action: "update".to_owned(),
            subject: "pool/workers".to_owned(),
            before: Some(before).filter(|value| !value.is_null()),
            after: Some(after).filter(|value| !value.is_null()),
        };
        let update = event(
            json!({"nodes": 3, "surge": 1, "subnets": [1], "gone": "x"}),
            json!({"nodes": 20, "surge": 1, "subnets": [2], "new": null}),
        );
        assert_eq!(changes(&update), ["nodes 3 to 20", "subnets", "gone x to nothing"]);
        assert!(changes(&event(Value::Null, json!({"nodes": 3}))).is_empty());
    }
}
