//! How answers look: tables for people, the service's own bodies for programs.

pub(crate) mod document;
mod json;
pub(crate) mod table;
mod yaml;

use crate::failure::Failure;
use clap::ValueEnum;
use document::Document;
use ipam_api::{
    client::{AllPages, Answer},
    wire::Range,
};
use jiff::Timestamp;
use std::fmt::Display;
use table::{Column, Table};

/// How to print data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For people with wide screens.
    Wide,
    /// As the service answered.
    Json,
    /// The same as YAML.
    Yaml,
}

/// Data ready to be printed in any format.
pub(crate) struct View {
    document: Document,
    tables: Vec<Table>,
}

impl View {
    /// One resource as a row.
    pub(crate) fn row<T>(answer: &Answer<T>, columns: &[Column<T>]) -> Result<Self, Failure> {
        Ok(Self {
            document: Document::parse(&answer.body)?,
            tables: vec![Table::rows(columns, [&answer.value])],
        })
    }

    /// One resource, a line a field.
    pub(crate) fn fields<T>(answer: &Answer<T>, columns: &[Column<T>]) -> Result<Self, Failure> {
        Ok(Self {
            document: Document::parse(&answer.body)?,
            tables: vec![Table::fields(columns, &answer.value)],
        })
    }

    /// The same without a field of the body.
    pub(crate) fn without(mut self, field: &str) -> Self {
        if let Document::Object(fields) = &mut self.document {
            fields.retain(|(name, _)| name != field);
        }
        self
    }

    /// A list; `nothing` is said where it is empty.
    pub(crate) fn list<T>(
        lists: &[AllPages<T>],
        columns: &[Column<T>],
        nothing: &'static str,
    ) -> Result<Self, Failure> {
        let bodies = lists.iter().flat_map(|list| &list.pages).map(|page| page.body.as_slice());
        let items = lists.iter().flat_map(AllPages::items);
        Ok(Self {
            document: Document::listing(bodies)?,
            tables: vec![Table::rows(columns, items).or_note(nothing)],
        })
    }

    /// A body with tables of one's own.
    pub(crate) fn new(document: Document, tables: Vec<Table>) -> Self {
        Self { document, tables }
    }

    /// What to tell people beside the data.
    pub(crate) fn notes(&self) -> impl Iterator<Item = &'static str> {
        self.tables.iter().filter_map(Table::note)
    }

    /// As text that ends with a line break, or nothing.
    pub(crate) fn render(&self, format: Format) -> Result<String, Failure> {
        match format {
            Format::Json => json::render(&self.document),
            Format::Yaml => yaml::render(&self.document),
            Format::Table | Format::Wide => {
                let texts: Vec<String> = self
                    .tables
                    .iter()
                    .map(|table| table.render(format))
                    .filter(|text| !text.is_empty())
                    .collect();
                Ok(texts.join("\n"))
            }
        }
    }
}

/// Things in a cell, separated by commas; a dash for none.
pub(crate) fn joined<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    let texts: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    if texts.is_empty() { "-".to_owned() } else { texts.join(",") }
}

/// A thing in a cell; a dash for none.
pub(crate) fn optional<T: Display>(item: Option<&T>) -> String {
    item.map_or_else(|| "-".to_owned(), ToString::to_string)
}

/// A run of addresses, one alone without its end.
pub(crate) fn range(range: &Range) -> String {
    if range.first == range.last {
        range.first.to_string()
    } else {
        format!("{}-{}", range.first, range.last)
    }
}

/// The same run in IPv6, in a dual-stack subnet.
pub(crate) fn range6(range: &Range) -> Option<String> {
    match (range.first6?, range.last6?) {
        (first, last) if first == last => Some(first.to_string()),
        (first, last) => Some(format!("{first}-{last}")),
    }
}

/// How long ago, in the largest whole unit.
pub(crate) fn age(since: Timestamp) -> String {
    length(Timestamp::now().duration_since(since).as_secs())
}

/// When something ends or ended: `in 3d`, `3d ago`; absent: never.
pub(crate) fn end(at: Option<Timestamp>) -> String {
    let Some(at) = at else { return "never".to_owned() };
    match at.duration_since(Timestamp::now()).as_secs() {
        seconds @ 1.. => format!("in {}", length(seconds)),
        seconds => format!("{} ago", length(-seconds)),
    }
}

/// Seconds in the largest whole unit that still tells them apart.
pub(crate) fn length(seconds: i64) -> String {
    match seconds.max(0) {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7_200 => format!("{}m", seconds / 60),
        seconds @ 7_200..172_800 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// A value of the wire whose text is a JSON string, as that text.
pub(crate) fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text,
        Ok(other) => other.to_string(),
        Err(_) => "?".to_owned(),
    }
}

/// `1 address`, `2 addresses`.
pub(crate) fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}
