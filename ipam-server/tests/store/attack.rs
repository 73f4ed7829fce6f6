//! Raw SQL by another connection with `foreign_keys = ON`: the database itself refuses what would break it.

use crate::support::{World, keep, node, parse, pool, reservation};
use ipam_api::wire::{Allocator, NodeSpec};
use ipam_server::store::NodeCall;
use testdb::Raw;

/// `v/a` has a reservation, a claimed block [4, 12) of n1 with one address held, another of n2
/// at [12, 20), a planned one at [20, 28), and free addresses; `v/b` is another subnet.
async fn world() -> World {
    let world = World::with_subnets(&[("a", &["10.0.0.0/24"]), ("b", &["10.0.1.0/24"])]).await;
    let store = &world.store;
    store.put_pool(&parse("p"), &pool(&["v/a"], 8, 3), &keep()).await.unwrap();
    for (name, address) in [("n1", "10.0.0.100"), ("n2", "10.0.0.101")] {
        let spec = NodeSpec { allocator: Allocator::Service, ..node("p", &[address]) };
        store.put_node(&parse(name), &spec, &keep()).await.unwrap();
    }
    let call = NodeCall { node: parse("n1"), stamp: None };
    let attachment = ipam_api::names::Attachment {
        network: parse("default"),
        container_id: parse("c1"),
        if_name: parse("eth0"),
    };
    store.allocate(&call, &attachment, &ipam_api::wire::AllocationSpec::default()).await.unwrap();
    store
        .put_reservation(&parse("v/a"), &parse("vms"), &reservation("10.0.0.60", "10.0.0.69"), &keep())
        .await
        .unwrap();
    world
}

const HELD: &str =
    "INSERT INTO allocation (subnet, at_offset, state, node_name, network, container_id, if_name,
        since, claim, boot_seq, seq, node, block, extent_first, extent_next) ";

/// What is tried, and the statements that try it in one transaction.
const ATTACKS: &[(&str, &[&str])] = &[
    ("a gap: a free extent goes", &["DELETE FROM extent WHERE subnet = 1 AND kind = 'free'"]),
    (
        "a gap: an extent ends early",
        &["UPDATE extent SET next = next - 1 WHERE subnet = 1 AND kind = 'free' AND first > 101"],
    ),
    ("a gap at the front", &["UPDATE extent SET first = 1 WHERE subnet = 1 AND first = 0"]),
    (
        "a gap at the end",
        &[
            "UPDATE extent SET next = 255 WHERE subnet = 1 AND kind = 'reserved' AND next = 256",
            "UPDATE extent SET first = 255 WHERE subnet = 1 AND kind = 'end'",
        ],
    ),
    (
        "an overlap: an extent ends late",
        &["UPDATE extent SET next = next + 1 WHERE subnet = 1 AND first = 70"],
    ),
    (
        "an overlap: two extents with one end",
        &["INSERT INTO extent (subnet, first, next, kind) VALUES (1, 75, 100, 'free')"],
    ),
    (
        "an overlap: a second extent at one place",
        &["INSERT INTO extent (subnet, first, next, kind) VALUES (1, 70, 75, 'free')"],
    ),
    (
        "an overlap: an extent inside another",
        &["INSERT INTO extent (subnet, first, next, kind) VALUES (1, 75, 80, 'free')"],
    ),
    ("a ring of its own", &["INSERT INTO extent (subnet, first, next, kind) VALUES (1, 300, 300, 'free')"]),
    ("a tile before the line", &["INSERT INTO extent (subnet, first, next, kind) VALUES (1, -4, 0, 'free')"]),
    ("a second end", &["INSERT INTO extent (subnet, first, next, kind) VALUES (1, 300, NULL, 'end')"]),
    ("no end", &["DELETE FROM extent WHERE subnet = 1 AND kind = 'end'"]),
    ("a longer line", &["UPDATE subnet SET length = 512 WHERE id = 1"]),
    ("a shorter line", &["UPDATE subnet SET length = 60 WHERE id = 1"]),
    (
        "a subnet without tiles",
        &["INSERT INTO subnet (vnet, name, cidr4, reserve_platform, length, version, created_at)
         VALUES (1, 'c', '10.0.2.0/24', 0, 256, 1, 0)"],
    ),
    ("a subnet goes before its tiles", &["DELETE FROM subnet WHERE id = 2"]),
    (
        "a block without a block",
        &["UPDATE extent SET kind = 'block', block = 99 WHERE subnet = 1 AND first = 70"],
    ),
    (
        "a block in another subnet",
        &["UPDATE extent SET kind = 'block', block = 3 WHERE subnet = 2 AND kind = 'free'"],
    ),
    ("a reserved extent of nobody", &["UPDATE extent SET kind = 'reserved' WHERE subnet = 1 AND first = 70"]),
    ("a free extent of a block", &["UPDATE extent SET kind = 'free' WHERE block = 3"]),
    ("a reservation goes before its extent", &["DELETE FROM reservation WHERE name = 'vms'"]),
    ("a second block of a node", &["UPDATE block SET node = 1 WHERE id = 3"]),
    ("a second node at an own address", &["UPDATE node SET own4 = 100 WHERE name = 'n2'"]),
    ("two nodes with one claim", &["UPDATE node SET claim = 1"]),
    ("a node goes with its block", &["DELETE FROM node WHERE name = 'n1'"]),
    ("the extent goes from under a held address", &["DELETE FROM extent WHERE block = 1"]),
    (
        "the extent shrinks from under a held address",
        &[
            "UPDATE extent SET next = 8 WHERE block = 1",
            "INSERT INTO extent (subnet, first, next, kind) VALUES (1, 8, 12, 'free')",
        ],
    ),
    (
        "the extent of a held address becomes free",
        &["UPDATE extent SET kind = 'free', block = NULL WHERE block = 1"],
    ),
    ("the block of a held address changes hands", &["UPDATE block SET node = NULL WHERE id = 1"]),
    (
        "a second holder of an address",
        &["SECOND 4, 'held', 'n1', 'default', 'c2', 'eth0', 0, 1, 0, 0, 1, 1, 4, 12"],
    ),
    (
        "a second address of an attachment",
        &["SECOND 5, 'held', 'n1', 'default', 'c1', 'eth0', 0, 1, 0, 0, 1, 1, 4, 12"],
    ),
    (
        "an allocation outside its extent",
        &["SECOND 12, 'held', 'n1', 'default', 'c2', 'eth0', 0, 1, 0, 0, 1, 1, 4, 12"],
    ),
    (
        "an allocation in another node's block",
        &["SECOND 13, 'held', 'n1', 'default', 'c2', 'eth0', 0, 1, 0, 0, 1, 2, 12, 20"],
    ),
    (
        "an allocation in an extent of another block",
        &["SECOND 13, 'held', 'n1', 'default', 'c2', 'eth0', 0, 1, 0, 0, 1, 1, 12, 20"],
    ),
    (
        "an allocation in a planned block",
        &["SECOND 21, 'held', 'n1', 'default', 'c2', 'eth0', 0, 1, 0, 0, NULL, 3, 20, 28"],
    ),
    (
        "an allocation in no block",
        &["SECOND 71, 'held', 'n1', 'default', 'c2', 'eth0', 0, 1, 0, 0, NULL, NULL, NULL, NULL"],
    ),
    (
        "an allocation in a made-up extent",
        &["SECOND 71, 'held', 'n1', 'default', 'c2', 'eth0', 0, 1, 0, 0, 1, 1, 71, 72"],
    ),
    ("a free extent leaves a block", &["UPDATE extent SET leaving = 2 WHERE subnet = 1 AND first = 70"]),
    ("the first version of a block leaves", &["UPDATE extent SET leaving = 1 WHERE block = 2"]),
    (
        "an extent that leaves is free while an address there is held",
        &[
            "UPDATE extent SET leaving = 2 WHERE block = 1",
            "UPDATE extent SET kind = 'free', block = NULL, leaving = NULL WHERE block = 1",
        ],
    ),
    (
        "an extent that leaves is cut under a held address",
        &[
            "UPDATE extent SET leaving = 2 WHERE block = 1",
            "UPDATE extent SET next = 8 WHERE block = 1",
            "INSERT INTO extent (subnet, first, next, kind) VALUES (1, 8, 12, 'free')",
        ],
    ),
    ("a held address moves", &["UPDATE allocation SET at_offset = 50"]),
];

async fn attack(connection: &mut Raw, statements: &[&str]) -> Result<(), sqlx::Error> {
    connection.execute("BEGIN").await?;
    for statement in statements {
        let sql = match statement.strip_prefix("SECOND ") {
            Some(values) => format!("{HELD} VALUES (1, {values})"),
            None => (*statement).to_owned(),
        };
        let touched = connection.execute(&sql).await?;
        assert!(touched > 0, "{sql} touches nothing: the attack is no attack");
    }
    connection.execute("COMMIT").await.map(|_| ())
}

#[tokio::test]
async fn the_database_refuses_what_would_break_it() {
    let world = world().await;
    let before = world.dump().await;
    for (what, statements) in ATTACKS {
        // A connection for each: after a refused COMMIT a transaction is still open.
        let mut connection = world.connection().await;
        let refused = attack(&mut connection, statements).await;
        let error = refused.expect_err(what).to_string();
        assert!(error.contains("constraint"), "{what}: {error}");
        drop(connection);
        assert_eq!(world.dump().await, before, "{what}");
    }
    world.check().await;
}

#[tokio::test]
async fn the_same_change_done_whole_is_taken() {
    let world = world().await;
    let mut connection = world.connection().await;
    let whole = [
        "UPDATE extent SET next = 75 WHERE subnet = 1 AND first = 70",
        "INSERT INTO extent (subnet, first, next, kind) VALUES (1, 75, 100, 'free')",
    ];
    attack(&mut connection, &whole).await.unwrap();
}
