//! A database leaves as a dump and comes back as it was.

use crate::{
    filled::fill,
    support::{SetClock, World, keep, node, page, parse, pool, says},
};
use ipam_server::store::{DatabaseUrl, DumpError, Since, Store, StoreError};
use std::{collections::BTreeSet, io::Cursor};
use testdb::{Make, TestDatabase};

/// The dump of a world's database.
pub(crate) async fn dumped(url: &str, world: &World) -> Vec<u8> {
    let mut bytes = Vec::new();
    Store::dump(&parse(url), now(&world.clock), &mut bytes).await.unwrap();
    bytes
}

fn now(clock: &SetClock) -> jiff::Timestamp {
    ipam_server::clock::Clock::now(clock)
}

/// An empty database, which has a schema already or has not.
pub(crate) async fn empty() -> TestDatabase {
    TestDatabase::new(async |url| {
        Store::migrate(&parse(&url)).await.unwrap();
    })
    .await
}

async fn restored(world: &World, dump: &[u8], since: Since) -> Result<TestDatabase, DumpError> {
    let database = empty().await;
    Store::restore(&parse(&database.url()), now(&world.clock), Cursor::new(dump), since).await?;
    Ok(database)
}

fn lines(dump: &[u8]) -> Vec<&str> {
    std::str::from_utf8(dump).unwrap().lines().collect()
}

async fn filled_world() -> World {
    let world = World::new().await;
    fill(&world.store).await;
    world
}

#[tokio::test]
async fn every_table_and_column_of_the_schema_is_in_it_and_every_table_has_rows() {
    let world = filled_world().await;
    let mut raw = world.connection().await;
    let sql = match Make::wanted() {
        Make::Sqlite => {
            "SELECT t.name || '.' || c.name FROM sqlite_schema AS t JOIN pragma_table_info(t.name) AS c
             WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite%' AND t.name NOT LIKE '%sqlx%'"
        }
        Make::Postgres => {
            "SELECT table_name || '.' || column_name FROM information_schema.columns
             WHERE table_schema = 'public' AND table_name NOT LIKE '%sqlx%'"
        }
    };
    let schema: BTreeSet<String> = raw.column::<String>(sql).await.into_iter().collect();
    let dump = dumped(&world.database.url(), &world).await;
    let mut there = BTreeSet::new();
    let mut empty = BTreeSet::new();
    for line in lines(&dump).into_iter().skip(1) {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        if let Some(table) = line["table"].as_str() {
            empty.insert(table.to_owned());
            let columns = line["columns"].as_array().unwrap();
            there.extend(columns.iter().map(|column| format!("{table}.{}", column.as_str().unwrap())));
        }
    }
    let header: serde_json::Value = serde_json::from_str(lines(&dump)[0]).unwrap();
    empty.retain(|table| header["rows"][table] == 0);
    assert_eq!(there, schema);
    assert_eq!(empty, BTreeSet::new(), "the filled plan shows nothing of these tables");
}

#[tokio::test]
async fn what_comes_back_is_what_left() {
    let world = filled_world().await;
    world.check().await;
    let dump = dumped(&world.database.url(), &world).await;
    let other = restored(&world, &dump, Since::Nothing).await.unwrap();
    assert_eq!(lines(&dumped(&other.url(), &world).await), lines(&dump));
    // It goes on where it was: numbers follow those that are there.
    let store = Store::open(&parse(&other.url()), world.clock.clone()).await.unwrap();
    store.put_pool(&parse("q"), &pool(&["v/b"], 4, 2), &keep()).await.unwrap();
    store.put_node(&parse("q1"), &node("q", &["10.0.1.200"]), &keep()).await.unwrap();
    let claims =
        [store.node(&parse("q1")).await.unwrap().claim, store.node(&parse("n2")).await.unwrap().claim];
    assert!(claims[0] > claims[1], "{claims:?}");
    let events = store.events(&Default::default(), &page()).await.unwrap().items;
    let numbers: BTreeSet<u64> = events.iter().map(|event| event.id).collect();
    assert_eq!(numbers.len(), events.len());
    assert_eq!(store.consistency().await.unwrap().findings, []);
    store.close().await;
}

#[tokio::test]
async fn it_is_one_moment_while_the_service_goes_on() {
    let world = filled_world().await;
    let dump = {
        let mut bytes = Vec::new();
        let url: DatabaseUrl = parse(&world.database.url());
        let writing = Store::dump(&url, now(&world.clock), &mut bytes);
        let changing = async {
            for i in 0..20 {
                world
                    .store
                    .put_vnet(
                        &parse(&format!("w{i}")),
                        &crate::support::vnet(&[&format!("192.168.{i}.0/24")]),
                        &keep(),
                    )
                    .await
                    .unwrap();
            }
        };
        let (written, ()) = tokio::join!(writing, changing);
        written.unwrap();
        bytes
    };
    restored(&world, &dump, Since::Nothing).await.unwrap();
}

#[tokio::test]
async fn what_is_not_whole_is_refused_and_leaves_nothing() {
    let world = filled_world().await;
    let dump = dumped(&world.database.url(), &world).await;
    let text = String::from_utf8(dump.clone()).unwrap();
    let without_last = text[..text[..text.len() - 1].rfind('\n').unwrap() + 1].to_owned();
    let row = text.find("\n[").unwrap() + 2;
    let broken = [
        (String::new(), "ends within line 1"),
        ("{}\n".to_owned(), "no backup of ipam-server"),
        (text[..text.len() - 10].to_owned(), "ends within line"),
        (text[..row + 20].to_owned(), "ends within line"),
        (without_last, "ends within line"),
        (format!("{text}\n"), "more comes after it"),
        (text.replace("\"wired\"", "\"x\"").replacen("web", "wev", 1), "checksum"),
        (text.replacen("\"formatVersion\":1", "\"formatVersion\":2", 1), "which wrote it"),
        (text.replacen("\"schemaVersion\":", "\"schemaVersion\":9", 1), "which wrote it"),
        (text.replacen("\"columns\":[\"id\",", "\"columns\":[\"key\",", 1), "columns of table vnet"),
    ];
    for (wrong, why) in broken {
        let database = empty().await;
        let url: DatabaseUrl = parse(&database.url());
        let refused =
            Store::restore(&url, now(&world.clock), Cursor::new(wrong.as_bytes()), Since::Nothing).await;
        let refusal = refused.unwrap_err().to_string();
        assert!(refusal.contains(why), "{why}: {refusal}");
        Store::restore(&url, now(&world.clock), Cursor::new(&dump), Since::Nothing)
            .await
            .expect("it is still empty");
    }
}

#[tokio::test]
async fn only_an_empty_database_is_filled() {
    let world = filled_world().await;
    let dump = dumped(&world.database.url(), &world).await;
    let before = world.dump().await;
    let refused =
        Store::restore(&parse(&world.database.url()), now(&world.clock), Cursor::new(&dump), Since::Unknown)
            .await;
    assert!(
        matches!(&refused, Err(DumpError::NotEmpty(why)) if why.contains("name a new file")),
        "{refused:?}"
    );
    assert_eq!(world.dump().await, before);
}

#[tokio::test]
async fn a_dump_that_breaks_a_rule_is_not_restored() {
    let world = filled_world().await;
    // No constraint says that free neighbours are one, or that a counter is not behind.
    world.sql("UPDATE counter SET value = 1 WHERE name = 'claim'").await;
    let dump = dumped(&world.database.url(), &world).await;
    let refused = restored(&world, &dump, Since::Nothing).await;
    assert!(
        matches!(&refused, Err(DumpError::Broken(found)) if found[0].code == "claim-counter"),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_database_of_another_version_is_neither_dumped_nor_opened() {
    let world = World::new().await;
    let done = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
        SELECT 9999, 'later', success, checksum, 0 FROM _sqlx_migrations WHERE version = 1";
    world.sql(done).await;
    let url: DatabaseUrl = parse(&world.database.url());
    let refused = Store::dump(&url, now(&world.clock), Vec::new()).await;
    assert!(
        matches!(&refused, Err(DumpError::Store(StoreError::Unfit(why))) if why.contains("9999")),
        "{refused:?}"
    );
    says(Store::migrate(&url).await, &["Unfit", "9999", "a later ipam-server"]);
    world.sql("DELETE FROM _sqlx_migrations WHERE version > 4").await;
    let refused = Store::dump(&url, now(&world.clock), Vec::new()).await.unwrap_err().to_string();
    assert!(refused.contains("ipam-server migrate"), "{refused}");
}

#[tokio::test]
async fn a_schema_is_brought_up_to_date_once_however_many_ask() {
    let dir = tempfile::tempdir().unwrap();
    let url: DatabaseUrl = match Make::wanted() {
        Make::Sqlite => parse(&format!("sqlite://{}", dir.path().join("new.db").display())),
        // A database of this make comes with its schema.
        Make::Postgres => return,
    };
    let all = futures_of(8, || Store::migrate(&url)).await;
    let made = all.iter().filter(|migrated| migrated.from.is_none()).count();
    assert_eq!(made, 1, "{all:?}");
    assert!(all.iter().all(|migrated| migrated.to == ipam_server::store::schema_version()), "{all:?}");
}

async fn futures_of<T, F: Future<Output = Result<T, StoreError>>>(
    count: usize,
    make: impl Fn() -> F,
) -> Vec<T> {
    let mut all = Vec::new();
    for outcome in futures::future::join_all((0..count).map(|_| make())).await {
        all.push(outcome.unwrap());
    }
    all
}

/// Since is what the operator says; the dump itself cannot know.
#[tokio::test]
async fn only_what_may_have_gone_on_begins_in_recovery() {
    let world = filled_world().await;
    let dump = dumped(&world.database.url(), &world).await;
    for (since, recovers) in [(Since::Nothing, false), (Since::Unknown, true)] {
        let database = restored(&world, &dump, since).await.unwrap();
        let store = Store::open(&parse(&database.url()), world.clock.clone()).await.unwrap();
        assert_eq!(store.consistency().await.unwrap().recovery.is_some(), recovers, "{since:?}");
        store.close().await;
    }
}
