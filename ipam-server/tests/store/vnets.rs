use crate::support::{World, all, dry, keep, page, parse, says, subnet, vnet};
use ipam_api::wire::VnetSpec;
use ipam_server::store::{Change, Page, Precondition, Written};

fn conditional(precondition: Precondition) -> Change {
    Change { precondition, ..Change::default() }
}

#[tokio::test]
async fn a_vnet_is_made_kept_and_changed() {
    let mut world = World::new().await;
    let spec = VnetSpec { address_space: all(&["10.240.0.0/12"]), service_cidrs: all(&["10.0.0.0/16"]) };
    let Written::Created(made) = world.store.put_vnet(&parse("prod"), &spec, &keep()).await.unwrap() else {
        panic!("not new")
    };
    assert_eq!((made.version, made.subnets), (1, 0));
    let Written::Updated(same) = world.store.put_vnet(&parse("prod"), &spec, &keep()).await.unwrap() else {
        panic!("made twice")
    };
    assert_eq!(same, made);
    world.reopen().await;
    assert_eq!(world.store.vnet(&parse("prod")).await.unwrap(), made);
    let wider = VnetSpec { address_space: all(&["10.240.0.0/12", "fd00:10::/48"]), ..spec };
    let changed = world.store.put_vnet(&parse("prod"), &wider, &keep()).await.unwrap().into_inner();
    assert_eq!(changed.version, 2);
    world.store.delete_vnet(&parse("prod"), &keep()).await.unwrap();
    says(world.store.vnet(&parse("prod")).await, &["NotFound", "VNet prod"]);
}

#[tokio::test]
async fn vnets_and_their_services_keep_apart() {
    let world = World::new().await;
    let put = async |name: &str, space: &[&str], services: &[&str]| {
        let spec = VnetSpec { address_space: all(space), service_cidrs: all(services) };
        world.store.put_vnet(&parse(name), &spec, &keep()).await
    };
    put("a", &["10.1.0.0/16"], &["10.2.0.0/16"]).await.unwrap();
    says(put("b", &["10.1.2.0/24"], &[]).await, &["Overlap", "VNet a", "10.1.2.0/24"]);
    says(put("b", &["10.2.0.0/24"], &[]).await, &["Overlap", "serviceCidrs 10.2.0.0/16 of VNet a"]);
    says(put("b", &["10.3.0.0/16"], &["10.0.0.0/15"]).await, &["Overlap", "serviceCidrs 10.0.0.0/15"]);
    says(put("b", &["10.3.0.0/16"], &["10.3.0.0/24"]).await, &["Overlap", "own serviceCidrs"]);
    says(put("b", &["127.0.0.0/8"], &[]).await, &["Invalid /addressSpace/0", "loopback"]);
    says(put("b", &[], &[]).await, &["Invalid /addressSpace", "at least one"]);
    put("b", &["10.3.0.0/16"], &["10.2.0.0/16"]).await.unwrap();
    says(put("a", &["10.1.0.0/16", "10.3.4.0/24"], &[]).await, &["Overlap", "VNet b"]);
}

#[tokio::test]
async fn a_vnet_in_use_neither_shrinks_nor_goes() {
    let world = World::with_subnets(&[("nodes", &["10.1.0.0/24"])]).await;
    let before = world.dump().await;
    says(world.store.put_vnet(&parse("v"), &vnet(&["10.2.0.0/16"]), &keep()).await, &["InUse", "v/nodes"]);
    says(world.store.delete_vnet(&parse("v"), &keep()).await, &["InUse", "v/nodes"]);
    assert_eq!(world.dump().await, before);
    world.store.put_vnet(&parse("v"), &vnet(&["10.1.0.0/16"]), &keep()).await.unwrap();
}

#[tokio::test]
async fn preconditions_hold() {
    let world = World::new().await;
    let (name, spec) = (parse("v"), vnet(&["10.0.0.0/8"]));
    let put = async |precondition| world.store.put_vnet(&name, &spec, &conditional(precondition)).await;
    says(put(Precondition::Exists).await, &["PreconditionFailed", "VNet v"]);
    says(put(Precondition::Version(vec![1])).await, &["PreconditionFailed"]);
    put(Precondition::Absent).await.unwrap();
    says(put(Precondition::Absent).await, &["PreconditionFailed", "exists already"]);
    says(put(Precondition::Version(vec![2, 3])).await, &["PreconditionFailed", "version 1"]);
    put(Precondition::Version(vec![3, 1])).await.unwrap();
    put(Precondition::Exists).await.unwrap();
    let stale = conditional(Precondition::Version(vec![9]));
    says(world.store.delete_vnet(&name, &stale).await, &["PreconditionFailed"]);
}

#[tokio::test]
async fn a_dry_run_answers_the_same_and_changes_nothing() {
    let world = World::new().await;
    let before = world.dump().await;
    let Written::Created(tried) =
        world.store.put_vnet(&parse("v"), &vnet(&["10.0.0.0/8"]), &dry()).await.unwrap()
    else {
        panic!("not new")
    };
    assert_eq!(world.dump().await, before);
    let made = world.store.put_vnet(&parse("v"), &vnet(&["10.0.0.0/8"]), &keep()).await.unwrap().into_inner();
    assert_eq!(tried, made);
    let before = world.dump().await;
    world.store.delete_vnet(&parse("v"), &dry()).await.unwrap();
    let spec = subnet(&["10.0.0.0/24"]);
    world.store.put_subnet(&parse("v/s"), &spec, &dry()).await.unwrap();
    assert_eq!(world.dump().await, before);
}

#[tokio::test]
async fn lists_come_in_pages() {
    let world = World::new().await;
    for i in 0..7 {
        let space = format!("10.{i}.0.0/16");
        world.store.put_vnet(&parse(&format!("v{i}")), &vnet(&[&space]), &keep()).await.unwrap();
    }
    let (mut names, mut after) = (Vec::new(), None);
    loop {
        let listing = world.store.vnets(&Page { limit: 3, after }).await.unwrap();
        assert!(listing.items.len() <= 3);
        names.extend(listing.items.into_iter().map(|vnet| vnet.name.to_string()));
        after = listing.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(names, ["v0", "v1", "v2", "v3", "v4", "v5", "v6"]);
    assert_eq!(world.store.vnets(&Page { limit: 7, after: None }).await.unwrap().next, None);
    assert_eq!(world.store.vnets(&page()).await.unwrap().items.len(), 7);
}
