//! From SQLite to PostgreSQL and back: nothing is lost or changed on the way.

use crate::{
    filled::fill,
    store::{DATABASE, cluster, parse},
};
use ipam_server::{
    clock::SystemClock,
    store::{DatabaseUrl, Since, Store},
};
use jiff::Timestamp;
use std::{io::Cursor, path::Path, sync::Arc};

async fn dump(url: &DatabaseUrl) -> String {
    let mut bytes = Vec::new();
    Store::dump(url, Timestamp::UNIX_EPOCH, &mut bytes).await.unwrap();
    String::from_utf8(bytes).unwrap()
}

async fn restore(url: &DatabaseUrl, dump: &str) {
    let from = Cursor::new(dump.as_bytes());
    Store::restore(url, Timestamp::UNIX_EPOCH, from, Since::Nothing).await.unwrap();
}

fn sqlite(dir: &Path, name: &str) -> DatabaseUrl {
    parse(&format!("sqlite://{}", dir.join(name).display()))
}

#[tokio::test(flavor = "multi_thread")]
async fn there_and_back_again_every_row_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (first, last) = (sqlite(dir.path(), "first.db"), sqlite(dir.path(), "last.db"));
    let store = Store::open(&first, Arc::new(SystemClock)).await.unwrap();
    fill(&store).await;
    store.close().await;
    let cluster = cluster(&[]).await;
    let middle: DatabaseUrl = parse(&cluster.url(DATABASE));

    let left = dump(&first).await;
    restore(&middle, &left).await;
    let moved = dump(&middle).await;
    assert_eq!(moved, left);
    restore(&last, &moved).await;
    assert_eq!(dump(&last).await, left);

    // Numbers go on where they were, so a service on the new database makes none that is there.
    let store = Store::open(&middle, Arc::new(SystemClock)).await.unwrap();
    let vnet = serde_json::from_str(r#"{"addressSpace": ["192.168.0.0/16"]}"#).unwrap();
    store.put_vnet(&parse("w"), &vnet, &Default::default()).await.unwrap();
    assert_eq!(store.consistency().await.unwrap().findings, []);
}
