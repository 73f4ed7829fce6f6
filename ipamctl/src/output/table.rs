//! Tables without borders, as `kubectl` prints them.

use super::Format;
use comfy_table::{ContentArrangement, presets};

/// Which tables have a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    /// All.
    Always,
    /// Wide ones and the fields of a single resource.
    Wide,
}

/// A column of a table of `T`s.
pub(crate) struct Column<T> {
    title: &'static str,
    shown: Shown,
    cell: fn(&T) -> String,
}

/// A column of every table.
pub(crate) const fn column<T>(title: &'static str, cell: fn(&T) -> String) -> Column<T> {
    Column { title, shown: Shown::Always, cell }
}

/// A column of wide tables.
pub(crate) const fn wide<T>(title: &'static str, cell: fn(&T) -> String) -> Column<T> {
    Column { title, shown: Shown::Wide, cell }
}

enum Layout {
    /// A line a thing, under a header.
    Rows,
    /// A line a field of one thing.
    Fields,
}

/// A table ready to be printed.
pub(crate) struct Table {
    layout: Layout,
    titles: Vec<(&'static str, Shown)>,
    rows: Vec<Vec<String>>,
    note: Option<&'static str>,
}

impl Table {
    /// A line an item.
    pub(crate) fn rows<'a, T: 'a>(columns: &[Column<T>], items: impl IntoIterator<Item = &'a T>) -> Self {
        Self {
            layout: Layout::Rows,
            titles: columns.iter().map(|column| (column.title, column.shown)).collect(),
            rows: items
                .into_iter()
                .map(|item| columns.iter().map(|column| (column.cell)(item)).collect())
                .collect(),
            note: None,
        }
    }

    /// A line a field.
    pub(crate) fn fields<T>(columns: &[Column<T>], item: &T) -> Self {
        Self { layout: Layout::Fields, ..Self::rows(columns, [item]) }
    }

    /// What to say where there is no item.
    pub(crate) fn or_note(self, note: &'static str) -> Self {
        Self { note: self.rows.is_empty().then_some(note), ..self }
    }

    /// What to say beside it.
    pub(crate) fn note(&self) -> Option<&'static str> {
        self.note
    }

    /// As text; nothing where there is no item.
    pub(crate) fn render(&self, format: Format) -> String {
        if self.rows.is_empty() {
            return String::new();
        }
        match self.layout {
            Layout::Rows => {
                let kept = |shown: Shown| shown == Shown::Always || format == Format::Wide;
                let header: Vec<&str> =
                    self.titles.iter().filter(|(_, shown)| kept(*shown)).map(|(title, _)| *title).collect();
                let rows = self.rows.iter().map(|row| {
                    let cells = row.iter().zip(&self.titles).filter(|(_, (_, shown))| kept(*shown));
                    cells.map(|(cell, _)| cell.clone()).collect()
                });
                grid(&header, rows)
            }
            Layout::Fields => {
                let lines = self.rows.iter().flat_map(|row| {
                    self.titles.iter().zip(row).map(|((title, _), cell)| vec![label(title), cell.clone()])
                });
                grid(&[], lines)
            }
        }
    }
}

/// `LARGEST FREE` as the label of a line: `Largest free:`.
fn label(title: &str) -> String {
    let words = title.split(' ').enumerate().map(|(at, word)| match word {
        "UID" | "MAC" | "ID" => word.to_owned(),
        "CIDRS" => "CIDRs".to_owned(),
        "IPV6" => "IPv6".to_owned(),
        word if at == 0 => {
            let mut letters = word.chars();
            let first = letters.next().map(String::from).unwrap_or_default();
            first + &letters.as_str().to_lowercase()
        }
        word => word.to_lowercase(),
    });
    format!("{}:", words.collect::<Vec<_>>().join(" "))
}

/// Cells under a header, if it has one; every line ends with a line break.
pub(crate) fn grid(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    if !header.is_empty() {
        table.set_header(header.to_vec());
    }
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    let mut text = table.trim_fmt();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column<u32>] =
        &[column("NUMBER", u32::to_string), wide("ITS DOUBLE", |number| (number * 2).to_string())];

    #[test]
    fn wide_tables_have_more_columns() {
        let table = Table::rows(COLUMNS, &[7, 1000]);
        assert_eq!(table.render(Format::Table), "NUMBER\n7\n1000\n");
        assert_eq!(table.render(Format::Wide), "NUMBER   ITS DOUBLE\n7        14\n1000     2000\n");
    }

    #[test]
    fn one_thing_shows_all_its_fields() {
        assert_eq!(Table::fields(COLUMNS, &7).render(Format::Table), "Number:       7\nIts double:   14\n");
    }

    #[test]
    fn labels_keep_abbreviations() {
        assert_eq!(label("SERVICE CIDRS"), "Service CIDRs:");
        assert_eq!(label("BLOCK IPV6"), "Block IPv6:");
        assert_eq!(label("MAC"), "MAC:");
    }

    #[test]
    fn no_item_is_no_table_but_a_note() {
        let table = Table::rows(COLUMNS, &[]).or_note("no numbers");
        assert_eq!((table.render(Format::Table).as_str(), table.note()), ("", Some("no numbers")));
    }
}
