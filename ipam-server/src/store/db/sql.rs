//! Statements and the values bound to them.

use crate::store::{Result, StoreError};
use futures::{Stream, TryStreamExt};
use serde::Serialize;
use serde_json::Value as Json;
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
    /// Comes last: where it is several values, how many is the statement's business.
    List(List),
}

/// Rows of several columns. To SQLite they are one value, a JSON list of lists; to PostgreSQL an array for each column,
/// which it unpacks in a fraction of the time that JSON takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct List(pub(in crate::store) Vec<Column>);

/// A column of a [`List`], as long as the others of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) enum Column {
    Ints(Vec<Option<i64>>),
    Texts(Vec<Option<String>>),
}

impl List {
    /// The values row by row, with nothing in those that are missing of so many rows.
    pub(in crate::store) fn into_values(self, rows: usize) -> Vec<Value> {
        let columns = self.0.len();
        let mut values = vec![Value::Int(None); rows * columns];
        for (at, column) in self.0.into_iter().enumerate() {
            let places = values.iter_mut().skip(at).step_by(columns);
            match column {
                Column::Ints(ints) => places.zip(ints).for_each(|(place, int)| *place = int.into()),
                Column::Texts(texts) => places.zip(texts).for_each(|(place, text)| *place = text.into()),
            }
        }
        values
    }

    fn to_json(&self) -> String {
        let length = self.0.first().map_or(0, |column| match column {
            Column::Ints(values) => values.len(),
            Column::Texts(values) => values.len(),
        });
        let row = |at: usize| -> Json {
            let value = |column: &Column| match column {
                Column::Ints(values) => Json::from(values.get(at).copied().flatten()),
                Column::Texts(values) => Json::from(values.get(at).cloned().flatten()),
            };
            self.0.iter().map(value).collect()
        };
        (0..length).map(row).collect::<Json>().to_string()
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
        query.bind(list.to_json())
    }
}

impl TakesLists for Postgres {
    fn bind_list(
        query: Query<'static, Self, Self::Arguments>,
        list: List,
    ) -> Query<'static, Self, Self::Arguments> {
        list.0.into_iter().fold(query, |query, column| match column {
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
    args.into_iter().fold(sqlx::query(sql), |query, value| match value {
        Value::Int(value) => query.bind(value),
        Value::Text(value) => query.bind(value),
        Value::List(list) => D::bind_list(query, list),
    })
}

/// What became of a statement.
#[derive(Debug)]
pub(in crate::store) struct Done<T> {
    pub(in crate::store) rows: Vec<T>,
    /// How many rows it changed, of one that changes rows.
    pub(in crate::store) changed: u64,
}

/// What became of each of several statements.
pub(super) async fn each_done<Q, R>(
    steps: impl Stream<Item = Result<Either<Q, R>, sqlx::Error>>,
    changed: fn(&Q) -> u64,
) -> Result<Vec<Done<R>>, sqlx::Error> {
    let (mut steps, mut done, mut rows) = (pin!(steps), Vec::new(), Vec::new());
    while let Some(step) = steps.try_next().await? {
        match step {
            Either::Right(row) => rows.push(row),
            Either::Left(end) => done.push(Done { rows: std::mem::take(&mut rows), changed: changed(&end) }),
        }
    }
    Ok(done)
}
