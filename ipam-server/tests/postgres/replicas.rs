//! Replicas that are killed one by one, and what they say of themselves.

use crate::{
    service::{Load, Replica, ask, recorded},
    store::{DATABASE, cluster},
};
use std::thread;

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
