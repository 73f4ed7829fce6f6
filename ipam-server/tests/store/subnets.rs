use crate::support::{World, all, keep, node, page, parse, pool, reservation, says, subnet};
use ipam_api::wire::SubnetSpec;
use ipam_server::store::Page;

#[tokio::test]
async fn a_subnet_begins_with_the_platforms_addresses() {
    let world =
        World::with_subnets(&[("a", &["10.0.0.0/24", "fd00::/64"]), ("b", &["fd00:0:0:1::/64"])]).await;
    assert_eq!(
        world.tiles("v/a").await,
        [
            "10.0.0.0-10.0.0.3 reserved reservation/platform-first",
            "10.0.0.4-10.0.0.254 free",
            "10.0.0.255-10.0.0.255 reserved reservation/platform-last",
        ]
    );
    let subnet = world.store.subnet(&parse("v/a")).await.unwrap();
    assert_eq!((subnet.size, subnet.free, subnet.largest_free), (256, 251, 251));
    let v6 = world.store.subnet(&parse("v/b")).await.unwrap();
    assert_eq!((v6.size, v6.free), (1 << 48, (1 << 48) - 4));
    world.check().await;
}

#[tokio::test]
async fn a_subnet_lies_in_its_vnet_apart_from_siblings() {
    let world = World::with_subnets(&[("a", &["10.0.0.0/24", "fd00::/64"])]).await;
    let put = async |path: &str, cidrs: &[&str]| {
        world.store.put_subnet(&parse(path), &subnet(cidrs), &keep()).await
    };
    says(put("v/b", &["10.0.1.0/24", "fd00::/80"]).await, &["Overlap", "v/a", "fd00::/80"]);
    says(put("v/b", &["11.0.1.0/24"]).await, &["Invalid /cidrs/0", "not inside VNet v", "10.0.0.0/8"]);
    says(put("v/b", &["10.0.1.1/24"]).await, &["Invalid /cidrs/0", "write 10.0.1.0/24"]);
    says(put("v/b", &["10.0.1.0/24", "10.0.2.0/24"]).await, &["Invalid /cidrs/1", "second"]);
    says(put("v/b", &[]).await, &["Invalid /cidrs"]);
    says(put("w/b", &["10.0.1.0/24"]).await, &["NotFound", "VNet w"]);
    says(put("v/a", &["10.0.1.0/24"]).await, &["Exists", "fixed at creation"]);
    for tiny in ["10.0.1.0/30", "10.0.1.0/31", "10.0.1.0/32", "fd00:1::/126"] {
        says(put("v/b", &[tiny]).await, &["Invalid /cidrs", "larger CIDR"]);
    }
    put("v/b", &["10.0.1.0/29"]).await.unwrap();
    put("v/c", &["10.0.1.8/31"]).await.unwrap_err();
    let spec = SubnetSpec { reserve_platform: false, ..subnet(&["10.0.1.8/31"]) };
    world.store.put_subnet(&parse("v/c"), &spec, &keep()).await.unwrap();
    assert_eq!(world.store.subnet(&parse("v/c")).await.unwrap().free, 1);
    world.check().await;
}

#[tokio::test]
async fn the_platforms_addresses_come_and_go_with_the_setting() {
    let world = World::with_subnets(&[("a", &["10.0.0.0/24"])]).await;
    let without = SubnetSpec { reserve_platform: false, ..subnet(&["10.0.0.0/24"]) };
    let path = parse("v/a");
    let before = world.store.subnet(&path).await.unwrap().version;
    let changed = world.store.put_subnet(&path, &without, &keep()).await.unwrap().into_inner();
    assert_eq!(changed.version, before + 1);
    assert_eq!(
        world.tiles("v/a").await,
        [
            "10.0.0.0-10.0.0.0 reserved reservation/platform-network",
            "10.0.0.1-10.0.0.1 reserved reservation/platform-gateway4",
            "10.0.0.2-10.0.0.254 free",
            "10.0.0.255-10.0.0.255 reserved reservation/platform-broadcast",
        ]
    );
    world
        .store
        .put_reservation(&path, &parse("dns"), &reservation("10.0.0.2", "10.0.0.2"), &keep())
        .await
        .unwrap();
    let before = world.dump().await;
    says(world.store.put_subnet(&path, &subnet(&["10.0.0.0/24"]), &keep()).await, &["Overlap", "dns"]);
    assert_eq!(world.dump().await, before);
    world.store.delete_reservation(&path, &parse("dns"), &keep()).await.unwrap();
    world.store.put_subnet(&path, &subnet(&["10.0.0.0/24"]), &keep()).await.unwrap();
    assert_eq!(world.tiles("v/a").await.len(), 3);
    world.check().await;
}

#[tokio::test]
async fn a_gateway_moves_only_to_a_free_address() {
    let world = World::with_subnets(&[("a", &["10.0.0.0/24"])]).await;
    let path = parse("v/a");
    world.store.put_pool(&parse("p"), &pool(&["v/a"], 8, 2), &keep()).await.unwrap();
    world.store.put_node(&parse("n1"), &node("p", &["10.0.0.100"]), &keep()).await.unwrap();
    let with = |gateway: &str| SubnetSpec { gateways: all(&[gateway]), ..subnet(&["10.0.0.0/24"]) };
    says(world.store.put_subnet(&path, &with("10.0.0.100"), &keep()).await, &["InUse", "n1"]);
    says(world.store.put_subnet(&path, &with("10.0.0.5"), &keep()).await, &["InUse", "n1"]);
    says(world.store.put_subnet(&path, &with("10.0.0.13"), &keep()).await, &["InUse", "pool p"]);
    says(world.store.put_subnet(&path, &with("10.0.1.1"), &keep()).await, &["Invalid /gateways/0"]);
    let moved = world.store.put_subnet(&path, &with("10.0.0.254"), &keep()).await.unwrap().into_inner();
    assert_eq!(moved.gateways, all::<std::net::IpAddr>(&["10.0.0.254"]));
    world.store.put_subnet(&path, &subnet(&["10.0.0.0/24"]), &keep()).await.unwrap();
    assert!(!world.tiles("v/a").await.iter().any(|tile| tile.contains("gateway")));
    world.check().await;
}

#[tokio::test]
async fn a_subnet_in_use_stays() {
    let world = World::with_subnets(&[("a", &["10.0.0.0/24"])]).await;
    let path = parse("v/a");
    world
        .store
        .put_reservation(&path, &parse("vms"), &reservation("10.0.0.4", "10.0.0.9"), &keep())
        .await
        .unwrap();
    says(world.store.delete_subnet(&path, &keep()).await, &["InUse", "reservation vms"]);
    world.store.delete_reservation(&path, &parse("vms"), &keep()).await.unwrap();
    world.store.put_pool(&parse("p"), &pool(&["v/a"], 8, 0), &keep()).await.unwrap();
    says(world.store.delete_subnet(&path, &keep()).await, &["InUse", "pool p"]);
    world.store.delete_pool(&parse("p"), &keep()).await.unwrap();
    world.store.delete_subnet(&path, &keep()).await.unwrap();
    assert_eq!(world.number("SELECT COUNT(*) FROM extent").await, 0);
    says(world.store.subnet(&path).await, &["NotFound", "subnet v/a"]);
}

#[tokio::test]
async fn extents_come_in_pages() {
    let world = World::with_subnets(&[("a", &["10.0.0.0/24"])]).await;
    let path = parse("v/a");
    let first = world.store.extents(&path, &Page { limit: 2, after: None }).await.unwrap();
    assert_eq!(first.items.len(), 2);
    let second = world.store.extents(&path, &Page { limit: 2, after: first.next }).await.unwrap();
    assert_eq!((second.items.len(), second.next), (1, None));
    let junk = Page { limit: 2, after: Some("x".to_owned()) };
    says(world.store.extents(&path, &junk).await, &["Invalid query:after"]);
    assert_eq!(world.store.subnets(&parse("v"), &page()).await.unwrap().items.len(), 1);
    says(world.store.subnets(&parse("w"), &page()).await, &["NotFound", "VNet w"]);
}
