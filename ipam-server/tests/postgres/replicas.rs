//! Replicas that are killed one by one, and what they say of themselves.

use crate::{
    service::{DEADLINE, Load, Replica, ask, metric, recorded},
    store::{DATABASE, cluster},
};
use std::{
    thread,
    time::{Duration, Instant},
};

#[tokio::test(flavor = "multi_thread")]
async fn clients_go_on_while_replicas_are_killed() {
    let cluster = cluster(&[]).await;
    let database = cluster.url(DATABASE);
    // All at once on an empty database.
    let mut replicas = thread::scope(|scope| {
        let starting: Vec<_> = (0..3).map(|_| scope.spawn(|| Replica::start(&database))).collect();
        starting.into_iter().map(|one| one.join().unwrap()).collect::<Vec<_>>()
    });
    let load = Load::start(&replicas);
    load.go_on(60);
    for killed in 0..2 {
        replicas[killed].kill();
        load.go_on(60);
        for (i, replica) in replicas.iter().enumerate() {
            let ready = ask(&replica.address, "GET /readyz", None).map(|(status, _)| status);
            assert_eq!(ready.ok(), (i > killed).then_some(200), "replica {i} when {killed} is gone");
        }
    }
    // The last one knows exactly what was acknowledged.
    let believed = load.finish();
    assert_eq!(recorded(&replicas[2].address), believed);
}

#[tokio::test(flavor = "multi_thread")]
async fn ready_is_who_can_answer() {
    let mut cluster = cluster(&[]).await;
    let replica = Replica::start(&cluster.url(DATABASE));
    assert_eq!((replica.status("/livez"), replica.status("/readyz")), (200, 200));
    cluster.stop();
    let statuses = ["/livez", "/readyz", "/v1/vnets"].map(|path| replica.status(path));
    assert_eq!(statuses, [200, 503, 503]);
    cluster.run().await;
    assert_eq!((replica.status("/readyz"), replica.status("/v1/vnets")), (200, 200));
}

/// The replica that does what one does for all, once there is one.
fn at_work(replicas: &[Replica]) -> usize {
    let began = Instant::now();
    loop {
        let turns = replicas.iter().map(|replica| metric(&replica.address, "ipam_upkeep_turn"));
        let at_work: Vec<usize> =
            turns.enumerate().filter(|(_, turn)| *turn == Some(1.0)).map(|(i, _)| i).collect();
        match at_work[..] {
            [one] => return one,
            [] => assert!(began.elapsed() < DEADLINE, "nobody's turn"),
            _ => panic!("{at_work:?} at once"),
        }
        thread::park_timeout(Duration::from_millis(20));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_does_the_upkeep_and_another_when_that_one_ends() {
    let cluster = cluster(&[]).await;
    let database = cluster.url(DATABASE);
    let mut replicas = vec![Replica::start(&database), Replica::start(&database), Replica::start(&database)];
    let mut raw = cluster.connect(DATABASE).await;
    while replicas.len() > 1 {
        let mut one = replicas.remove(at_work(&replicas));
        one.kill();
        at_work(&replicas);
    }
    // The last one does the work: what somebody left in 1970 is gone when it has had a look.
    drop(replicas);
    let old = "INSERT INTO event (at, actor, source, action, subject, became) VALUES (0, 'a', 's', 'create', 'vnet/v', '{}')";
    raw.execute(old).await.unwrap();
    let replica = Replica::start(&database);
    let began = Instant::now();
    while raw.number("SELECT COUNT(*) FROM event WHERE at = 0").await > 0 {
        assert!(began.elapsed() < DEADLINE, "nobody prunes");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    while metric(&replica.address, "ipam_rows_pruned_total{table=\"event\"}") != Some(1.0) {
        assert!(began.elapsed() < DEADLINE, "nobody counts");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
