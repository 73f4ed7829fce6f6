//! Replicas that decide at the same moment. A stranger's lock lets all of them read and none of them write, until as many
//! wait as there are: who read what another was about to change would have decided by then.

use crate::store::{
    WAITING, allocate, cluster, keep, number, page, parse, plan, pool, register, replica, stranger, until,
};
use ipam_server::store::StoreError;
use sqlx::{Executor, PgConnection};
use std::collections::BTreeSet;
use testdb::Cluster;

/// Lets everybody read a table and nobody write it.
async fn hold_up(cluster: &Cluster, table: &str) -> PgConnection {
    let mut stranger = stranger(cluster).await;
    let sql = format!("BEGIN; LOCK TABLE {table} IN SHARE MODE");
    stranger.execute(sqlx::AssertSqlSafe(sql)).await.unwrap();
    stranger
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_pick_for_one_node_pick_two_addresses() {
    let cluster = cluster(&[]).await;
    let (one, two) = (replica(&cluster).await, replica(&cluster).await);
    plan(&one, 1).await;
    register(&one, "n").await;
    let (mut holder_up, mut observer) = (hold_up(&cluster, "allocation").await, stranger(&cluster).await);
    let picking = [(one, "c1"), (two, "c2")]
        .map(|(store, pod)| tokio::spawn(async move { allocate(&store, "n", pod).await.unwrap() }));
    until(&mut observer, WAITING, 2).await;
    holder_up.execute("COMMIT").await.unwrap();
    let [first, second] = picking;
    assert_ne!(first.await.unwrap(), second.await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_claim_claim_two_blocks() {
    let cluster = cluster(&[]).await;
    let (one, two) = (replica(&cluster).await, replica(&cluster).await);
    plan(&one, 2).await;
    let (mut holder_up, mut observer) = (hold_up(&cluster, "node").await, stranger(&cluster).await);
    let claiming = [(one, "n1"), (two, "n2")]
        .map(|(store, name)| tokio::spawn(async move { register(&store, name).await }));
    until(&mut observer, WAITING, 2).await;
    holder_up.execute("COMMIT").await.unwrap();
    for claim in claiming {
        claim.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_does_not_change_under_one_that_picks() {
    let cluster = cluster(&[]).await;
    let (one, two) = (replica(&cluster).await, replica(&cluster).await);
    plan(&one, 1).await;
    register(&one, "n").await;
    let (mut holder_up, mut observer) = (hold_up(&cluster, "allocation").await, stranger(&cluster).await);
    let picking = tokio::spawn(async move { allocate(&one, "n", "c").await });
    until(&mut observer, WAITING, 1).await;
    let mut smaller = pool("v/a", 1);
    smaller.max_pods = 4.try_into().unwrap();
    let planning = tokio::spawn(async move { two.put_pool(&parse("p"), &smaller, &keep()).await });
    until(&mut observer, WAITING, 2).await;
    holder_up.execute("COMMIT").await.unwrap();
    picking.await.unwrap().unwrap();
    planning.await.unwrap().unwrap();
    assert_eq!(
        number(&mut observer, "SELECT SUM(next - first)::BIGINT FROM extent WHERE kind = 'block'").await,
        4
    );
}

/// Two replicas pick for the same nodes at the same time, while both plan.
#[tokio::test(flavor = "multi_thread")]
async fn replicas_give_no_address_twice() {
    let cluster = cluster(&[]).await;
    let (one, two) = (replica(&cluster).await, replica(&cluster).await);
    plan(&one, 8).await;
    for i in 0..4 {
        register(&one, &format!("n{i}")).await;
    }
    let mut tasks = Vec::new();
    for pod in 0..48 {
        let store = if pod % 2 == 0 { one.clone() } else { two.clone() };
        tasks.push(tokio::spawn(async move {
            allocate(&store, &format!("n{}", pod % 4), &format!("c{pod}")).await
        }));
    }
    let planners =
        [(one.clone(), "m0", 9), (two.clone(), "m1", 10), (one, "m2", 11), (two.clone(), "m3", 12)];
    let planning = planners.map(|(store, name, nodes)| {
        tokio::spawn(async move {
            store.put_pool(&parse("p"), &pool("v/a", nodes), &keep()).await.unwrap();
            register(&store, name).await;
        })
    });
    let (mut held, mut full) = (BTreeSet::new(), 0);
    for task in tasks {
        match task.await.unwrap() {
            Ok(address) => assert!(held.insert(address), "{address} twice"),
            Err(StoreError::Exhausted(_)) => full += 1,
            Err(error) => panic!("{error}"),
        }
    }
    for task in planning {
        task.await.unwrap();
    }
    assert_eq!((held.len(), full), (32, 16), "eight of each node");
    let nodes = two.nodes(&Default::default(), &page()).await.unwrap().items;
    let claims: BTreeSet<u64> = nodes.iter().map(|node| node.claim.0).collect();
    assert_eq!((nodes.len(), claims.len()), (8, 8));
    check(&cluster).await;
}

async fn check(cluster: &Cluster) {
    let mut stranger = stranger(cluster).await;
    let own = "SELECT COUNT(own4) - COUNT(DISTINCT own4) FROM node";
    assert_eq!(number(&mut stranger, own).await, 0, "own addresses twice");
    let gaps = "SELECT COUNT(*) FROM subnet s
        WHERE s.length <> (SELECT SUM(next - first) FROM extent WHERE subnet = s.id)";
    assert_eq!(number(&mut stranger, gaps).await, 0, "gaps");
}
