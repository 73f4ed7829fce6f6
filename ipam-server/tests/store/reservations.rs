use crate::support::{World, keep, node, page, parse, pool, reservation, says};
use ipam_api::wire::ReservationSpec;
use ipam_server::store::VmState;

#[tokio::test]
async fn a_reservation_takes_free_addresses_only() {
    let world = World::with_subnets(&[("a", &["10.0.0.0/24", "fd00::/64"])]).await;
    let path = parse("v/a");
    let put = async |name: &str, first: &str, last: &str| {
        world.store.put_reservation(&path, &parse(name), &reservation(first, last), &keep()).await
    };
    let made = put("vms", "10.0.0.10", "10.0.0.19").await.unwrap().into_inner();
    assert_eq!((made.size, made.platform), (10, false));
    assert_eq!(put("vms", "fd00::a", "fd00::13").await.unwrap().into_inner(), made);
    says(put("lb", "10.0.0.19", "10.0.0.30").await, &["Overlap", "vms", "10.0.0.10 to 10.0.0.19"]);
    says(put("lb", "10.0.0.0", "10.0.0.9").await, &["Overlap", "platform-first"]);
    says(put("lb", "10.0.0.30", "10.0.0.29").await, &["Invalid /last", "before"]);
    says(put("lb", "10.0.0.30", "fd00::1f").await, &["Invalid /last", "family"]);
    says(put("lb", "10.0.1.30", "10.0.1.31").await, &["Invalid /first", "/last", "10.0.0.0/24"]);
    says(put("platform-x", "10.0.0.30", "10.0.0.31").await, &["Invalid path:reservation"]);
    says(put("platform-last", "10.0.0.254", "10.0.0.255").await, &["InUse", "reservePlatform"]);
    let empty = ReservationSpec { reason: " ".to_owned(), ..reservation("10.0.0.30", "10.0.0.31") };
    says(world.store.put_reservation(&path, &parse("lb"), &empty, &keep()).await, &["Invalid /reason"]);
    let long = ReservationSpec { reason: "x".repeat(257), ..reservation("10.0.0.30", "10.0.0.31") };
    says(world.store.put_reservation(&path, &parse("lb"), &long, &keep()).await, &["Invalid /reason", "256"]);
    assert_eq!(world.store.reservations(&path, &page()).await.unwrap().items.len(), 3);

    let moved = put("vms", "10.0.0.15", "10.0.0.40").await.unwrap().into_inner();
    assert_eq!((moved.version, moved.size), (made.version + 1, 26));
    world.check().await;
    says(
        world.store.delete_reservation(&path, &parse("platform-first"), &keep()).await,
        &["InUse", "reservePlatform"],
    );
    world.store.delete_reservation(&path, &parse("vms"), &keep()).await.unwrap();
    says(world.store.reservation(&path, &parse("vms")).await, &["NotFound", "v/a/vms"]);
    assert_eq!(world.tiles("v/a").await.len(), 3);
}

#[tokio::test]
async fn a_reservation_over_a_block_is_refused() {
    let world = World::with_subnets(&[("a", &["10.0.0.0/24"])]).await;
    let path = parse("v/a");
    world.store.put_pool(&parse("p"), &pool(&["v/a"], 8, 2), &keep()).await.unwrap();
    world.store.put_node(&parse("n1"), &node("p", &["10.0.0.100"]), &keep()).await.unwrap();
    let over = async |first: &str, last: &str| {
        world.store.put_reservation(&path, &parse("r"), &reservation(first, last), &keep()).await
    };
    says(over("10.0.0.11", "10.0.0.11").await, &["InUse", "node n1"]);
    says(over("10.0.0.12", "10.0.0.30").await, &["InUse", "pool p"]);
    says(over("10.0.0.90", "10.0.0.255").await, &["Overlap", "platform-last"]);
    world.check().await;
}

#[tokio::test]
async fn a_reservation_covers_registered_nodes_until_they_leave() {
    let world = World::with_subnets(&[("a", &["10.0.0.0/24"])]).await;
    let path = parse("v/a");
    world.store.put_pool(&parse("p"), &pool(&["v/a"], 8, 2), &keep()).await.unwrap();
    world.store.put_node(&parse("n1"), &node("p", &["10.0.0.100"]), &keep()).await.unwrap();
    let put = async |first: &str, last: &str| {
        world.store.put_reservation(&path, &parse("vms"), &reservation(first, last), &keep()).await
    };
    // Takes in what was the node's own extent.
    put("10.0.0.90", "10.0.0.110").await.unwrap();
    assert_eq!(world.number("SELECT COUNT(*) FROM extent WHERE node IS NOT NULL").await, 0);
    world.check().await;
    let before = world.dump().await;
    says(put("10.0.0.90", "10.0.0.99").await, &["InUse", "node n1"]);
    says(put("10.0.0.101", "10.0.0.110").await, &["InUse", "node n1"]);
    says(world.store.delete_reservation(&path, &parse("vms"), &keep()).await, &["InUse", "node n1"]);
    assert_eq!(world.dump().await, before);
    put("10.0.0.100", "10.0.0.100").await.unwrap();
    world.store.delete_node(&parse("n1"), VmState::Unknown, &keep()).await.unwrap();
    world.store.delete_reservation(&path, &parse("vms"), &keep()).await.unwrap();
    world.check().await;
}
