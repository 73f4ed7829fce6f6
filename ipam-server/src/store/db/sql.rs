//! Statements and the values bound to them.

use crate::store::{Result, StoreError};
use futures::{Stream, TryStreamExt};
use serde::Serialize;
use sqlx::{Database, Either, Encode, Postgres, SqlSafeStr, Sqlite, Type, query::Query};
use std::pin::pin;

/// A statement, in the words of each database. A text that both take is made into one by [`From`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct Sql {
    pub(in crate::store) sqlite: &'static str,
    pub(in crate::store) postgres: &'static str,
}

impl From<&'static str> for Sql {
    fn from(both: &'static str) -> Self {
        Self { sqlite: both, postgres: both }
    }
}

/// A statement over a list: `over!("SELECT … FROM ", "$1", " AS wanted …")`. The argument is a JSON list of lists,
/// a row of the table that it becomes is one of these: `CAST(wanted.value ->> 0 AS BIGINT)`, `wanted.value ->> 1`.
macro_rules! over {
    ($before:expr, $list:literal, $after:expr) => {
        $crate::store::db::Sql {
            sqlite: concat!($before, "json_each(", $list, ")", $after),
            postgres: concat!($before, "jsonb_array_elements(", $list, "::jsonb)", $after),
        }
    };
}
pub(in crate::store) use over;

/// Names the statements of a file, and the modules below that name theirs, for the tests that ask how a database
/// goes about them: `statements!(BY_NAME, PAGE; row, rules);`
macro_rules! statements {
    ($($sql:expr),* $(; $($below:ident),+)?) => {
        #[cfg(test)]
        pub(in crate::store) fn statements() -> Vec<$crate::store::db::Sql> {
            [vec![$($crate::store::db::Sql::from($sql)),*], $($($below::statements()),+)?].concat()
        }
    };
}
pub(in crate::store) use statements;

/// A value bound to a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) enum Value {
    Int(Option<i64>),
    Text(Option<String>),
    /// Several values; how many is the statement's business.
    List(List),
}

/// Rows of several columns. To PostgreSQL they are an array for each column, which it unpacks in a fraction of the time that
/// JSON takes; to SQLite every value is one by itself, row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct List {
    columns: Vec<Column>,
    rows: usize,
}

/// A column of a [`List`], as long as the others of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) enum Column {
    Ints(Vec<Option<i64>>),
    Texts(Vec<Option<String>>),
}

impl List {
    /// Columns of so many rows; what is missing of them is nothing.
    pub(in crate::store) fn new(columns: Vec<Column>, rows: usize) -> Self {
        Self { columns, rows }
    }

    fn into_values(self) -> Vec<Value> {
        let width = self.columns.len();
        let mut values = vec![Value::Int(None); self.rows * width];
        for (at, column) in self.columns.into_iter().enumerate() {
            let places = values.iter_mut().skip(at).step_by(width);
            match column {
                Column::Ints(ints) => places.zip(ints).for_each(|(place, int)| *place = int.into()),
                Column::Texts(texts) => places.zip(texts).for_each(|(place, text)| *place = text.into()),
            }
        }
        values
    }
}

/// A database that takes lists.
pub(super) trait TakesLists: Database {
    fn bind_list(
        query: Query<'static, Self, Self::Arguments>,
        list: List,
    ) -> Query<'static, Self, Self::Arguments>;
}

impl TakesLists for Sqlite {
    fn bind_list(
        query: Query<'static, Self, Self::Arguments>,
        list: List,
    ) -> Query<'static, Self, Self::Arguments> {
        list.into_values().into_iter().fold(query, bind)
    }
}

impl TakesLists for Postgres {
    fn bind_list(
        query: Query<'static, Self, Self::Arguments>,
        list: List,
    ) -> Query<'static, Self, Self::Arguments> {
        list.columns.into_iter().fold(query, |query, column| match column {
            Column::Ints(values) => query.bind(values),
            Column::Texts(values) => query.bind(values),
        })
    }
}

macro_rules! value_from {
    ($($from:ty => |$it:ident| $to:expr),+ $(,)?) => {
        $(impl From<$from> for Value {
            fn from($it: $from) -> Self { $to }
        })+
    };
}

value_from! {
    i64 => |it| Self::Int(Some(it)),
    Option<i64> => |it| Self::Int(it),
    // Every unsigned number of the domain is below 2^63.
    u64 => |it| Self::Int(Some(it.cast_signed())),
    Option<u64> => |it| Self::Int(it.map(u64::cast_signed)),
    u32 => |it| Self::Int(Some(it.into())),
    bool => |it| Self::Int(Some(it.into())),
    &str => |it| Self::Text(Some(it.to_owned())),
    String => |it| Self::Text(Some(it)),
    Option<String> => |it| Self::Text(it),
    Option<&str> => |it| Self::Text(it.map(str::to_owned)),
    List => |it| Self::List(it),
}

/// The values of a statement, in the order of its `$1`, `$2` ….
macro_rules! args {
    ($($value:expr),* $(,)?) => { vec![$($crate::store::db::Value::from($value)),*] };
}
pub(in crate::store) use args;

/// The argument of a statement over a list ([`over!`]), of rows with several columns.
pub(in crate::store) fn rows<T: Serialize>(rows: &[T]) -> Result<String> {
    serde_json::to_string(rows).map_err(|error| StoreError::Database(sqlx::Error::Encode(error.into())))
}

/// The argument of a statement over a list ([`over!`]), of rows with one column.
pub(in crate::store) fn column<T: Serialize>(values: impl IntoIterator<Item = T>) -> Result<String> {
    rows(&values.into_iter().map(|value| (value,)).collect::<Vec<_>>())
}

/// A statement with its values, ready for a database of either make.
pub(super) fn bound<D: TakesLists>(sql: impl SqlSafeStr, args: Vec<Value>) -> Query<'static, D, D::Arguments>
where
    Option<i64>: for<'q> Encode<'q, D> + Type<D>,
    Option<String>: for<'q> Encode<'q, D> + Type<D>,
{
    args.into_iter().fold(sqlx::query(sql), bind)
}

fn bind<D: TakesLists>(
    query: Query<'static, D, D::Arguments>,
    value: Value,
) -> Query<'static, D, D::Arguments>
where
    Option<i64>: for<'q> Encode<'q, D> + Type<D>,
    Option<String>: for<'q> Encode<'q, D> + Type<D>,
{
    match value {
        Value::Int(value) => query.bind(value),
        Value::Text(value) => query.bind(value),
        Value::List(list) => D::bind_list(query, list),
    }
}

/// The rows of each of several statements.
pub(super) async fn rows_of_each<Q, R>(
    steps: impl Stream<Item = Result<Either<Q, R>, sqlx::Error>>,
) -> Result<Vec<Vec<R>>, sqlx::Error> {
    let (mut steps, mut each, mut rows) = (pin!(steps), Vec::new(), Vec::new());
    while let Some(step) = steps.try_next().await? {
        match step {
            Either::Right(row) => rows.push(row),
            Either::Left(_) => each.push(std::mem::take(&mut rows)),
        }
    }
    Ok(each)
}
